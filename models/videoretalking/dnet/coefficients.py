# SPDX-License-Identifier: Apache-2.0
"""What D-Net reads of the 3DMM coefficients of a face, and which frame's it reads."""

import numpy as np

EXPRESSION = slice(80, 144)
ANGLES = slice(224, 227)
TRANSLATION = slice(254, 257)
CROP = slice(259, 262)  # scale, x, y; the face's width and height are left out
BEFORE = 13  # frames of a window before its own
AFTER_TRAINING, AFTER = 13, 12  # and after it: PIRenderer's training; VideoReTalking's released inference
_SCALE = 70  # the row of a window that has the crop's scale

__all__ = ["AFTER", "AFTER_TRAINING", "BEFORE", "coefficient_window", "scale_ratio"]


def coefficient_window(
    rows: np.ndarray,
    frame: int,
    after: int = AFTER,
    ratio: float = 1.0,
    expression: np.ndarray | None = None,
) -> np.ndarray:
    """The window around a frame as D-Net takes it, float32 (73, 14 + after); the first and last row are repeated.

    Args:
        rows: (T, 262), see datamodules/clips/coefficients.py.
        frame: Its own frame.
        after: Frames after it.
        ratio: What the crop's scale is multiplied by.
        expression: (64,), which takes the place of that of all frames; None keeps theirs.
    """
    places = np.arange(frame - BEFORE, frame + after + 1).clip(0, len(rows) - 1)
    window = np.concatenate([rows[places, part] for part in (EXPRESSION, ANGLES, TRANSLATION, CROP)], axis=1).T
    window = np.ascontiguousarray(window, np.float32)
    window[_SCALE] *= ratio
    if expression is not None:
        window[: EXPRESSION.stop - EXPRESSION.start] = expression[:, None]
    return window


def scale_ratio(source: np.ndarray, rows: np.ndarray) -> float:
    """The crop's scale of a source frame by that of the driving frame that resembles it most.

    Args:
        source: (262,).
        rows: Of the driving frames, (T, 262).
    """
    expression, angles = (np.abs(rows[:, part] - source[part]).mean(axis=1) for part in (EXPRESSION, ANGLES))
    nearest = int(np.argmin(0.3 * expression + 0.7 * angles))
    return float(source[CROP.start] / rows[nearest, CROP.start])
