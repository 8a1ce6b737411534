# SPDX-License-Identifier: Apache-2.0
"""Side-by-side videos: ground truth, reference and methods, each under its name, with the clip's audio."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np

from lipsync_bench.datamodules.media.audio import to_float
from lipsync_bench.datamodules.media.video import FPS, VideoWriter

LABEL_PX = 24
PICTURE_PX = 256
_FONT = cv2.FONT_HERSHEY_SIMPLEX

__all__ = ["PICTURE_PX", "side_by_side", "write_preview"]


def _label(text: str, width: int) -> np.ndarray:
    bar = np.full((LABEL_PX, width, 3), 24, np.uint8)
    (text_width, text_height), _ = cv2.getTextSize(text, _FONT, 0.45, 1)
    origin = (max(4, (width - text_width) // 2), (LABEL_PX + text_height) // 2)
    return cv2.putText(bar, text, origin, _FONT, 0.45, (235, 235, 235), 1, cv2.LINE_AA)


def side_by_side(images: Mapping[str, np.ndarray]) -> np.ndarray:
    """Images by title in a row, each as a square of `PICTURE_PX` below its title: uint8 RGB (H,W,3)."""
    labels = [_label(title, PICTURE_PX) for title in images]
    squares = [cv2.resize(x, (PICTURE_PX, PICTURE_PX), interpolation=cv2.INTER_AREA) for x in images.values()]
    return np.vstack([np.hstack(labels), np.hstack(squares)])


def write_preview(path: Path, columns: Mapping[str, Iterable[np.ndarray]], samples: np.ndarray) -> int:
    """Write the columns side by side; the video ends with the shortest.

    Args:
        path: The MP4 to write.
        columns: Frames by title: uint8 RGB images of any size, one stream a column, at 25 fps.
        samples: int16 (S,), 16 kHz.

    Returns:
        Number of frames written.
    """
    size_hw = (PICTURE_PX + LABEL_PX, PICTURE_PX * len(columns))
    count = 0
    with VideoWriter(path, FPS, size_hw, audio=to_float(samples)) as writer:
        for images in zip(*columns.values(), strict=False):
            writer.write(side_by_side(dict(zip(columns, images, strict=True))))
            count += 1
    return count
