# SPDX-License-Identifier: Apache-2.0
"""Videos of any size with a face: an enlarged and padded synthetic clip."""

from pathlib import Path

import cv2
import numpy as np

from lipsync_bench.datamodules.datasets.synthetic.corpus import make_take
from lipsync_bench.datamodules.media.video import FPS, VideoWriter

__all__ = ["write_wide_video"]


def write_wide_video(path: Path, size_hw: tuple[int, int], seconds: float) -> np.ndarray:
    """Write one utterance; the square synthetic frame fills the height and is padded with grey on both sides.

    Args:
        path: The mp4 file.
        size_hw: Size of the frames, even, width at least height.
        seconds: Length.

    Returns:
        The audio, float32 (S,), 16 kHz; the file has it too.
    """
    height, width = size_hw
    take = make_take(speaker=0, clip=0, seconds=seconds)
    left = (width - height) // 2
    with VideoWriter(path, FPS, size_hw, audio=take.samples, preset="veryfast") as writer:
        for square in take.frames():
            frame = np.full((height, width, 3), 96, np.uint8)
            frame[:, left : left + height] = cv2.resize(square, (height, height), interpolation=cv2.INTER_CUBIC)
            writer.write(frame)
    return take.samples
