# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import pytest

from lipsync_bench.cli.lightning import main
from lipsync_bench.datamodules import ClipFolder
from lipsync_bench.datamodules.datasets.synthetic import make_corpus
from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.media.audio import load_audio
from lipsync_bench.datamodules.media.video import VideoWriter, read_frames
from lipsync_bench.datamodules.prepare.options import PrepareOptions
from lipsync_bench.datamodules.prepare.prepare import prepare
from lipsync_bench.datamodules.recipes.options import RecipeOptions
from lipsync_bench.inference import base_frames
from lipsync_bench.inference.cutting import cut_by_time
from lipsync_bench.models import HyperLipsBase, HyperLipsHR, HyperLipsSyncExpertModule
from lipsync_bench.models.core.checkpoints import load_checkpoint, save_module
from lipsync_bench.recipes import recipe_named
from tests.commands import run_bench


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("talk")
    make_corpus(
        folder,
        speakers=1,
        clips_per_speaker=1,
        seconds=7.0,
        seed=3,
        val_clips=0,
        test_clips=0,
        workers=1,
        progress=False,
    )
    return next(folder.rglob("*.mp4"))


def test_the_parts_follow_each_other_with_their_audio_and_become_splits(talk, tmp_path):
    parts = cut_by_time(talk, tmp_path / "parts", val_seconds=2.0, test_seconds=2.4)
    whole = list(read_frames(talk, 25.0))
    assert [(part.split, part.first, part.frames) for part in parts] == [
        ("train", 0, len(whole) - 110),
        ("val", len(whole) - 110, 50),
        ("test", len(whole) - 60, 60),
    ]
    samples = load_audio(talk)
    for part in parts:
        frames = list(read_frames(part.path, 25.0))
        assert len(frames) == part.frames
        for index in (0, -1):  # the first and last pictures are those of the whole video, but for the encoding
            source = whole[part.first : part.first + part.frames][index]
            assert np.abs(frames[index].astype(int) - source).mean() < 2
        audio, expected = load_audio(part.path), samples[part.first * 640 : (part.first + part.frames) * 640]
        count = min(len(audio), len(expected))
        assert count >= 0.98 * len(expected)
        assert np.corrcoef(audio[:count], expected[:count])[0, 1] > 0.95  # AAC, but in place

    report = prepare(tmp_path / "parts", tmp_path / "clips", PrepareOptions("lrs2", workers=1), progress=False)
    assert (report.done, report.failed) == (3, 0)
    data = ClipFolder(root=tmp_path / "clips", splits=tmp_path / "clips" / "splits")
    assert [[path.stem for path in data.clips(split)] for split in ("train", "val", "test")] == [
        ["train"], ["val"], ["test"],
    ]  # fmt: skip


@pytest.mark.parametrize("none", [("val",), ("val", "test"), ("test",)])
def test_a_part_of_no_length_has_no_file_and_an_empty_list(talk, tmp_path, none):
    command = ["cut", "--video", talk, "--out", tmp_path / "parts", "--val_seconds", 2, "--test_seconds", 2.4]
    assert run_bench(*command) == 0
    lengths = {"val": 2, "test": 2.4, **dict.fromkeys(none, 0)}
    assert run_bench(*command[:5], *(x for split, s in lengths.items() for x in (f"--{split}_seconds", s))) == 0
    kept = [split for split in ("train", "val", "test") if split not in none]
    folder = tmp_path / "parts" / "main" / talk.stem
    assert {path.stem for path in folder.iterdir()} == set(kept)  # the earlier cut's others are gone
    count = len(list(read_frames(talk, 25.0)))
    assert len(list(read_frames(folder / "train.mp4", 25.0))) == count - round(25 * sum(lengths.values()))
    texts = {split: (tmp_path / "parts" / f"{split}.txt").read_text() for split in ("train", "val", "test")}
    assert texts == {split: f"{talk.stem}/{split}\n" if split in kept else "" for split in texts}


@pytest.mark.parametrize("seconds", ["-1", "nan", "1.9"])
def test_lengths_between_none_and_two_seconds_are_refused(talk, tmp_path, seconds):
    assert run_bench("cut", "--video", talk, "--out", tmp_path / "parts", "--val_seconds", seconds) in (1, 2)
    assert not (tmp_path / "parts").exists()


@pytest.mark.slow
def test_both_stages_are_fine_tuned_on_a_whole_video_without_validation(talk, tmp_path, monkeypatch):
    """The published YAMLs, at small width: they end well, and leave last.ckpt alone."""
    monkeypatch.chdir(tmp_path)
    mesh = np.random.default_rng(0).random((478, 3), np.float32)  # Face Mesh sees no face in an untrained base's frames
    monkeypatch.setattr(
        base_frames, "find_meshes", lambda faces: (np.stack([mesh] * len(faces)), np.full(len(faces), True))
    )
    assert run_bench("cut", "--video", talk, "--out", "parts", "--val_seconds", 0, "--test_seconds", 5) == 0
    mesh_only = RecipeOptions(crop="mesh")
    recipes = [recipe_named("hyperlips_base", mesh_only)]
    prepare(Path("parts"), Path("data/kate"), PrepareOptions("lrs2", workers=1), recipes=recipes, progress=False)
    hr = HyperLipsHR(width=0.125, recipe={"crop": "mesh"}, base="runs/hyperlips_base/last.ckpt")
    expert, base = HyperLipsSyncExpertModule(width=0.125), HyperLipsBase(width=0.125, recipe={"crop": "mesh"})
    for run, module in (("hyperlips_sync_expert", expert), ("hyperlips_base", base), ("hyperlips_hr", hr)):
        Path("runs", run).mkdir(parents=True)
        if module is hr:
            hr.setup("predict")
        save_module(module, Path("runs", run, "last.ckpt"))
    quick = {
        "data.init_args": {"batch_size": 1, "epoch_length": 2, "num_workers": 0},
        "trainer": {"accelerator": "cpu", "max_steps": 3, "enable_progress_bar": False, "val_check_interval": 2},
    }
    off = {"width": 0.125, "adversarial_weight": 0, "recipe.crop": "mesh"}
    models = {
        "hyperlips_base_finetune": {**off, "lpips_weight": 0, "sync_weight": 0},
        "hyperlips_hr_finetune": {**off, "vgg_weight": 0, "lip_lpips_weight": 0},
    }
    for run, arguments in models.items():
        flags = [f"--{g}.{k}={v}" for g, a in ({**quick, "model.init_args": arguments}).items() for k, v in a.items()]
        for _ in range(2):  # the second finds it finished
            main(["fit", "-c", run, *flags])
            assert {path.name for path in Path("runs", run).glob("*.ckpt")} == {"last.ckpt"}
            assert load_checkpoint(Path("runs", run, "last.ckpt"))["global_step"] == 3
        if run == "hyperlips_base_finetune":
            assert run_bench("base-frames", "--checkpoint", f"runs/{run}", "--root", "data/kate") == 0


def test_too_short_a_video_is_told_and_nothing_is_written(talk, tmp_path):
    with pytest.raises(
        ValueError, match=r"has 7\.0 s; train, val and test would get 1\.0, 3\.0, 3\.0 s.*--test_seconds"
    ):
        cut_by_time(talk, tmp_path / "parts", val_seconds=3.0, test_seconds=3.0)
    assert not (tmp_path / "parts").exists()


def test_missing_and_silent_videos_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="--video"):
        cut_by_time(tmp_path / "none.mp4", tmp_path / "parts")
    with VideoWriter(tmp_path / "silent.mp4", 25.0, (64, 64)) as writer:
        writer.write(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(MediaError, match="no audio track"):
        cut_by_time(tmp_path / "silent.mp4", tmp_path / "parts")
