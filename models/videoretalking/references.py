# SPDX-License-Identifier: Apache-2.0
"""How a stabilised face becomes the reference of VideoReTalking's L-Net and E-Net: facts of the released inference.

Differs: the 68 points of the stabilised face are dlib's, not those of 2D-FAN.
"""

import numpy as np
from PIL import Image

from lipsync_bench.datamodules.faces.crop_rules.ffhq import FFHQQuad, QuadCut
from lipsync_bench.datamodules.faces.geometry import Geometry

__all__ = ["crop_quad", "ffhq_corners", "paste_coefficients", "replaced"]


def ffhq_corners(landmarks: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Corners of FFHQ's square of a face, float64 (4,2): upper left, lower left, lower right, upper right.

    Args:
        landmarks: (68,2).
        size_hw: Of the image.

    Raises:
        ValueError: The points are not those of a face.
    """
    one = np.ones(1, bool)
    (cut,) = FFHQQuad(smoothing=0).cuts(Geometry(size_hw, one, np.empty((1, 4)), np.empty((1, 30, 2)), landmarks[None]))
    assert isinstance(cut, QuadCut)
    return cut.corners


def crop_quad(image: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """What lies in a square, turned upright, uint8 of the image's own size; black beyond the image."""
    size = (image.shape[1], image.shape[0])
    data = (corners + 0.5).flatten().tolist()
    whole = Image.fromarray(image).transform(size, Image.Transform.QUAD, data, Image.Resampling.BILINEAR)
    return np.asarray(whole)


def paste_coefficients(corners: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """The eight numbers, as PIL takes them, of the perspective that puts an image of this size into a square."""
    height, width = size_hw
    goal = np.array([(0, 0), (0, height), (width, height), (width, 0)], np.float64)
    rows = []
    for (x, y), (u, v) in zip(corners + 0.5, goal, strict=True):
        rows += [(x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y)]
    return np.asarray(np.linalg.lstsq(np.array(rows), goal.flatten(), rcond=None)[0])


def replaced(face: np.ndarray, stabilised: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """A face with FFHQ's square of its stabilised version.

    Args:
        face, stabilised: uint8 RGB (H,W,3).
        landmarks: 68 points of the stabilised face.

    Raises:
        ValueError: As `ffhq_corners`.
    """
    size_hw = (face.shape[0], face.shape[1])
    corners = ffhq_corners(landmarks, size_hw)
    upright = Image.fromarray(crop_quad(stabilised, corners)).convert("RGBA")
    data = paste_coefficients(corners, size_hw).tolist()
    back = upright.transform(size_hw[::-1], Image.Transform.PERSPECTIVE, data, Image.Resampling.BILINEAR)
    out = Image.fromarray(face)
    out.paste(back, (0, 0), back)
    return np.asarray(out)
