# SPDX-License-Identifier: Apache-2.0
"""Videos whose frames tell their number."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from lipsync_bench.datamodules.media import video

__all__ = ["LEVELS", "flat", "numbers", "write_numbered"]

# Frame j of a numbered video is a flat grey of this level, which survives compression well enough to be told from its
# neighbours.
LEVELS = 16 + 3 * np.arange(70)


def flat(j: int, size_hw: tuple[int, int] = (32, 48)) -> np.ndarray:
    """Frame j."""
    return np.full((*size_hw, 3), LEVELS[j], np.uint8)


def numbers(frames: Iterable[np.ndarray]) -> list[int]:
    """Which source frame each frame of a numbered video shows."""
    return [int(np.abs(LEVELS - frame.mean()).argmin()) for frame in frames]


def write_numbered(path: Path, frames: int = 50, **options: Any) -> Path:
    """Write so many frames, 32 high and 48 wide, at 25 fps; the numbers begin again after 70. Returns the path."""
    with video.VideoWriter(path, 25.0, (32, 48), preset="ultrafast", **options) as writer:
        for j in range(frames):
            writer.write(flat(j % 70))
    return path
