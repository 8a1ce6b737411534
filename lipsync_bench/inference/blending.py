# SPDX-License-Identifier: Apache-2.0
"""Paste a generated face into its frame without a visible box.

Methods generate a whole box, of which only the lower face is used. The mask is the lower part of the Face Mesh contour:
along the jaw from ear to ear, and back below the eyes. Below the eyes it is stretched down to the box's lower edge,
because the generated jaw may be lower than the one in the frame, whose chin would otherwise show.
"""

import math
from typing import Literal, get_args

import cv2
import numpy as np

from lipsync_bench.datamodules.faces.geometry import JAW_POINTS

Blend = Literal["feather", "laplacian"]
BLENDS: tuple[Blend, ...] = get_args(Blend)
FEATHER = 0.1
_MAX_STRETCH = 1.35  # of the part below the eyes; a larger box has a margin on purpose
_COARSEST_PX = 12

__all__ = ["BLENDS", "FEATHER", "Blend", "blend", "face_mask"]


def _rise(distance_px: np.ndarray, feather_px: float) -> np.ndarray:
    """0 at distance 1 (the outermost pixels) to 1 at `feather_px` from there, without a kink at either end."""
    t = np.clip((distance_px - 1) / feather_px, 0, 1)
    return t * t * (3 - 2 * t)


def _feather_px(size_hw: tuple[int, int], feather: float) -> float:
    return max(1.0, feather * min(size_hw))


def face_mask(contour: np.ndarray, box: np.ndarray, feather: float = FEATHER) -> np.ndarray:
    """The weight of the generated face at each pixel of the box.

    Args:
        contour: (30, 2) the mesh points `geometry.CONTOUR` in pixels of the frame.
        box: x1, y1, x2, y2 in pixels.
        feather: Width of the soft edge, as a share of the box's shorter side. It lies inside the contour.

    Returns:
        float32 (y2 - y1, x2 - x1) in [0, 1]: 1 at the mouth, 0 at the box's border and outside the contour.
    """
    x1, y1, x2, y2 = (int(v) for v in np.rint(box))
    height, width = y2 - y1, x2 - x1
    points = contour.astype(np.float64) - (x1, y1)
    top = points[JAW_POINTS:, 1].mean()
    below = np.maximum(points[:, 1] - top, 0)
    stretch = np.clip((height - top) / max(below.max(), 1.0), 1, _MAX_STRETCH)
    points[:, 1] += below * (stretch - 1)
    inside = np.zeros((height, width), np.uint8)
    # The hull, because the contour of a face in profile crosses itself.
    cv2.fillConvexPoly(inside, cv2.convexHull(np.rint(points).astype(np.int32)), (1,))
    inside[[0, -1]] = 0
    inside[:, [0, -1]] = 0
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_5)
    return _rise(distance, _feather_px((height, width), feather)).astype(np.float32)


def _to_border(size_hw: tuple[int, int]) -> np.ndarray:
    """float32 (h, w, 1): 0 at the box's border, 1 from the soft edge's width on."""
    rows, columns = (np.minimum(np.arange(n), np.arange(n)[::-1]) + 1.0 for n in size_hw)
    distance = np.minimum(rows[:, None], columns[None])
    return _rise(distance, _feather_px(size_hw, FEATHER)).astype(np.float32)[..., None]


def _laplacian(change: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The masked change, each octave with a mask of matching softness (Burt and Adelson 1983).

    Blending two Laplacian pyramids equals adding the masked pyramid of their difference to one of the images.
    """
    changes, masks = [change], [mask]
    for _ in range(max(0, int(math.log2(max(1.0, min(mask.shape) / _COARSEST_PX))))):
        changes.append(cv2.pyrDown(changes[-1]))
        masks.append(cv2.pyrDown(masks[-1]))
    out = changes[-1] * masks[-1][..., None]
    for level in range(len(changes) - 2, -1, -1):
        size = (changes[level].shape[1], changes[level].shape[0])
        band = changes[level] - cv2.pyrUp(changes[level + 1], dstsize=size)
        out = cv2.pyrUp(out, dstsize=size) + band * masks[level][..., None]
    return out


def blend(
    frame: np.ndarray,
    generated: np.ndarray,
    box: np.ndarray,
    contour: np.ndarray,
    how: Blend = "feather",
) -> np.ndarray:
    """A copy of the frame with the generated face pasted into it. Nothing outside the box changes.

    Args:
        frame: uint8 (H, W, 3).
        generated: float32 (3, h, w) in [0, 1]; resized bilinearly to the box.
        box: x1, y1, x2, y2 in pixels inside the frame.
        contour: (30, 2), as in `face_mask`.
        how: `feather`: a soft edge; `laplacian`: a wider edge for colours than for details, for faces whose colour
            is off.
    """
    if how not in BLENDS:
        raise ValueError(f"blend {how!r}, expected one of {', '.join(BLENDS)} (--recipe.paste)")
    x1, y1, x2, y2 = (int(v) for v in np.rint(box))
    size_hw = (y2 - y1, x2 - x1)
    source = frame[y1:y2, x1:x2].astype(np.float32)
    image = cv2.resize(generated.transpose(1, 2, 0) * np.float32(255), size_hw[::-1], interpolation=cv2.INTER_LINEAR)
    mask = face_mask(contour, box)
    change = image - source
    if how == "feather":
        change *= mask[..., None]
    else:
        change = _laplacian(change, mask) * _to_border(size_hw)
    out = frame.copy()
    out[y1:y2, x1:x2] = np.clip(np.rint(source + change), 0, 255).astype(np.uint8)
    return out
