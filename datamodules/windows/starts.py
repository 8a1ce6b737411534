# SPDX-License-Identifier: Apache-2.0
"""Where windows of five frames can start in a clip, and how two of them are drawn."""

from collections.abc import Sequence

import numpy as np

from lipsync_bench.datamodules.media.audio import MEL_WINDOW, mel_start

WINDOW_FRAMES = 5
MIN_FRAMES = 16  # as published: clips of at most three windows' frames are not used

__all__ = ["MIN_FRAMES", "WINDOW_FRAMES", "draw_starts", "window_starts"]


def window_starts(frames: int, mel_columns: int, first: int = 0, last_cut: int = 0) -> range:
    """Frames at which a window can start, so that all its frames and mel columns exist.

    Args:
        frames: frames of the clip.
        mel_columns: mel columns of the clip.
        first: the earliest start.
        last_cut: the frame, counted from the start, at which the window's last sixteen mel columns begin.
    """
    last = frames - WINDOW_FRAMES
    while last >= first and mel_start(last + last_cut) + MEL_WINDOW > mel_columns:
        last -= 1
    return range(first, max(first, last + 1))


def draw_starts(rng: np.random.Generator, starts: Sequence[int], frames: int) -> tuple[int, int]:
    """A random start s from the valid ones, and another start w != s of five frames, which may overlap.

    Raises:
        ValueError: the clip is too short for a window.
    """
    others = frames - WINDOW_FRAMES  # starts of five frames, s aside
    if not starts or others < 1:
        raise ValueError(
            f"no window fits in {frames} frames, {len(starts)} of which can be its first. Expected {MIN_FRAMES} frames "
            "or more, with their mel columns. Filter the clips with separate()."
        )
    start = starts[int(rng.integers(len(starts)))]
    other = int(rng.integers(others))
    return start, other + (other >= start)
