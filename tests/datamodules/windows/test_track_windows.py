# SPDX-License-Identifier: Apache-2.0
"""Windows of the faces of a recipe: read from its tracks, which have to be there and to belong to the clips."""

import pickle
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.clips.track import Track, TrackHeader, track_path, write_track
from lipsync_bench.datamodules.datasets.folder import ClipFolder
from lipsync_bench.datamodules.errors import ClipError
from lipsync_bench.datamodules.faces.crop_rules.boxes import DetectorBox, FaceMeshBox
from lipsync_bench.datamodules.recipes.recipe import Recipe
from lipsync_bench.datamodules.recipes.values import Codec
from lipsync_bench.datamodules.windows.expert import ExpertWindows
from lipsync_bench.datamodules.windows.faces import method_words
from lipsync_bench.datamodules.windows.generator import GeneratorWindows
from lipsync_bench.datamodules.windows.samplers import EpochSampler
from lipsync_bench.models import Wav2Lip
from lipsync_bench.models.wav2lip.sync_expert import SyncExpertModule
from tests.datamodules.fake_trainer import FakeTrainer
from tests.datamodules.prepared_folders import write_folder, write_random

STEP = 10
RECIPE = Recipe(FaceMeshBox(), (32, 48))


def write_faces(clip_path: Path, codec: Codec = "raw", recipe: Recipe = RECIPE) -> Path:
    """A track whose face t has the grey level STEP * t, in columns 8 and following only."""
    with Clip(clip_path) as clip:
        header = TrackHeader.of(clip.header, recipe, codec)
    path = track_path(clip_path, recipe.track_digest)
    images = np.zeros((header.frames, *recipe.size_hw, 3), np.uint8)
    images[:, :, 8:] = STEP * np.arange(header.frames, dtype=np.uint8)[:, None, None, None]
    write_track(path, header, images)
    return path


def levels(images: torch.Tensor) -> list[int]:
    return [round(float(level) / STEP) for level in images[..., 16:].float().mean(dim=(1, 2, 3))]


@pytest.mark.parametrize("codec", get_args(Codec))
@pytest.mark.parametrize("read", ["mmap", "file"])
def test_windows_have_the_faces_of_the_track(tmp_path: Path, codec: Codec, read: Any) -> None:
    clip = write_random(tmp_path, "a/0")
    write_faces(clip, codec)
    tracks = GeneratorWindows([clip], recipe=RECIPE, length=20, read=read)
    crops = GeneratorWindows([clip], (16, 16), length=20)
    for index in range(20):
        window = tracks[index]
        assert window["target"].shape == window["reference"].shape == (5, 3, 32, 48)
        first, other = levels(window["target"])[0], levels(window["reference"])[0]
        assert levels(window["target"]) == list(range(first, first + 5))
        assert levels(window["reference"]) == list(range(other, other + 5))
        assert window["target"][..., :4].max() <= 8  # columns are columns
        for name in ("mel", "frame_mels"):  # the same windows as without tracks
            assert torch.equal(window[name], crops[index][name])  # type: ignore[literal-required]
        with Clip(clip) as file:
            np.testing.assert_array_equal(
                crops[index]["target"].permute(0, 2, 3, 1).numpy(), file.frames(first, 5, size_hw=(16, 16))
            )
    assert {key: value.shape for key, value in GeneratorWindows.example_batch(2, (32, 48), 0).items()} == {
        key: (2, *value.shape) for key, value in window.items()
    }


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_workers_are_those_of_one_process(tmp_path: Path, workers: int) -> None:
    clips = [write_random(tmp_path, f"a/{k}") for k in range(3)]
    for clip in clips:
        write_faces(clip, "jpeg")
    dataset = GeneratorWindows(clips, recipe=RECIPE, length=12)
    dataset[0]  # files are open already when the workers start
    for context in ("fork", "spawn") if workers else (None,):
        loader: DataLoader[Any] = DataLoader(
            dataset,
            4,
            sampler=EpochSampler(12),
            num_workers=workers,
            multiprocessing_context=context,
            collate_fn=dataset.collate,
        )
        for number, batch in enumerate(loader):
            assert batch["target"].is_shared() == (workers > 0)
            for place in range(4):
                for name, value in dataset[0, 4 * number + place].items():
                    assert torch.equal(batch[name][place], value)  # type: ignore[arg-type]


def test_memory_of_batches_is_used_again_only_when_nobody_holds_it(tmp_path: Path) -> None:
    clip = write_random(tmp_path, "a/0")
    write_faces(clip)
    dataset = GeneratorWindows([clip], recipe=RECIPE, length=400)
    keys = [(epoch, index) for epoch in range(5) for index in range(40)]
    expected = [dataset[key]["target"].clone() for key in keys]
    places = set()
    for key, own in zip(keys, expected, strict=True):
        window = dataset[key]
        assert torch.equal(window["target"], own)
        places.add(window["target"].data_ptr())
    assert len(places) <= 2
    held = [dataset[key]["target"][0, :1] for key in keys[:20]]  # a part holds all
    first = dataset[keys[20]]["target"].numpy()
    for key in keys[21:40]:
        dataset[key]
    assert np.array_equal(first, expected[20].numpy())
    for part, own in zip(held, expected, strict=False):
        assert torch.equal(part, own[0, :1])
    batches = [dataset.__getitems__(keys[at : at + count]).batch for at, count in ((0, 3), (3, 3), (6, 1), (7, 3))]
    found = torch.cat([batch["target"] for batch in batches])
    assert torch.equal(found, torch.stack(expected[:10]))
    assert len(pickle.dumps(dataset)) < 10_000  # without it


def test_mels_are_padded_as_the_recipe_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_random(tmp_path, "a/0")
    asked = []
    monkeypatch.setattr(
        Clip, "mel_window", lambda self, start, padding, columns=16: asked.append(padding) or np.zeros((80, columns))
    )
    for kind in (GeneratorWindows, ExpertWindows):
        for padding in ("reflect", "constant"):
            recipe = Recipe(FaceMeshBox(), (16, 16), mel_padding=padding)  # type: ignore[arg-type]
            for size in (None, (16, 16)):
                write_faces(clip, recipe=recipe)
                asked.clear()
                kind([clip], size, recipe=recipe)[0]
                assert set(asked) == {padding}


def test_a_wrong_track_is_an_error_on_access(tmp_path: Path) -> None:
    clip = write_random(tmp_path, "a/0")
    with pytest.raises(FileNotFoundError, match=RECIPE.track_digest):
        GeneratorWindows([clip], recipe=RECIPE)[0]
    path = write_faces(clip, "jpeg")
    write_random(tmp_path, "a/0", frames=19)
    with pytest.raises(ClipError, match=rf"{path.name}: of another preparation of a/0.*bench prepare --for"):
        GeneratorWindows([clip], recipe=RECIPE)[0]
    path = write_faces(clip, "jpeg")
    with Track(path) as track:
        stored = track.stored()
    path.write_bytes(path.read_bytes().replace(b"".join(stored), bytes(sum(map(len, stored)))))
    with pytest.raises(ClipError, match=rf"{path.name}: frames \d+ to \d+ cannot be decoded"):
        GeneratorWindows([clip], recipe=RECIPE)[0]


class Model:
    recipe = RECIPE


class Theirs:
    recipe = "flour, water"


def data(root: Path, module: object, **arguments: Any) -> ClipFolder:
    out = ClipFolder(root, overfit=True, **{"batch_size": 2, "num_workers": 0, **arguments})
    out.trainer = FakeTrainer(0, 1)  # type: ignore[assignment]
    out.trainer.lightning_module = module  # type: ignore[assignment,union-attr]
    return out


def test_the_data_module_reads_the_faces_of_the_model(tmp_path: Path) -> None:
    root = write_folder(tmp_path, [f"a/{k}" for k in range(4)])
    clips = sorted(root.glob("*/*.safetensors"))
    other = RECIPE.resized((16, 16))
    write_faces(clips[0], recipe=other)
    with pytest.raises(FileNotFoundError, match=r"4 of 4 clips in .* have no faces mesh 48x32.* Run: bench") as caught:
        data(root, Model()).setup()
    assert f"bench prepare --source DIR --out {root} --for Model; overlays of the training" in str(caught.value)
    assert "The first has mesh 16x16. Expected" in str(caught.value)
    for clip in clips:
        write_faces(clip)
    module = data(root, Model())
    module.setup()
    assert next(iter(module.train_dataloader()))["target"].shape == (2, 5, 3, 32, 48)
    assert next(iter(module.val_dataloader()))["target"].shape == (2, 5, 3, 32, 48)
    assert all(path in clips for path in module.files_of_batch(0, 1))
    write_random(root, "a/2", frames=21)
    with pytest.raises(FileNotFoundError, match=r"1 of 4 .*: a/2.*has mesh 48x32 of another preparation"):
        data(root, Model()).setup()


def test_own_crops_are_for_recipes_of_the_same_rule(tmp_path: Path) -> None:
    root = write_folder(tmp_path, ["a/0", "a/1"])
    for model in (Model(), Theirs(), None):
        module = data(root, model, image_size=24)
        module.setup()
        assert next(iter(module.train_dataloader()))["target"].shape == (2, 5, 3, 24, 24)
    for model in (Theirs(), None):
        with pytest.raises(ValueError, match=r"no model that has a recipe, and no image_size.*init_args\.image_size"):
            data(root, model).setup()

    class Published(Model):
        method = "published"
        recipe = Recipe(DetectorBox("s3fd", (0, 10, 0, 0), 5), (96, 96), DetectorBox("s3fd"))

    with pytest.raises(FileNotFoundError, match=r"2 of 2 .* no faces s3fd, as .* sees them.*first has mesh"):
        data(root, Published(), image_size=96).setup()


def test_models_are_called_as_bench_prepare_knows_them() -> None:
    changed = Wav2Lip(width=0.0625, recipe={"crop": "mesh", "pads": [0, 4, 0, 0]})
    assert method_words(Wav2Lip(width=0.0625)) == "wav2lip"
    assert method_words(changed) == "wav2lip --recipe.crop mesh --recipe.pads 0 4 0 0"
    assert method_words(SyncExpertModule(width=0.0625)) == "sync_expert"
    assert method_words(type("X", (), {})()) == "X"
