# SPDX-License-Identifier: Apache-2.0
"""What every data module has to keep: batches, splits, repeatability, coverage, messages; on generated clips."""

import logging
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from lipsync_bench import datamodules
from lipsync_bench.datamodules import LRS2, MEAD, ClipDataModule, ClipFolder, Synthetic
from lipsync_bench.datamodules.datasets.dataset import dataset_names
from lipsync_bench.datamodules.datasets.mead import selected_numbers
from lipsync_bench.datamodules.datasets.splits import SPLITS, Split, read_split
from lipsync_bench.datamodules.errors import ClipError
from lipsync_bench.datamodules.windows.loading import FaceDataModule
from tests.datamodules.fake_trainer import FakeTrainer
from tests.datamodules.prepared_folders import write_folder, write_random

LISTS: dict[Split, list[str]] = {
    "train": [f"s{k % 4}/{k:03d}" for k in range(6)],
    "val": [f"s{k % 4}/{k:03d}" for k in range(6, 11)],
    "test": [f"s{k % 4}/{k:03d}" for k in range(11, 14)],
}
Make = Callable[..., ClipDataModule]


def lrs2(root: Path, **arguments: Any) -> LRS2:
    write_folder(root, chain(*LISTS.values()), LISTS)
    return LRS2(root, **{"check_counts": "warn", "image_size": 32, **arguments})


def mead(root: Path, **arguments: Any) -> MEAD:
    write_folder(root, [f"M003/{number:03d}" for number in range(1, 41)])
    return MEAD(root, **{"image_size": 32, **arguments})


def synthetic(root: Path, **arguments: Any) -> Synthetic:
    write_folder(root, chain(*LISTS.values()), LISTS)
    return Synthetic(root, **arguments)


def folder(root: Path, **arguments: Any) -> ClipFolder:
    write_folder(root, chain(*LISTS.values()))
    return ClipFolder(root, **{"val_fraction": 0.3, "test_fraction": 0.2, "image_size": 32, **arguments})


def overfit(root: Path, **arguments: Any) -> ClipFolder:
    write_folder(root, LISTS["val"])
    return ClipFolder(root, overfit=True, **{"image_size": 32, **arguments})


@pytest.fixture(params=[lrs2, mead, folder, overfit, synthetic])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Makes a data module on one generated folder, small and in this process unless told otherwise."""

    def build(**arguments: Any) -> ClipDataModule:
        defaults = {"batch_size": 4, "image_size": 32, "num_workers": 0}
        return request.param(tmp_path / "data", **{**defaults, **arguments})

    return build


def ready(module: ClipDataModule, rank: int = 0, world_size: int = 1) -> ClipDataModule:
    if world_size > 1:
        module.trainer = FakeTrainer(rank, world_size)  # type: ignore[assignment]
    module.prepare_data()
    module.setup()
    return module


def batches(loader: Any, epoch: int = 0) -> list[dict[str, torch.Tensor]]:
    loader.sampler.set_epoch(epoch)
    return list(loader)


def same(first: list[dict[str, torch.Tensor]], second: list[dict[str, torch.Tensor]]) -> bool:
    return len(first) == len(second) and all(
        a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
        for a, b in zip(first, second, strict=True)
    )


def test_all_data_modules_are_here() -> None:
    assert {"folder", "lrs2", "mead", "synthetic"} <= set(dataset_names())
    assert datamodules.ClipDataModule is ClipDataModule
    assert issubclass(datamodules.FaceImages, FaceDataModule)
    with pytest.raises(AttributeError, match="no attribute 'LRS4'"):
        _ = datamodules.LRS4


def test_preparing_clips_does_not_load_lightning() -> None:
    code = (
        "import sys; import lipsync_bench.datamodules.prepare.prepare as p; p.find_sources\n"
        "from lipsync_bench.datamodules.datasets.dataset import dataset_names; dataset_names()\n"
        "print('pytorch_lightning' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "False"


def test_generator_batches(make: Make) -> None:
    module = ready(make(epoch_length=8))
    batch = batches(module.train_dataloader())[0]
    shapes = {key: tuple(value.shape) for key, value in batch.items()}
    images = (4, 5, 3, 32, 32)
    assert shapes == {"target": images, "reference": images, "mel": (4, 1, 80, 16), "frame_mels": (4, 5, 1, 80, 16)}
    assert batch["target"].dtype == batch["reference"].dtype == torch.uint8
    assert batch["mel"].dtype == batch["frame_mels"].dtype == torch.float32
    assert all(value.is_contiguous() for value in module.on_after_batch_transfer(batch, 0).values())
    on_device = module.on_after_batch_transfer(batch, 0)
    for key in ("target", "reference"):
        assert on_device[key].dtype == torch.float32
        assert float(on_device[key].min()) >= 0
        assert 0.5 < float(on_device[key].max()) <= 1
        assert torch.equal(on_device[key], batch[key].float() / 255)
    assert torch.equal(on_device["mel"], batch["mel"])
    assert 3 < float(batch["mel"].abs().max()) <= 4


def test_expert_batches(make: Make) -> None:
    module = ready(make(window="expert", epoch_length=64, batch_size=64))
    batch = batches(module.train_dataloader())[0]
    shapes = {key: tuple(value.shape) for key, value in batch.items()}
    assert shapes == {"faces": (64, 5, 3, 32, 32), "mel": (64, 1, 80, 16), "label": (64, 1)}
    assert batch["faces"].dtype == torch.uint8
    assert sorted(batch["label"].unique().tolist()) == [0, 1]
    assert module.on_after_batch_transfer(batch, 0)["faces"].max() <= 1


def test_splits_are_disjoint_and_complete(make: Make) -> None:
    module = ready(make())
    splits = {split: module.clips(split) for split in SPLITS}
    assert all(len(splits[split]) > 0 and len(set(splits[split])) == len(splits[split]) for split in SPLITS)
    assert all(path.is_file() for split in SPLITS for path in splits[split])
    if module.splits_overlap:
        assert splits["train"] == splits["val"] == splits["test"]
    else:
        assert len(set(chain(*splits.values()))) == sum(map(len, splits.values()))


def test_same_seed_gives_the_same_windows(make: Make) -> None:
    def seen(epoch: int, **arguments: Any) -> list[dict[str, torch.Tensor]]:
        return batches(ready(make(epoch_length=8, **arguments)).train_dataloader(), epoch)

    first = seen(2)
    assert same(first, seen(2))
    assert not same(first, seen(3))
    assert not same(first, seen(2, seed=1))
    assert same(first, seen(2, read="file"))


def test_validation_windows_stay(make: Make) -> None:
    loader = ready(make()).val_dataloader()
    assert same(batches(loader, 0), batches(loader, 5))
    assert not same(batches(loader), batches(ready(make(seed=1)).val_dataloader()))


def test_workers_do_not_change_the_batches(make: Make) -> None:
    def seen(workers: int) -> list[list[dict[str, torch.Tensor]]]:
        module = ready(make(num_workers=workers, epoch_length=16))
        train, val = module.train_dataloader(), module.val_dataloader()
        return [batches(train, 0), batches(train, 1), batches(val)]

    alone, two = seen(0), seen(2)
    assert all(same(a, b) for a, b in zip(alone, two, strict=True))
    assert not same(two[0], two[1])


@pytest.mark.parametrize("split", ["val", "test"])
def test_two_ranks_cover_each_clip_once(make: Make, split: str) -> None:
    def rows(rank: int, world_size: int) -> list[bytes]:
        module = ready(make(), rank, world_size)
        loader: Any = module.val_dataloader() if split == "val" else module.test_dataloader()
        return [mel.numpy().tobytes() for batch in batches(loader) for mel in batch["mel"]]

    alone = rows(0, 1)
    clips = ready(make()).clips(split)  # type: ignore[arg-type]
    assert len(set(alone)) == len(alone) == len(clips)
    assert sorted(rows(0, 2) + rows(1, 2)) == sorted(alone)


def test_training_ranks_share_an_epoch(make: Make) -> None:
    def rows(rank: int, world_size: int) -> list[bytes]:
        loader = ready(make(epoch_length=9, batch_size=2), rank, world_size).train_dataloader()
        return [mel.numpy().tobytes() for batch in batches(loader, 1) for mel in batch["mel"]]

    first, second = rows(0, 2), rows(1, 2)
    assert len(first) == len(second) == 4
    assert sorted(first + second) == sorted(rows(0, 1))


def test_a_small_data_set_gives_one_batch_an_epoch(make: Make) -> None:
    module = ready(make(batch_size=50))
    assert [len(batch["mel"]) for batch in batches(module.train_dataloader())] == [50]
    with pytest.raises(ValueError, match=r"epoch_length is 3. Expected 50 or more, .* --data.init_args.epoch_length"):
        ready(make(batch_size=50, epoch_length=3)).train_dataloader()


def test_a_broken_clip_raises_with_its_path(make: Make) -> None:
    module = ready(make())
    path = module.clips("val")[0]
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ClipError, match=re.escape(str(path))):
        batches(module.val_dataloader())
    again = type(module)(module.root)
    for name in ("check_counts", "splits_overlap", "val_fraction", "test_fraction"):
        if hasattr(module, name):
            setattr(again, name, getattr(module, name))
    with pytest.raises(ClipError, match=re.escape(str(path))):
        again.setup("validate")


def test_a_broken_clip_raises_with_its_path_from_a_worker(tmp_path: Path) -> None:
    module = ready(overfit(tmp_path / "data", num_workers=1, image_size=32))
    path = module.clips("val")[0]
    path.write_bytes(b"")
    with pytest.raises(ClipError, match=re.escape(str(path))):
        batches(module.val_dataloader())


def test_short_clips_are_left_out_and_listed(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    first = ready(make())
    clips = first.clips("val")
    name = clips[0].relative_to(first.root)
    module = make()
    write_random(first.root, str(name.with_suffix("")), frames=15)
    with caplog.at_level(logging.WARNING):
        module.setup("validate")
    assert module.short["val"] == [clips[0]]
    assert f"1 of {len(clips)} val clips are too short for a window and are left out: {name}" in caplog.text
    assert sum(len(batch["mel"]) for batch in batches(module.val_dataloader())) == len(clips) - 1
    assert module.clips("val") == clips


def test_no_clips(tmp_path: Path) -> None:
    for module in (LRS2(tmp_path / "none"), MEAD(tmp_path), ClipFolder(tmp_path)):
        with pytest.raises(FileNotFoundError) as caught:
            module.prepare_data()
        assert str(caught.value) == (
            f"{module.name}: no clips in {module.root}. Expected <speaker>/<clip>.safetensors and manifest.json. "
            f"Run: bench prepare --dataset {module.name} --source DIR --out {module.root}"
        )
        with pytest.raises(FileNotFoundError, match="no clips"):
            module.clips("test")
    with pytest.raises(RuntimeError, match=r"Call setup\(\)"):
        ClipFolder(tmp_path).train_dataloader()


def test_source_root(tmp_path: Path) -> None:
    root = tmp_path / "data"
    assert overfit(root).source_root == tmp_path
    assert overfit(root, source=root).source_root == root
    with pytest.raises(FileNotFoundError, match=r"no source videos in .*gone.*--data.init_args.source"):
        _ = overfit(root, source=tmp_path / "gone").source_root


@pytest.mark.parametrize(
    "line", ["../secret/clip", "s0/..", "../clip", "/s0/clip", "s0", "s0//clip", "s0\\..\\x/y", "./c"]
)
def test_lines_that_climb_out_are_rejected(tmp_path: Path, line: str) -> None:
    module = lrs2(tmp_path)
    with (tmp_path / "splits" / "val.txt").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(ValueError, match=r"val\.txt:6: found .*Expected <speaker>/<clip>"):
        module.setup()


def test_list_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "test.txt"
    path.write_bytes(b"\xef\xbb\xbfa/1 NF-000\r\n\r\n  b/2\r\na/1\r\nc/3")
    assert read_split(path) == ["a/1", "b/2", "c/3"]
    assert "a/1 is also on line 1" in caplog.text
    with pytest.raises(FileNotFoundError, match=r"val\.txt: no such file. Expected a split list"):
        read_split(tmp_path / "val.txt")


def test_overlapping_splits_are_named(tmp_path: Path) -> None:
    module = lrs2(tmp_path)
    (tmp_path / "splits" / "test.txt").write_text(f"{LISTS['test'][0]}\n{LISTS['train'][2]}\n")
    with pytest.raises(ValueError, match=f"1 clips are in train and in test: {LISTS['train'][2]}"):
        module.setup()


def test_official_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match=r"lrs2: the splits have .*45839.*check_counts warn"):
        lrs2(tmp_path / "lrs2", check_counts="error").setup()
    with caplog.at_level(logging.WARNING):
        mead(tmp_path / "mead").setup()
    assert "mead: the splits have {'train': 30, 'val': 5, 'test': 2} clips" in caplog.text


def test_missing_clips_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = lrs2(tmp_path, max_missing=0.2)
    gone = LISTS["val"][1]
    (tmp_path / f"{gone}.safetensors").unlink()
    with caplog.at_level(logging.WARNING):
        module.setup()
    assert f"1 of 5 val clips are not in {tmp_path}: {gone}" in caplog.text
    assert module.missing == {"train": [], "val": [gone], "test": []}
    assert len(module.clips("val")) == 4
    with pytest.raises(ValueError, match=rf"1 of 5 val clips are not in .*{gone}.*at most 5\.0%.*max_missing"):
        LRS2(tmp_path, check_counts="warn").setup()


def test_an_interrupted_preparation_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = overfit(tmp_path)
    (tmp_path / "manifest.json").write_text('{"complete": false}')
    module.setup()
    assert f"the preparation of {tmp_path} was interrupted" in caplog.text
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest.json: not JSON .*Run bench prepare again"):
        ClipFolder(tmp_path).setup()


def test_mead_selection() -> None:
    speakers = [f"M{k:03d}" for k in range(3, 43)] + [f"W{k:03d}" for k in range(9, 41)]
    assert all(len(selected_numbers(speaker)) == 35 for speaker in speakers)
    assert sorted(selected_numbers("M003")) == list(range(6, 41))
    assert selected_numbers("M003", highest=78) == selected_numbers("M037") == selected_numbers("W040")
    assert sum(selected_numbers(speaker) != selected_numbers("M003") for speaker in speakers) == 18


def test_g4gs_split_of_lrs2_is_8_to_2_over_all_lists(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    everything = sorted(chain(*LISTS.values()))
    data = lrs2(tmp_path, split="g4g")
    splits = data.split_ids(everything)
    assert sorted(chain(*splits.values())) == everything
    assert len(splits["test"]) == round(0.2 * len(everything))
    assert "scores on the two do not compare" in caplog.text
    assert lrs2(tmp_path, split="g4g", seed=9).split_ids(everything) == splits
    drawn = [lrs2(tmp_path, split="g4g", split_seed=k).split_ids(everything)["test"] for k in range(1, 6)]
    assert any(other != splits["test"] for other in drawn)
    assert any(set(test) & set(LISTS["train"]) for test in [splits["test"], *drawn])
    assert data.split_name("test").startswith("test of g4g, leaking into the official splits")
    assert data.expected_counts() == {"train": 38531 - 1082, "val": 1082, "test": 9633}
    official = lrs2(tmp_path)
    assert (official.split_ids(everything), official.split_name("test")) == (LISTS, "test")


def test_mead_has_the_published_sizes() -> None:
    prepared = [f"M{speaker:03d}/{number:03d}" for speaker in range(100, 146) for number in range(1, 41)]
    splits = MEAD(Path("unused")).split_ids(prepared)
    assert {split: len(ids) for split, ids in splits.items()} == {"train": 1400, "val": 210, "test": 80}
    assert all(int(name[-3:]) <= 5 for name in splits["test"])
    assert all(int(name[-3:]) > 5 for name in splits["train"] + splits["val"])
    assert 40 < len({name[:4] for name in splits["val"]}) <= 46  # drawn from all speakers, not from a few
    assert MEAD(Path("unused"), seed=1).split_ids(prepared) == splits
    assert MEAD(Path("unused"), split_seed=1).split_ids(prepared) != splits
    few = [name for name in prepared if name[:4] in ("M100", "M101")]
    assert MEAD(Path("unused"), speakers=["M100", "M101"]).split_ids(prepared) == MEAD(Path("unused")).split_ids(few)
    with pytest.raises(ValueError, match=r"no clips of W001 .*--data.init_args.speakers"):
        MEAD(Path("unused"), speakers=["W001"]).split_ids(few)


def test_mead_keeps_the_draw_when_a_clip_is_missing() -> None:
    prepared = [f"M003/{number:03d}" for number in range(1, 41)]
    splits = MEAD(Path("unused")).split_ids(prepared)
    assert MEAD(Path("unused")).split_ids([name for name in prepared if name != splits["train"][0]]) == splits


def test_folder_splits_by_speaker(tmp_path: Path) -> None:
    names = [f"s{k}/{n}" for k in range(8) for n in range(k + 1)]
    module = ClipFolder(tmp_path, val_fraction=0.25, test_fraction=0.125, split_by="speaker")
    splits = module.split_ids(names)
    speakers = {split: {name.split("/")[0] for name in ids} for split, ids in splits.items()}
    assert {split: len(found) for split, found in speakers.items()} == {"train": 5, "val": 2, "test": 1}
    assert sorted(chain(*splits.values())) == sorted(names)


def test_folder_splits_by_lists(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", chain(*LISTS.values()), LISTS)
    module = ready(ClipFolder(tmp_path / "data", splits=tmp_path / "data" / "splits", image_size=32))
    assert {split: [f"{p.parent.name}/{p.stem}" for p in module.clips(split)] for split in SPLITS} == LISTS


def test_folder_without_evaluation_clips(tmp_path: Path) -> None:
    module = ready(folder(tmp_path, val_fraction=0.0, test_fraction=0.0))
    assert len(module.clips("train")) == 14
    assert module.val_dataloader() == module.test_dataloader() == []


def test_folder_for_evaluation_alone(tmp_path: Path) -> None:
    for count in (1, 14):
        write_folder(tmp_path / str(count), [f"s{number % 5}/{number}" for number in range(count)])
        module = ready(ClipFolder(tmp_path / str(count), image_size=96, val_fraction=0, test_fraction=1))
        assert {split: len(module.clips(split)) for split in SPLITS} == {"train": 0, "val": 0, "test": count}
        with pytest.raises(ValueError, match="no training clips in"):
            module.train_dataloader()
    with pytest.raises(ValueError, match=r"Expected 0 or more, and less than 1 together, or 0 and 1\."):
        ClipFolder(tmp_path, val_fraction=0.1, test_fraction=1)


def test_folder_arguments(tmp_path: Path) -> None:
    write_folder(tmp_path, ["a/1", "a/2"])
    with pytest.raises(ValueError, match=r"2 clips in .* cannot be split into 1 val, 1 test .*overfit"):
        ClipFolder(tmp_path).setup()
    with pytest.raises(ValueError, match="1 speakers in"):
        ClipFolder(tmp_path, split_by="speaker", test_fraction=0).setup()
    with pytest.raises(ValueError, match="Expected 0 or more, and less than 1"):
        ClipFolder(tmp_path, val_fraction=0.6, test_fraction=0.4)
    with pytest.raises(ValueError, match="Expected one of them"):
        ClipFolder(tmp_path, overfit=True, splits=tmp_path)
    with pytest.raises(ValueError, match="batch_size is 0"):
        ClipFolder(tmp_path, batch_size=0)
    with pytest.raises(ValueError, match="val_length is 0"):
        ClipFolder(tmp_path, val_length=0)


class _Probe(pl.LightningModule):
    """Trains one number and notes what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.train_sums: list[float] = []
        self.val_sizes: list[int] = []

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        assert batch["target"].dtype == torch.float32
        self.train_sums.append(float(batch["target"].sum()))
        return (self.weight - batch["target"].mean()) ** 2

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        self.val_sizes.append(len(batch["target"]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*number of training batches.*")
@pytest.mark.parametrize("evaluation", [True, False])
def test_lightning_trains_on_it(tmp_path: Path, evaluation: bool) -> None:
    fraction = 0.3 if evaluation else 0.0
    module = folder(
        tmp_path, val_fraction=fraction, test_fraction=0.0, batch_size=3, image_size=32, num_workers=0, epoch_length=7
    )
    probe = _Probe()
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(probe, datamodule=module)
    assert len(probe.train_sums) == 4
    assert len(set(probe.train_sums)) == 4  # the sampler was told the epoch
    assert probe.val_sizes == ([3, 1] * 2 if evaluation else [])
