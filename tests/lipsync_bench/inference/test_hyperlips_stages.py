# SPDX-License-Identifier: Apache-2.0
"""HyperLips from end to end: official files in, base frames between the stages, both stages ranked and dubbed."""

import csv
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch

from lipsync_bench.datamodules import Synthetic
from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.clips.track import Track, track_path
from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.datamodules.media.audio import frame_mels
from lipsync_bench.datamodules.media.video import read_frames
from lipsync_bench.inference.base_frames import FAILURES
from lipsync_bench.models import HyperLipsBase, HyperLipsHR, HyperLipsSyncExpertModule, load_method
from lipsync_bench.models.core.checkpoints import RECORD, load_checkpoint, load_module, save_module
from lipsync_bench.models.core.session import FaceMaker
from lipsync_bench.models.hyperlips.hr.base_frames import BaseFrames, base_frames_path, write_base_frames
from tests import golden
from tests.commands import run_bench


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Official files, as the training scripts save them, with filled weights."""
    folder = tmp_path_factory.mktemp("official")

    def path(name: str) -> Path:
        file = folder / f"{name}.pth"
        if not file.is_file():
            state = golden.filled(golden.names_and_shapes(name))
            torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, file)
        return file

    return path


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained checkpoints of both stages, narrow: base.ckpt and hr.ckpt."""
    folder = tmp_path_factory.mktemp("stages")
    torch.manual_seed(0)
    save_module(HyperLipsBase(width=0.125, recipe={"crop": "mesh"}), folder / "base.ckpt")
    hr = HyperLipsHR(scale=2, width=0.125, recipe={"crop": "mesh"}, base=str(folder / "base.ckpt"))
    hr.setup("predict")
    save_module(hr, folder / "hr.ckpt")
    return folder


@pytest.fixture
def clips(corpus: Path, tmp_path: Path) -> Path:
    """A copy of the prepared corpus that a test may write into."""
    return Path(shutil.copytree(corpus / "clips", tmp_path / "clips"))


def test_both_stages_are_imported_and_told_apart(official, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    base, disc = tmp_path / "base.ckpt", official("hyperlips_base_disc")
    assert run_bench("import", "hyperlips_base", official("hyperlips_base"), "--out", base, "--disc", disc) == 0
    assert "rows 0..C-1 of ih.0.weight" in caplog.text  # dead parameters are listed
    module = load_method(base)
    assert isinstance(module, HyperLipsBase)
    assert module.discriminator is not None
    for scale in (1, 2, 4):
        out = tmp_path / f"hr{scale}.ckpt"
        assert run_bench("import", "hyperlips_hr", official(f"hyperlips_hr{scale}"), "--out", out, "--base", base) == 0
        hr = load_method(out)
        assert isinstance(hr, HyperLipsHR)
        assert (hr.generator.scale, hr.image_size, hr.inference) == (scale, 128 * scale, "released")
        assert hr.base is not None
        assert all(torch.equal(a, b) for a, b in zip(hr.base.parameters(), module.generator.parameters(), strict=True))
        assert load_checkpoint(out)[RECORD]["origin"]["base_sha256"] == sha256(base)


def test_an_hr_file_needs_its_base_and_others_have_none(official, tmp_path, caplog):
    assert run_bench("import", "hyperlips_hr", official("hyperlips_hr1"), "--out", tmp_path / "x.ckpt") == 1
    assert "--base None with kind hyperlips_hr. Expected the checkpoint of its first stage" in caplog.text
    wrong = ("import", "hyperlips_hr_disc", official("hyperlips_hr_disc"), "--out", tmp_path / "x.ckpt")
    assert run_bench(*wrong, "--base", tmp_path) == 1
    assert "Expected none for this kind" in caplog.text
    assert not list(tmp_path.iterdir())


def test_the_expert_of_128_pixels_is_imported(official, tmp_path):
    out = tmp_path / "expert.ckpt"
    assert run_bench("import", "hyperlips_sync_expert", official("hyperlips_sync_expert"), "--out", out) == 0
    network = load_module(out, [HyperLipsSyncExpertModule]).network
    audio, faces = network(torch.rand(1, 1, 80, 16), torch.rand(1, 15, 64, 128))
    assert audio.shape == faces.shape == (1, 512)


def test_base_frames_are_made_once_and_read_by_hr_windows(stages, clips, caplog):
    caplog.set_level(logging.INFO)
    command = ("base-frames", "--checkpoint", stages / "base.ckpt", "--root", clips)
    shutil.rmtree(clips / "s02")
    assert run_bench(*command) == 0
    assert "base frames of 3 clips made, 0 already there, 0 failed" in caplog.text
    files = sorted(clips.glob("*/*.base"))
    assert len(files) == 3
    times = [file.stat().st_mtime_ns for file in files]
    path = sorted(clips.glob("*/*.safetensors"))[0]
    with Clip(path) as clip, BaseFrames(base_frames_path(path)) as frames:
        assert len(frames) == len(clip)
        assert frames.header.checkpoint_sha256 == sha256(stages / "base.ckpt")
        module = load_method(stages / "base.ckpt")
        recipe = module.recipe
        with Track(track_path(path, recipe.track_digest)) as track:
            mels = frame_mels(clip.mel(recipe.mel_padding), len(clip))
            first = FaceMaker(module, recipe)(track.faces(0, 1), mels[:1])[0].transpose(1, 2, 0) * 255
        assert frames.header.crop == "mesh"
        assert np.abs(frames.faces(0, 1)[0].astype(float) - first).mean() < 3  # JPEG of quality 95

    caplog.clear()
    files[0].write_bytes(files[0].read_bytes()[:100])  # broken: made anew
    assert run_bench(*command) == 0
    assert "base frames of 1 clips made, 2 already there, 0 failed" in caplog.text
    assert [file.stat().st_mtime_ns for file in files[1:]] == times[1:]
    assert run_bench(*command, "--mesh_order", "bgr") == 0
    assert "base frames of 3 clips made" in caplog.text  # other sketches


def test_a_broken_clip_is_counted_and_the_others_are_made(stages, clips, caplog):
    caplog.set_level(logging.INFO)
    shutil.rmtree(clips / "s02")
    broken = sorted(clips.glob("*/*.safetensors"))[2]
    broken.write_bytes(broken.read_bytes()[:5000])
    assert run_bench("base-frames", "--checkpoint", stages / "base.ckpt", "--root", clips) == 0
    assert "base frames of 2 clips made, 0 already there, 1 failed" in caplog.text
    with (clips / FAILURES).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["clip"] for row in rows] == [broken.relative_to(clips).as_posix()]
    assert "cut short" in rows[0]["reason"]


def test_base_frames_take_a_runs_folder_and_official_files(official, stages, clips, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    keep = min(clips.glob("*/*.safetensors"))
    for path in {*clips.glob("*/*.safetensors")} - {keep}:
        path.unlink()
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    shutil.copy(stages / "base.ckpt", run / "best.ckpt")
    assert run_bench("base-frames", "--checkpoint", run, "--root", clips) == 0

    def maker() -> str:
        with BaseFrames(base_frames_path(keep)) as frames:
            return str(frames.header.checkpoint_sha256)

    assert maker() == sha256(stages / "base.ckpt")
    file = official("hyperlips_base")
    mesh = ("--recipe.crop", "mesh")  # as the corpus was prepared
    assert run_bench("base-frames", "--checkpoint", file, "--root", clips) == 1
    assert "no faces as the base sees them (s3fd). Expected" in caplog.text
    assert run_bench("base-frames", "--checkpoint", file, "--root", clips, *mesh) == 0
    assert maker() == sha256(file)
    caplog.clear()
    word = ("base-frames", "--checkpoint", "official:hyperlips_base_mead", "--root", clips, *mesh)
    assert run_bench(*word, "--weights", f"hyperlips_base_mead={file}") == 0
    assert "base frames of 0 clips made, 1 already there" in caplog.text  # the same file's
    assert run_bench("base-frames", "--checkpoint", official("hyperlips_sync_expert"), "--root", clips) == 1
    assert "is not a hyperlips_base" in caplog.text
    assert maker() == sha256(file)


def test_hr_data_without_base_frames_names_the_command(clips):
    data = Synthetic(root=clips, window=HyperLipsHR.window, image_size=128)
    with pytest.raises(FileNotFoundError, match=r"\d+ of \d+ clips in .* have no base frames.*bench base-frames"):
        data.setup("fit")


def test_wrong_folders_and_checkpoints(stages, clips, tmp_path, caplog):
    assert run_bench("base-frames", "--checkpoint", stages / "base.ckpt", "--root", tmp_path / "none") == 1
    assert "no clips in" in caplog.text
    assert run_bench("base-frames", "--checkpoint", stages / "hr.ckpt", "--root", clips) == 1
    assert "holds a lipsync_bench.models.HyperLipsHR (written by version" in caplog.text
    assert "Expected one of: lipsync_bench.models.HyperLipsBase" in caplog.text


@pytest.fixture(scope="module")
def parser_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parser") / "face_segmentation.pth"
    torch.save(golden.filled(golden.names_and_shapes("hyperlips_parsing")), path)
    return path


def test_rows_record_pasting_and_fallback_frames(stages, corpus, parser_weights, tmp_path):
    out, short = tmp_path / "results", tmp_path / "short.yaml"
    short.write_text("version: 1\nseconds: {synthetic: 0.4}\n")
    command = (
        "evaluate", "--dataset", "synthetic", "--root", corpus / "clips", "--out", out, "--limit", 1,
        "--protocol", short,
        "--methods.hyperlips_base", stages / "base.ckpt", "--methods.hyperlips_hr", stages / "hr.ckpt",
    )  # fmt: skip
    assert run_bench(*command) == 0
    rows = pd.read_csv(out / "clips.csv", keep_default_na=False).set_index("method")
    assert list(rows.loc[["hyperlips_base", "hyperlips_hr"], "paste"]) == ["contour", "contour"]
    assert rows.loc["repeated_frame", "paste"] == "box"
    assert rows.loc["ground_truth", "paste"] == ""
    # An untrained base shows no face to Face Mesh: every frame is the enlarged base frame, and the row says so.
    assert int(rows.loc["hyperlips_hr", "fallback_frames"]) == int(rows.loc["hyperlips_hr", "frames"])
    assert int(rows.loc["hyperlips_base", "fallback_frames"]) == 0
    assert run_bench(*command, "--weights", f"face_segmentation={parser_weights}") == 0
    rows = pd.read_csv(out / "clips.csv", keep_default_na=False)
    assert len(rows) == 6  # those with the parser are other rows; the two without a mask are not repeated
    assert set(rows[rows["method"] == "hyperlips_hr"]["paste"]) == {
        "contour",
        f"parsing {sha256(parser_weights)[:12]}",
    }
    board = pd.read_csv(out / "leaderboard.csv", keep_default_na=False)
    assert len(board) == 6


def test_dub_with_the_parser_says_so_in_the_file(stages, corpus, parser_weights, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    video = sorted((corpus / "videos").rglob("*.mp4"))[0]
    out = tmp_path / "dubbed.mp4"
    command = ("dub", "--checkpoint", stages / "hr.ckpt", "--video", video, "--audio", video, "--out", out)
    assert run_bench(*command, "--weights", f"face_segmentation={parser_weights}") == 0
    frames = list(read_frames(out, 25.0))
    assert f"{len(frames)} of them fallback frames of the method" in caplog.text
    import av

    with av.open(str(out)) as container:
        assert "parsing " in container.metadata["lipsync_bench"]


def test_hr_is_not_trained_on_the_frames_of_another_base(stages, clips, tmp_path):
    assert run_bench("base-frames", "--checkpoint", stages / "base.ckpt", "--root", clips) == 0
    for path in clips.glob("*/*.base"):  # an untrained base shows no face: say it did, so that there are windows
        _pretend_found(path)
    torch.manual_seed(9)
    save_module(HyperLipsBase(width=0.125, recipe={"crop": "mesh"}), tmp_path / "other.ckpt")
    data = Synthetic(root=clips, window="hr", batch_size=1, num_workers=0)
    plain = {
        "width": 0.125,
        "recipe": {"crop": "mesh"},
        "adversarial_weight": 0.0,
        "vgg_weight": 0.0,
        "lip_lpips_weight": 0.0,
    }
    trainer = {"accelerator": "cpu", "max_steps": 1, "logger": False, "enable_checkpointing": False}
    with pytest.raises(ValueError, match=r"base frames were made by .*, the base is .*bench base-frames"):
        pl.Trainer(**trainer).fit(HyperLipsHR(base=str(tmp_path / "other.ckpt"), **plain), datamodule=data)
    pl.Trainer(**trainer).fit(HyperLipsHR(base=str(stages / "base.ckpt"), **plain), datamodule=data)


def _pretend_found(path: Path) -> None:
    with BaseFrames(path) as old:
        content = {"frames": list(old.faces()), "sketches": old.sketches(), "lip_outlines": old.lip_outlines()}
        header = old.header
    write_base_frames(path, header, found=np.ones(header.frames, bool), **content)
