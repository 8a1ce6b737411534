# SPDX-License-Identifier: Apache-2.0
"""The memory of `bench dub` on a 1080p video that is looped to a long audio.

LIPSYNC_BENCH_DUB_MINUTES sets its length; half a minute by default. The aim, 2 GB for 10 minutes, needs 10 and some 20
minutes on two cores. The method is a small untrained Wav2Lip, because the network's memory does not depend on the
length.
"""

import os
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.tools.comparison import Aim, Comparison, Rounds
from benchmarks.tools.watching import Watched, imports_mb, watch
from benchmarks.tools.wide_video import write_wide_video
from lipsync_bench.datamodules.media.audio import SAMPLE_RATE, to_int16
from lipsync_bench.datamodules.media.video import probe
from lipsync_bench.models import Wav2Lip
from lipsync_bench.models.core.checkpoints import save_module

BENCH = Path(sys.executable).with_name("bench")
VARIABLE = "LIPSYNC_BENCH_DUB_MINUTES"
LOOP_S = 6.0
LIMIT_MB = 2000
PARTS = 10

__all__: list[str] = []


def _tenth(watched: Watched, number: int) -> float:
    """The largest resident memory in a tenth of the writing phase, counted from 0."""
    first, last = (len(watched.resident) * k // PARTS for k in (number, number + 1))
    return max(watched.resident[first : max(last, first + 1)])


def _minutes() -> float:
    text = os.environ.get(VARIABLE, "0.5")
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < float("inf"):
        raise ValueError(f"{VARIABLE} is {text!r}. Expected minutes above 0, such as 10. Set it, or unset it for 0.5.")
    return minutes


def _write_speech(path: Path, utterance: np.ndarray, seconds: float) -> None:
    """Write the utterance repeatedly, 16 bit, 16 kHz, mono."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(np.resize(to_int16(utterance), round(seconds * SAMPLE_RATE)).tobytes())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "wav2lip.ckpt"
    torch.manual_seed(0)
    save_module(Wav2Lip(width=0.125, recipe={"crop": "mesh"}), path)
    return path


def test_dub(comparison: Comparison, checkpoint: Path, tmp_path: Path) -> None:
    minutes = _minutes()
    video, speech, out = tmp_path / "video.mp4", tmp_path / "speech.wav", tmp_path / "out" / "dubbed.mp4"
    out.parent.mkdir()
    _write_speech(speech, write_wide_video(video, (1080, 1920), LOOP_S), 60 * minutes)
    files = {"checkpoint": checkpoint, "video": video, "audio": speech, "out": out}
    command = [str(BENCH), "dub", "--device", "cpu", *(f"--{flag}={path}" for flag, path in files.items())]
    run: Watched = comparison.benchmark.pedantic(
        lambda: watch(command, lambda: any(out.parent.iterdir()), tmp_path / "log"), rounds=1
    )
    info = probe(out)
    assert info.frames == round(60 * minutes * info.fps)
    assert (info.width, info.height) == (1920, 1080)

    name = f"`bench dub`, 1080p, {minutes:g} min"
    alone = Rounds((imports_mb("lipsync_bench.inference.dub"),))
    comparison.record(
        f"{name}, peak", "MB", Rounds((run.peak,)), "its imports alone", alone, Aim("value", "<", LIMIT_MB)
    )
    last, second = Rounds((_tenth(run, PARTS - 1),)), Rounds((_tenth(run, 1),))
    comparison.record(
        f"{name}, last tenth of the writing", "MB", last, "its second tenth", second, Aim("ratio", "<", 1.1)
    )
    tenths = [round(_tenth(run, k)) for k in range(PARTS)]
    comparison.benchmark.extra_info["resident_mb_of_tenths"] = tenths
    comparison.note(
        f"{name}: {info.frames} frames in {run.seconds:.0f} s, of which {run.phase_s:.0f} s writing "
        f"({1000 * run.phase_s / info.frames:.0f} ms a frame); largest resident memory in each tenth of the writing: "
        f"{', '.join(map(str, tenths))} MB."
    )
