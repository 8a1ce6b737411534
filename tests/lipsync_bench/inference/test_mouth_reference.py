# SPDX-License-Identifier: Apache-2.0
"""The experiment on the mouth of the reference frame."""

import csv
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from lipsync_bench.datamodules.media.video import VideoWriter, probe, read_frames
from lipsync_bench.datamodules.recipes.options import RecipeOptions
from lipsync_bench.inference.mouth_reference import mouth_opening, mouth_reference
from lipsync_bench.models import Wav2Lip
from lipsync_bench.models.core.checkpoints import save_module
from tests.commands import run_bench


@pytest.fixture
def given(corpus: Path, tmp_path: Path) -> dict[str, Path]:
    """What the command takes: a checkpoint that copies nothing, a video, audio of half a second."""
    torch.manual_seed(0)
    save_module(Wav2Lip(width=0.125, recipe={"crop": "mesh"}), tmp_path / "wav2lip.ckpt")
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(np.random.default_rng(0).integers(-3000, 3000, 8000, dtype=np.int16).tobytes())
    video = sorted((corpus / "videos").rglob("*.mp4"))[0]
    return {"checkpoint": tmp_path / "wav2lip.ckpt", "video": video, "audio": tmp_path / "a.wav"}


def test_opening_is_relative_to_the_mouth_and_does_not_turn_with_it() -> None:
    points = np.zeros((2, 68, 2))
    points[:, 48], points[:, 54] = (0, 0), (40, 0)
    points[:, 62], points[:, 66] = (20, -4), (20, 8)
    points[1] = 2 * points[1] @ np.array([[0.6, 0.8], [-0.8, 0.6]])
    np.testing.assert_allclose(mouth_opening(points), [0.3, 0.3])


def test_both_videos_and_the_openings_are_written(given, tmp_path, caplog):
    caplog.set_level("INFO")
    out = tmp_path / "out"
    words = [f"--{name}={path}" for name, path in given.items()]
    assert run_bench("mouth-reference", *words, "--out", out) == 0
    assert {path.name for path in out.iterdir()} == {"open.mp4", "closed.mp4", "side_by_side.mp4", "openings.csv"}
    with (out / "openings.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 13  # half a second
    source = np.array([float(row["source"]) for row in rows])
    assert f"reference frame {source.argmax()} (open) and {source.argmin()} (closed)" in caplog.text
    assert probe(out / "side_by_side.mp4").frames == 13
    first, second = (next(read_frames(out / f"{name}.mp4")) for name in ("open", "closed"))
    assert not np.array_equal(first, second)


def test_a_given_reference_and_another_rate_are_refused(given, tmp_path):
    with pytest.raises(ValueError, match=r"this command tries two.*--recipe.references"):
        mouth_reference(**given, out=tmp_path / "out", recipe=RecipeOptions(references="first"))
    with VideoWriter(tmp_path / "30.mp4", 30.0, (64, 64)) as writer:
        for _ in range(10):
            writer.write(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(ValueError, match=r"30 fps. Expected 25.*ffmpeg"):
        mouth_reference(**given | {"video": tmp_path / "30.mp4"}, out=tmp_path / "out")
