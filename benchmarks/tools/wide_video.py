# SPDX-License-Identifier: Apache-2.0
"""Videos of any size that really show a face: a synthetic take, enlarged and padded."""

from pathlib import Path

import cv2
import numpy as np

from lipsync_bench.datamodules.datasets.synthetic.corpus import make_take
from lipsync_bench.datamodules.media.video import FPS, VideoWriter

__all__ = ["write_wide_video"]


def write_wide_video(path: Path, size_hw: tuple[int, int], seconds: float) -> np.ndarray:
    """Write one utterance, the square picture as high as the frame and in its middle, grey beside it.

    Args:
        path: The mp4 file.
        size_hw: Of the frame, even, width at least height.
        seconds: Length.

    Returns:
        The sound, float32 (S,), 16 kHz; it is in the file as well.
    """
    height, width = size_hw
    take = make_take(speaker=0, clip=0, seconds=seconds)
    left = (width - height) // 2
    with VideoWriter(path, FPS, size_hw, audio=take.wave, preset="veryfast") as writer:
        for square in take.frames():
            frame = np.full((height, width, 3), 96, np.uint8)
            frame[:, left : left + height] = cv2.resize(square, (height, height), interpolation=cv2.INTER_CUBIC)
            writer.write(frame)
    return take.wave
