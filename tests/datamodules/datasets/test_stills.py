# SPDX-License-Identifier: Apache-2.0
"""Single faces: which files they are, the mixture of stills and clips' frames, what is held out, messages."""

import logging
import os
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import pytorch_lightning as pl
import simplejpeg
import torch
from jsonargparse import ArgumentParser

from lipsync_bench.datamodules import ClipFolder, FaceImages, Synthetic
from lipsync_bench.datamodules.clips.clip import Clip, ClipHeader, write_clip
from lipsync_bench.datamodules.datasets.stills import read_clip_frame
from lipsync_bench.datamodules.errors import ClipError, MediaError
from tests.datamodules.fake_trainer import FakeTrainer

CLIP_FRAMES = 15
NAMES = [f"{k // 10:02d}000/{k:05d}.png" for k in range(40)]
Batch = dict[str, torch.Tensor]

# Every still and frame has a grey of its own: stills are darker than CLIP_LEVEL, frame t of clip k is
# CLIP_LEVEL + CLIP_FRAMES * k + t. JPEG at quality 100 keeps an even grey.
STILL_STEP, CLIP_LEVEL = 3, 130


def write_stills(root: Path, names: list[str] = NAMES) -> Path:
    """One image a name, of the grey STILL_STEP * its place in the list."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = np.full((20, 20, 3), STILL_STEP * number, np.uint8)
        path.write_bytes(cv2.imencode(path.suffix, grey)[1].tobytes())
    return root


def write_clips(root: Path) -> Path:
    """Clips 0 to 4 for training, 5 and 6 for validation, 7 for testing."""
    for number in range(8):
        name = f"s{number % 2}/{number}"
        greys = [np.full((24, 18, 3), CLIP_LEVEL + CLIP_FRAMES * number + t, np.uint8) for t in range(CLIP_FRAMES)]
        write_clip(
            root / f"{name}.safetensors",
            ClipHeader(name, name[:2], "x.mp4", "0" * 64, 25.0, 64, 64, "none", "0", "mesh", CLIP_FRAMES, CLIP_FRAMES),
            jpegs=[simplejpeg.encode_jpeg(grey, quality=100) for grey in greys],
            mel=np.zeros((64, 80), np.float32),
            wav=np.zeros(640 * CLIP_FRAMES, np.int16),
            boxes=np.zeros((CLIP_FRAMES, 4), np.float32),
            landmarks=np.zeros((CLIP_FRAMES, 68, 2), np.float32),
            mesh=np.zeros((CLIP_FRAMES, 478, 3), np.float32),
        )
    (root / "manifest.json").write_text("{}")
    (root / "splits").mkdir()
    for split, numbers in {"train": range(5), "val": (5, 6), "test": (7,)}.items():
        (root / "splits" / f"{split}.txt").write_text("".join(f"s{k % 2}/{k}\n" for k in numbers))
    return root


@pytest.fixture(scope="module")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stills(tmp_path_factory.mktemp("stills"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips"))


def folder(root: Path) -> ClipFolder:
    return ClipFolder(root, splits=root / "splits")


def ready(rank: int = 0, world_size: int = 1, **arguments: Any) -> FaceImages:
    defaults = {"image_size": 16, "batch_size": 4, "num_workers": 0, "val_images": 8}
    module = FaceImages(**{**defaults, **arguments})
    if world_size > 1:
        module.trainer = FakeTrainer(rank, world_size)  # type: ignore[assignment]
    module.prepare_data()
    module.setup()
    return module


def images(loader: Any, epoch: int = 0) -> torch.Tensor:
    """All images of an epoch, (N, 3, S, S)."""
    loader.sampler.set_epoch(epoch)
    return torch.cat([batch["image"] for batch in loader])


def greys(loader: Any, epoch: int = 0) -> list[int]:
    return images(loader, epoch)[:, 0, 8, 8].tolist()


def frames_in(values: list[int]) -> list[int]:
    return [value for value in values if value >= CLIP_LEVEL]


def stills_in(values: list[int]) -> list[int]:
    return [value for value in values if value < CLIP_LEVEL]


def test_batches(stills: Path, clips: Path) -> None:
    module = ready(images=stills, clips=folder(clips))
    for loader in (module.train_dataloader(), module.val_dataloader()):
        batch: Batch = next(iter(loader))  # type: ignore[arg-type]
        assert set(batch) == {"image"}
        assert batch["image"].shape == (4, 3, 16, 16)
        assert batch["image"].dtype == torch.uint8
        assert batch["image"].is_contiguous()
        on_device = module.on_after_batch_transfer(batch, 0)["image"]
        assert on_device.dtype == torch.float32
        assert torch.equal(on_device, batch["image"].float() / 255)
        assert 0 <= float(on_device.min()) < float(on_device.max()) <= 1


def test_the_share_of_clips_frames(stills: Path, clips: Path) -> None:
    for share, low, high in ((0.5, 270, 330), (0.2, 90, 150), (0.0, 0, 0), (1.0, 600, 600)):
        module = ready(images=stills, clips=folder(clips), clip_share=share, epoch_length=600, batch_size=50)
        assert low <= len(frames_in(greys(module.train_dataloader()))) <= high  # 600 draws: 30 is 2.4 deviations


def test_clips_and_frames_are_drawn_evenly(stills: Path, clips: Path) -> None:
    module = ready(images=stills, clips=folder(clips), epoch_length=4000, batch_size=50)
    values = greys(module.train_dataloader())
    per_frame = np.bincount(np.asarray(frames_in(values)) - CLIP_LEVEL)
    assert len(per_frame) == 5 * CLIP_FRAMES  # those of the training clips
    assert set(per_frame) <= set(range(10, 45))  # 27 expected
    counts = np.bincount(np.asarray(stills_in(values)) // STILL_STEP, minlength=40)
    assert (counts > 0).sum() == 32
    assert set(counts[counts > 0]) <= set(range(35, 95))  # 62 expected


def test_one_side_alone(stills: Path, clips: Path, tmp_path: Path) -> None:
    only_stills = ready(images=stills, clip_share=0.7)
    assert only_stills.clip_share == 0
    assert len(images(only_stills.train_dataloader())) == 32
    assert not frames_in(greys(only_stills.train_dataloader()) + greys(only_stills.val_dataloader()))
    only_clips = ready(clips=folder(clips), clip_share=0.2)
    assert only_clips.clip_share == 1
    assert len(images(only_clips.train_dataloader())) == 4  # five clips, batches of four
    assert not stills_in(greys(only_clips.train_dataloader()) + greys(only_clips.val_dataloader()))
    middles = [CLIP_LEVEL + CLIP_FRAMES * k + 7 for k in (5, 6)]
    assert sorted(greys(only_clips.val_dataloader())) == middles
    # A share of 0 or 1 leaves the other side unread.
    assert ready(images=stills, clips=ClipFolder(tmp_path / "none"), clip_share=0).clips is None
    assert ready(images=tmp_path / "none", clips=folder(clips), clip_share=1).images is None


def test_held_out_images_are_never_trained_on(stills: Path, tmp_path: Path) -> None:
    module = ready(images=stills, epoch_length=800, batch_size=40)
    held_out = set(greys(module.val_dataloader()))
    assert len(held_out) == 8
    trained = {value for epoch in range(2) for value in greys(module.train_dataloader(), epoch)}
    assert len(trained) == 32
    assert not held_out & trained
    assert set(greys(ready(images=stills, seed=5).val_dataloader())) == held_out
    # A folder that lacks an image keeps the others where they were.
    gone = next(name for k, name in enumerate(NAMES) if STILL_STEP * k in held_out)
    less = write_stills(tmp_path / "less")
    (less / gone).unlink()
    assert len(held_out - set(greys(ready(images=less).val_dataloader()))) == 1


def test_validation_keeps_the_ratio_and_repeats_nothing(stills: Path, clips: Path) -> None:
    for arguments, expected in (
        ({}, (8, 8)),
        ({"clip_share": 0.2}, (8, 2)),
        ({"clip_share": 0.75}, (8, 24)),
        ({"val_length": 10}, (5, 5)),
        ({"val_length": 10, "clip_share": 0.8}, (2, 8)),
    ):
        module = ready(images=stills, clips=folder(clips), **arguments)
        values = greys(module.val_dataloader())
        assert (len(stills_in(values)), len(frames_in(values))) == expected
        assert module._fixed is not None
        assert len(set(module._fixed.items)) == sum(expected)
        frames = np.sort(frames_in(values)) - CLIP_LEVEL
        first, second = (frames[frames // CLIP_FRAMES == k] for k in (5, 6))
        assert len(first) + len(second) == expected[1]
        assert abs(len(first) - len(second)) <= 1
        assert len(first) < 3 or np.ptp(np.diff(first)) <= 1  # evenly spread
        assert values == greys(module.val_dataloader(), epoch=3)
        assert any(stills_in(values[k : k + 4]) and frames_in(values[k : k + 4]) for k in range(0, len(values), 4))


def test_a_side_with_nothing_held_out(stills: Path, clips: Path, caplog: pytest.LogCaptureFixture) -> None:
    def values(module: FaceImages) -> list[int]:
        loader = module.val_dataloader()
        return [] if loader == [] else greys(loader)

    with caplog.at_level(logging.WARNING):
        assert len(frames_in(values(ready(images=stills, clips=folder(clips), val_images=0)))) == 2
    assert "validation has clips' frames alone: val_images is 0" in caplog.text
    no_val = ClipFolder(clips, val_fraction=0.0, test_fraction=0.0)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert len(stills_in(values(ready(images=stills, clips=no_val)))) == 8
    assert "validation has images alone: the clips' split val is empty" in caplog.text
    caplog.clear()
    assert values(ready(images=stills, clips=no_val, val_images=0)) == []
    assert values(ready(images=stills, val_images=0)) == []
    assert caplog.text == ""


def test_the_seed_and_the_epoch_make_the_images(stills: Path, clips: Path) -> None:
    def seen(epoch: int, **arguments: Any) -> torch.Tensor:
        module = ready(images=stills, clips=folder(clips), epoch_length=24, **arguments)
        return images(module.train_dataloader(), epoch)

    first = seen(2)
    assert torch.equal(first, seen(2))
    assert not torch.equal(first, seen(3))
    assert not torch.equal(first, seen(2, seed=1))


def test_workers_do_not_change_the_batches(stills: Path, clips: Path) -> None:
    def seen(workers: int) -> list[torch.Tensor]:
        module = ready(images=stills, clips=folder(clips), num_workers=workers, mirror=True)
        train, val = module.train_dataloader(), module.val_dataloader()
        return [images(train, 0), images(train, 1), images(val)]

    alone, two = seen(0), seen(2)
    assert all(torch.equal(a, b) for a, b in zip(alone, two, strict=True))
    assert not torch.equal(two[0], two[1])


def test_two_ranks_cover_validation_once_and_share_an_epoch(stills: Path, clips: Path) -> None:
    def values(split: str, rank: int, world_size: int) -> list[int]:
        module = ready(rank, world_size, images=stills, clips=folder(clips), val_length=15, batch_size=2)
        loader = module.train_dataloader() if split == "train" else module.val_dataloader()
        return greys(loader, epoch=1)

    for split, count in (("train", 16), ("val", 8)):
        first, second = values(split, 0, 2), values(split, 1, 2)
        assert len(first) == count
        assert sorted(first + second) == sorted(values(split, 0, 1))
        assert all(frames_in(part) and stills_in(part) for part in (first, second))
    assert len(values("val", 0, 1)) == 15


def test_mirrored_images(tmp_path: Path) -> None:
    ramp = np.repeat(np.arange(16, dtype=np.uint8)[None, :, None] * 16, 16, axis=0).repeat(3, axis=2)
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", ramp)[1].tobytes())
    plain, mirrored = (
        images(ready(images=tmp_path, val_images=0, epoch_length=80, mirror=mirror).train_dataloader())
        for mirror in (False, True)
    )
    flipped = (mirrored != plain).flatten(1).any(1)
    assert 25 <= int(flipped.sum()) <= 55
    assert torch.equal(mirrored[flipped], plain[flipped].flip(-1))


def test_which_files_are_images(tmp_path: Path) -> None:
    kept = ["b.JPG", "c/d.webp", "c/e/f.bmp", "a.jpeg", "лицо/é 1.png", os.fsdecode(b"no utf-8 \xff.png")]
    write_stills(tmp_path / "in", [*kept, ".hidden.png", ".cache/x.png"])
    (tmp_path / "in" / "LICENSE.txt").write_text("CC")
    write_stills(tmp_path / "elsewhere", ["g.png"])
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "c" / "loop").symlink_to(tmp_path / "in")
    module = ready(images=tmp_path / "in", val_images=0, batch_size=7)
    assert module._stills is not None
    found = [path.relative_to(tmp_path / "in").as_posix() for path in module._stills["train"]]
    assert found == sorted([*kept, "linked/g.png"])
    assert images(module.train_dataloader()).shape == (7, 3, 16, 16)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_stops_the_loader_with_its_path(tmp_path: Path, workers: int) -> None:
    write_stills(tmp_path, NAMES[:5])
    (tmp_path / NAMES[2]).write_bytes(b"")
    module = ready(images=tmp_path, num_workers=workers, val_images=0, epoch_length=40)
    with pytest.raises(MediaError, match=re.escape(str(tmp_path / NAMES[2]))):
        images(module.train_dataloader())


def test_frames_come_as_in_windows(corpus: Path) -> None:
    synthetic = Synthetic(corpus / "clips", image_size=64)
    module = ready(clips=synthetic, image_size=64, epoch_length=4)
    assert images(module.train_dataloader()).shape == (4, 3, 64, 64)
    path = synthetic.clips("val")[0]
    with Clip(path) as clip:
        middle = len(clip) // 2
        expected = clip.frames(middle, 1, size_hw=(64, 64))[0]
        frame = read_clip_frame(clip, middle, 64)
    assert np.array_equal(frame.permute(1, 2, 0).numpy(), expected)
    assert any(torch.equal(image, frame) for image in images(module.val_dataloader()))


def test_a_broken_clip_raises_with_its_path(tmp_path: Path) -> None:
    root = write_clips(tmp_path)
    module = ready(clips=folder(root), epoch_length=40)
    for number in (0, 5):
        path = root / f"s{number % 2}" / f"{number}.safetensors"
        path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ClipError, match=re.escape("0.safetensors")):
        images(module.train_dataloader())
    with pytest.raises(ClipError, match=re.escape("5.safetensors")):
        ready(clips=folder(root))


def test_arguments(stills: Path, clips: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no images and no clips. Expected one .* --data.init_args.images or"):
        FaceImages()
    for argument, value in (("batch_size", 0), ("image_size", 0), ("epoch_length", 0), ("val_length", 0)):
        with pytest.raises(ValueError, match=rf"{argument} is 0. Expected 1 .* --data.init_args.{argument}"):
            FaceImages(stills, **{argument: value})
    with pytest.raises(ValueError, match=r"val_images is -1. Expected 0 .* --data.init_args.val_images"):
        FaceImages(stills, val_images=-1)
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=rf"clip_share is {share}. Expected 0 to 1. Set --data.init_args"):
            FaceImages(stills, clip_share=share)
    with pytest.raises(ValueError, match=r"val_images is 40, and .* has 40 images. Expected fewer.*--data.init_args"):
        ready(images=stills, val_images=40)
    with pytest.raises(ValueError, match=r"val_length is 20, of which 10 are images, and 8 are held out.*val_images"):
        ready(images=stills, clips=folder(clips), val_length=20)
    with pytest.raises(ValueError, match=r"5.safetensors has 15 frames, and 16 of 32 validation frames .*val_length"):
        ready(clips=folder(clips), val_length=32)
    assert len(images(ready(images=stills, batch_size=50).train_dataloader())) == 50  # one batch, of 32 images
    with pytest.raises(ValueError, match=r"epoch_length is 3. Expected 50 or more, .* --data.init_args.epoch_length"):
        ready(images=stills, batch_size=50, epoch_length=3).train_dataloader()
    with pytest.raises(RuntimeError, match=r"Expected setup before loaders. Call setup\(\)"):
        FaceImages(stills).train_dataloader()


def test_folders_without_images_or_clips(stills: Path, clips: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .*gone. Expected .png, .*Set --data.init_args.images"):
        FaceImages(tmp_path / "gone").prepare_data()
    with pytest.raises(FileNotFoundError, match=r"no folder .*00000.png. Expected"):
        FaceImages(stills / NAMES[0]).prepare_data()
    (tmp_path / "notes.txt").write_text("")
    for check in (FaceImages.prepare_data, FaceImages.setup):
        with pytest.raises(FileNotFoundError, match=r"no images in .* such as FFHQ's 00000/00000.png. Set --data"):
            check(FaceImages(tmp_path))
        with pytest.raises(FileNotFoundError, match=r"folder: no clips in .*gone.*Run: bench prepare"):
            check(FaceImages(stills, ClipFolder(tmp_path / "gone")))
    root = tmp_path / "no_training"
    write_clips(root)
    (root / "splits" / "train.txt").write_text("")
    with pytest.raises(ValueError, match=r"no training clips in .*no_training. Expected .*--data.init_args.clips"):
        ready(images=stills, clips=folder(root)).train_dataloader()


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_stills(tmp_path, NAMES[:5])
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refuse(path: Any) -> Any:  # not by its mode: root may list every folder
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(MediaError, match=r"closed: cannot be listed .*permissions"):
        ready(images=tmp_path, val_images=0)


def test_a_yaml_with_nested_clips(stills: Path, clips: Path, tmp_path: Path) -> None:
    parser = ArgumentParser()
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(pl.LightningDataModule, "data")
    path = tmp_path / "run.yaml"
    path.write_text(
        f"""
data:
  class_path: lipsync_bench.datamodules.FaceImages
  init_args:
    images: {stills}
    clips:
      class_path: lipsync_bench.datamodules.ClipFolder
      init_args: {{root: {clips}, splits: {clips}/splits}}
    clip_share: 0.25
    image_size: 16
    val_images: 6
    num_workers: 0
"""
    )
    parsed = parser.parse_args([f"--config={path}", "--data.init_args.clips.init_args.read=file"])
    module = parser.instantiate(parsed).data
    assert isinstance(module, FaceImages)
    assert isinstance(module.clips, ClipFolder)
    assert (module.clip_share, module.images, module.clips.root, module._read_how()) == (0.25, stills, clips, "file")
    module.setup("fit")
    assert len(images(module.train_dataloader())) == 32
    assert len(images(module.val_dataloader())) == 8
    printed = tmp_path / "printed.yaml"
    printed.write_text(parser.dump(parsed))
    assert parser.dump(parser.parse_args([f"--config={printed}"])) == printed.read_text()


class _Probe(pl.LightningModule):
    """Trains one number and notes what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.sums: list[float] = []
        self.val_sizes: list[int] = []

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        assert batch["image"].dtype == torch.float32
        self.sums.append(float(batch["image"].sum()))
        return (self.weight - batch["image"].mean()) ** 2

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.val_sizes.append(len(batch["image"]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*number of training batches.*")
@pytest.mark.parametrize("val_images", [3, 0])
def test_lightning_trains_on_it(stills: Path, clips: Path, val_images: int) -> None:
    nested = folder(clips) if val_images else None
    module = FaceImages(stills, nested, 0.5, 16, 4, num_workers=0, epoch_length=9, val_images=val_images)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    probe = _Probe()
    pl.Trainer(max_epochs=2, accelerator="cpu", num_sanity_val_steps=0, **quiet).fit(probe, datamodule=module)
    assert len(probe.sums) == 4
    assert len(set(probe.sums)) == 4  # the sampler was told the epoch
    assert probe.val_sizes == ([4, 2] * 2 if val_images else [])
