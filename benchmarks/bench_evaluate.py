# SPDX-License-Identifier: Apache-2.0
"""`bench evaluate` on one clip of 5 s with two candidates, against the sum of its parts, each run alone.

SyncNet has its full width and random weights: its time is that of the official weights, its scores mean nothing. Both
candidates are given the clip's sound, so the sound has to be embedded once and the lips twice.
"""

import itertools
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from benchmarks.comparison import Aim, Comparison, Rounds
from datamodules.clip import Clip
from datamodules.detectors import landmarks68
from datamodules.video import read_frames
from lipsync_bench.evaluation.evaluate import evaluate_dataset
from lipsync_bench.evaluation.rows import read_rows
from lipsync_bench.evaluation.scoring import face_rectangles
from metrics.lse import BATCH_WINDOWS, INPUT_PX, SAMPLES_PER_FRAME, WINDOW_FRAMES
from models.syncnet import SyncNetV2

CANDIDATES = 2  # ground_truth and repeated_frame

__all__: list[str] = []


@pytest.fixture(scope="module")
def syncnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like the official one, a flat mapping of names to tensors, with random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random_syncnet_v2.model"
    torch.save(SyncNetV2().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def parts(small_videos: Path, small_clips: Path) -> dict[str, Callable[[], object]]:
    """What evaluation cannot do without, by name."""
    (name,) = (small_clips / "splits" / "test.txt").read_text().split()
    video = small_videos / "main" / f"{name}.mp4"
    with Clip(small_clips / f"{name}.safetensors") as clip:
        rectangles = face_rectangles(clip.mesh(), clip.boxes())
        sound_frames = len(clip.wav()) // SAMPLES_PER_FRAME
    frames = list(read_frames(video))
    windows = min(len(frames), sound_frames) - WINDOW_FRAMES
    network = SyncNetV2().eval()
    pixels = np.stack([cv2.resize(frame, (INPUT_PX, INPUT_PX)) for frame in frames])
    lips = torch.from_numpy(pixels).float().unfold(0, WINDOW_FRAMES, 1).permute(0, 3, 4, 1, 2)[:windows]
    sound = torch.rand(windows, 1, 13, 20)

    def find_landmarks() -> None:
        for _ in range(CANDIDATES):
            for frame, rectangle in zip(frames, rectangles, strict=True):
                landmarks68(frame, rectangle)

    @torch.no_grad()
    def embed() -> None:
        for _ in range(CANDIDATES):
            for batch in lips.split(BATCH_WINDOWS):
                network.forward_lips(batch)
        for batch in sound.split(BATCH_WINDOWS):
            network.forward_audio(batch)

    return {
        "decoding": lambda: sum(1 for _ in read_frames(video)),
        "landmarks": find_landmarks,
        "SyncNet": embed,
    }


def _evaluation(small_clips: Path, folder: Path, syncnet: Path | None) -> Callable[[], None]:
    folders = (folder / str(k) for k in itertools.count())

    def evaluate() -> None:
        out = next(folders)
        evaluate_dataset("synthetic", out, root=small_clips, syncnet=syncnet, limit=1, device="cpu", progress=False)
        rows = read_rows(out)
        assert rows["status"].tolist() == ["ok"] * CANDIDATES
        assert rows["lse_d_wav2lip_lrs"].notna().all() == (syncnet is not None)

    return evaluate


def _sum(parts: dict[str, Rounds]) -> Rounds:
    first, *others = parts.values()
    for part in others:
        first = first + part
    return first


def _record(comparison: Comparison, name: str, own: Rounds, parts: dict[str, Rounds], aim: Aim | None) -> None:
    row = comparison.record(name, "s", own, " + ".join(parts), _sum(parts), aim)
    listed = ", ".join(f"{part} {seconds.median:.2f} s" for part, seconds in parts.items())
    comparison.note(
        f"{name}: 1 clip of 5 s, ground truth and repeated frame; {listed}, all the rest "
        f"{row.value - row.reference_value:.2f} s."
    )


def test_evaluate_without_lse(
    comparison: Comparison, small_clips: Path, tmp_path: Path, parts: dict[str, Callable[[], object]]
) -> None:
    """Where SyncNet does not hide the rest."""
    needed = {name: parts[name] for name in ("decoding", "landmarks")}
    own, others = comparison.alternate(_evaluation(small_clips, tmp_path, None), needed, rounds=5)
    _record(comparison, "`bench evaluate` without LSE", own, others, None)


def test_evaluate(
    comparison: Comparison, small_clips: Path, tmp_path: Path, parts: dict[str, Callable[[], object]], syncnet: Path
) -> None:
    _evaluation(small_clips, tmp_path / "warm_up", None)()  # all but SyncNet, of which a warm-up would take long
    evaluate = _evaluation(small_clips, tmp_path / "timed", syncnet)
    own, others = comparison.alternate(evaluate, parts, rounds=3, warm_up=False)
    _record(comparison, "`bench evaluate` with LSE", own, others, Aim("ratio", "<", 1.2))
