# SPDX-License-Identifier: Apache-2.0
"""How VideoReTalking pastes a changed face: where a parser sees it, blended by Laplacian pyramids.

Facts are those of the released inference. All operations work channel by channel, so that RGB gives the same here as
BGR there.

Reference: Burt and Adelson, "A Multiresolution Spline with Application to Image Mosaics", 1983.

Differs: the five points come from dlib's 68, not from RetinaFace.
"""

from collections.abc import Callable

import cv2
import numpy as np

from lipsync_bench.datamodules.faces.crop_rules.boxes import BoxCut
from lipsync_bench.models.pretrained.parsenet import SIZE

TEMPLATE = (
    np.array([(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]) + 28
) * (SIZE / 168)
"""Where eyes, tip of the nose and corners of the mouth of an aligned face are: ArcFace's points of 112 pixels, with a
border of 28.
"""
FACE = (1, 2, 3, 4, 5, 6, 7, 10, 11, 12)
"""ParseNet's labels of skin, nose, glasses, eyes, brows, mouth and lips."""
MOUTH = (10, 11, 12)
"""Of mouth and lips."""
_EDGE_PX = 20  # of an aligned face, beyond which its mask ends
_SMALL_PX = 100  # a restored face whose box is smaller is smoothed before it is pasted
_SMOOTHING = np.outer((1, 2, 1), (1, 2, 1)).astype(np.float32) / 16
_KEPT_ROWS = 5  # at the lower end of a box
_MOUTH_LEVELS, _FACE_LEVELS = 10, 6

Parse = Callable[[np.ndarray], np.ndarray]
"""A face, uint8 RGB of any size -> ParseNet's label of each pixel, (512,512)."""
Restore = Callable[[np.ndarray], np.ndarray]
"""An aligned face, uint8 RGB (512,512,3) -> the same with more details."""

__all__ = [
    "FACE",
    "MOUTH",
    "TEMPLATE",
    "Parse",
    "Restore",
    "blend_mouth",
    "five_points",
    "paste_face",
    "pyramid_blend",
    "similarity",
]


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """68 points (68,2) -> eyes, tip of the nose, corners of the mouth, float64 (5,2)."""
    eyes = [landmarks[first : first + 6].mean(axis=0) for first in (36, 42)]
    return np.array([*eyes, landmarks[30], landmarks[48], landmarks[54]], np.float64)


def pyramid_blend(inside: np.ndarray, outside: np.ndarray, mask: np.ndarray, levels: int) -> np.ndarray:
    """Two images blended, each octave with a mask of matching softness; float32, without a limit to its values.

    Args:
        inside: (H,W,3), taken where the mask is 1.
        outside: (H,W,3). Images of uint8 are rounded at every level, as published.
        mask: float32 (H,W) in [0, 1].
        levels: Of the pyramids; the coarsest is blended as it is.
    """
    pyramids = [[inside], [outside], [mask]]
    for pyramid in pyramids:
        for _ in range(levels - 1):
            pyramid.append(cv2.pyrDown(pyramid[-1]))
    a, b, weights = ([image.astype(np.float32) for image in pyramid] for pyramid in pyramids)

    def band(pyramid: list[np.ndarray], level: int) -> np.ndarray:
        image = pyramid[level]
        return image if level == levels - 1 else image - cv2.pyrUp(pyramid[level + 1], dstsize=image.shape[1::-1])

    out = np.zeros((0, 0, 3), np.float32)
    for level in reversed(range(levels)):
        weight = weights[level][..., None]
        blended = band(a, level) * weight + band(b, level) * (1 - weight)
        out = blended if level == levels - 1 else cv2.pyrUp(out, dstsize=blended.shape[1::-1]) + blended
    return out


def _blended(inside: np.ndarray, outside: np.ndarray, mask: np.ndarray, levels: int) -> np.ndarray:
    """Frames uint8 (H,W,3) blended at 512 x 512; the result is resized as it is and then truncated."""
    a, b, weight = (cv2.resize(image, (SIZE, SIZE)) for image in (inside, outside, mask))
    return cv2.resize(np.clip(pyramid_blend(a, b, weight, levels), 0, 255), inside.shape[1::-1]).astype(np.uint8)


def blend_mouth(frame: np.ndarray, restored: np.ndarray, cut: BoxCut, parse: Parse) -> np.ndarray:
    """A frame with the mouth of its restored version.

    Args:
        frame, restored: uint8 (H,W,3).
        cut: Of the face.
        parse: Finds the mouth in the restored face.
    """
    x1, y1, x2, y2 = cut.box
    mouth = np.isin(parse(cut.crop(restored)), MOUTH).astype(np.uint8) * np.uint8(255)
    mask = np.zeros(frame.shape[:2], np.float32)
    mask[y1:y2, x1:x2] = cv2.resize(mouth, (x2 - x1, y2 - y1)) // 255  # only whole pixels of the mouth
    return _blended(restored, frame, mask, _MOUTH_LEVELS)


def similarity(points: np.ndarray) -> np.ndarray:
    """The similarity that takes five points of a face (5,2) nearest to `TEMPLATE`, float64 (2,3).

    Umeyama, "Least-Squares Estimation of Transformation Parameters Between Two Point Patterns", 1991.
    """
    middle, goal = points.mean(axis=0), TEMPLATE.mean(axis=0)
    centred = points - middle
    u, values, vt = np.linalg.svd((TEMPLATE - goal).T @ centred / len(points))
    signs = np.array([1, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    linear = (values * signs).sum() / centred.var(axis=0).sum() * (u * signs) @ vt
    return np.column_stack([linear, goal - linear @ middle])


def paste_face(
    frame: np.ndarray,
    image: np.ndarray,
    points: np.ndarray,
    parse: Parse,
    *,
    cut: BoxCut | None = None,
    restore: Restore | None = None,
    face_px: float = SIZE,
) -> np.ndarray:
    """A frame with the face of another version of it.

    Args:
        frame: uint8 (H,W,3), the background.
        image: uint8 (H,W,3), the version with the face.
        points: `five_points` in pixels of the image.
        parse: Finds the face in the aligned image.
        cut: Where the face was changed: the face is blended by pyramids, inside of it alone.
        restore: What is done to the aligned face before it is pasted.
        face_px: The shorter side of the face.
    """
    to_face = similarity(points)
    to_frame, size = cv2.invertAffineTransform(to_face), frame.shape[1::-1]
    face = cv2.warpAffine(image, to_face, (SIZE, SIZE))
    if restore is not None:
        face = restore(face)
        face = cv2.filter2D(face, -1, _SMOOTHING) if face_px < _SMALL_PX else face
    hard = np.zeros((SIZE, SIZE), np.float32)
    inner = slice(_EDGE_PX, -_EDGE_PX)
    hard[inner, inner] = np.isin(parse(face), FACE)[inner, inner]
    once = cv2.GaussianBlur(hard, (101, 101), 11)
    pasted, inner_share, share = (
        cv2.warpAffine(x, to_frame, size) for x in (face, hard, cv2.GaussianBlur(once, (101, 101), 11))
    )
    pasted[share <= 0] = 0
    inner_share = cv2.GaussianBlur(inner_share, (0, 0), 1)
    if cut is None:
        return _mixed(frame, _mixed(frame, pasted, share), inner_share)
    x1, y1, x2, y2 = cut.box
    mask = np.zeros_like(inner_share)
    inside = np.s_[y1 : y2 - _KEPT_ROWS, x1:x2]
    mask[inside] = inner_share[inside]
    return _blended(pasted, frame, mask, _FACE_LEVELS)


def _mixed(outside: np.ndarray, inside: np.ndarray, mask: np.ndarray) -> np.ndarray:
    share = mask[..., None]
    return np.clip(np.rint(outside * (1 - share) + inside * share), 0, 255).astype(np.uint8)
