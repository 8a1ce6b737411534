# SPDX-License-Identifier: Apache-2.0
"""What HyperLips-HR is told about a face besides its pixels: a line drawing, and where its lips are.

All of it is drawn from the 478 points of MediaPipe's Face Mesh (with irises), given as x, y (and z) in units of the
image's width and height. The drawing follows brows, eyes, lips, the ridge and wings of the nose, and the face's outline
below the temples: the forehead's edge and the lower rim of the nose, which MediaPipe would draw, are left out.

Source: Chen, Yao, Li, Wang, Zhang, Yang, Wen, "HyperLips: Hyper Control Lips with High Resolution Decoder for Talking
Face Generation", 2023, https://arxiv.org/abs/2310.05720, section III-B1, and facts of the released code.
"""

import math
from itertools import pairwise

import cv2
import numpy as np

BOTTLENECK_PX = 128  # side of the canvas at inference, and of every sketch the networks see in training
TRAINING_KERNEL_PX = 5  # that of sketches 128 px wide
THICKNESS_PX = 6
LIP_OUTLINE = (164, 167, 165, 92, 186, 57, 43, 106, 182, 83, 18, 313, 406, 335, 273, 287, 410, 322, 391, 393)
_SIGMA_Y = 4  # the released call passes its border mode, a 4, where the vertical sigma is expected

_LIPS = (
    (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291),
    (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291),
    (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308),
    (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308),
)
_LEFT_EYE = ((263, 249, 390, 373, 374, 380, 381, 382, 362), (263, 466, 388, 387, 386, 385, 384, 398, 362))
_RIGHT_EYE = ((33, 7, 163, 144, 145, 153, 154, 155, 133), (33, 246, 161, 160, 159, 158, 157, 173, 133))
_LEFT_EYEBROW = ((276, 283, 282, 295, 285), (300, 293, 334, 296, 336))
_RIGHT_EYEBROW = ((46, 53, 52, 65, 55), (70, 63, 105, 66, 107))
_OVAL_BELOW_TEMPLES = (  # temple to chin, chin to temple
    (389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152),
    (152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162),
)
_NOSE = ((168, 6, 197, 195, 5, 4), (4, 45, 220, 115, 48), (4, 275, 440, 344, 278))
_CHAINS = (*_LIPS, *_LEFT_EYE, *_LEFT_EYEBROW, *_RIGHT_EYE, *_RIGHT_EYEBROW, *_OVAL_BELOW_TEMPLES, *_NOSE)
SKETCH_EDGES: tuple[tuple[int, int], ...] = tuple(edge for chain in _CHAINS for edge in pairwise(chain))

__all__ = [
    "BOTTLENECK_PX",
    "LIP_OUTLINE",
    "SKETCH_EDGES",
    "THICKNESS_PX",
    "TRAINING_KERNEL_PX",
    "draw_sketch",
    "inference_sketch",
    "lip_box",
    "lip_mask",
    "lip_outline",
    "smooth_landmarks",
    "training_sketch",
]


def _check_mesh(points: np.ndarray) -> None:
    if points.ndim != 2 or len(points) <= max(LIP_OUTLINE) or points.shape[1] < 2:
        raise ValueError(
            f"landmarks are {points.shape}. Expected (478, 2) or (478, 3), one face. Pass one frame of Clip.mesh()."
        )


def _inside(value: float) -> bool:
    """MediaPipe's test. Its tolerance is relative, so that it lets values a little above 1 pass but none below 0."""
    return (value > 0 or math.isclose(0, value)) and (value < 1 or math.isclose(1, value))


def draw_sketch(points: np.ndarray, size_hw: tuple[int, int], thickness: int = THICKNESS_PX) -> np.ndarray:
    """The line drawing of one face.

    A point lies at pixel (min(floor(x W), W - 1), min(floor(y H), H - 1)). Points outside the image are left out
    together with the lines that meet there.

    Args:
        points: (478, 2 or 3), x and y in 0..1 of the image.
        size_hw: height and width of the drawing, pixels.
        thickness: of the lines, pixels, whatever the drawing's size.

    Returns:
        uint8 (H, W), 255 on lines and 0 elsewhere; the published one has three such channels.

    Raises:
        ValueError: the points are not those of one mesh.
    """
    _check_mesh(points)
    height, width = size_hw
    pixels: dict[int, tuple[int, int]] = {}
    for index in {index for edge in SKETCH_EDGES for index in edge}:
        x, y = float(points[index, 0]), float(points[index, 1])
        if _inside(x) and _inside(y):
            pixels[index] = (min(math.floor(x * width), width - 1), min(math.floor(y * height), height - 1))
    canvas = np.zeros((height, width), np.uint8)
    for first, second in SKETCH_EDGES:
        if first in pixels and second in pixels:
            cv2.line(canvas, pixels[first], pixels[second], (255,), thickness)
    return canvas


def _resized(image: np.ndarray, size_px: int) -> np.ndarray:
    if image.shape[:2] == (size_px, size_px):
        return image
    return cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_LINEAR)


def training_sketch(sketch: np.ndarray, size_px: int = BOTTLENECK_PX, kernel: int = TRAINING_KERNEL_PX) -> np.ndarray:
    """A drawing as the training loader hands it out: resized, blurred, and white wherever anything is left.

    The blur's horizontal sigma is OpenCV's automatic one and its vertical sigma 4, as in the released call, whose
    arguments are shifted by one. On a drawing that is black and white it widens the lines by half the kernel.

    Args:
        sketch: uint8 (h, w), of any size.
        size_px: side of the result.
        kernel: side of the blur, odd: 5, 7, 11 for 128, 256, 512 pixels; the networks only see the first.

    Returns:
        uint8 (size_px, size_px), 0 or 255.
    """
    blurred = cv2.GaussianBlur(_resized(sketch, size_px), (kernel, kernel), 0, sigmaY=_SIGMA_Y)
    return np.where(blurred > 0, 255, 0).astype(np.uint8)


def inference_sketch(points: np.ndarray, size_px: int) -> np.ndarray:
    """A drawing as the released inference makes it: on a canvas of 128 x 128, then resized, neither blurred nor cut.

    Args:
        points: (478, 2 or 3), 0..1 of the image.
        size_px: side of the result: 128, 256 or 512.

    Returns:
        uint8 (size_px, size_px); grey at the lines' edges above 128 pixels.
    """
    return _resized(draw_sketch(points, (BOTTLENECK_PX, BOTTLENECK_PX)), size_px)


def smooth_landmarks(points: np.ndarray, window: int) -> np.ndarray:
    """The released smoothing over time: a running mean that reads what it has already written.

    Frame i, for window <= i < n - window, becomes the mean of frames i - window ... i + window - 1, of which the
    earlier ones are smoothed by then. The other frames stay as they are.

    Args:
        points: float (n, K, C), the frames of one batch; left as it is.
        window: half the number of frames averaged, 1 or more.

    Returns:
        float32 (n, K, C); the means are taken in float64.
    """
    if window < 1:
        raise ValueError(f"window is {window}. Expected 1 or more frames. Leave the smoothing out instead.")
    out = points.astype(np.float32)  # a copy
    for index in range(window, len(out) - window):
        out[index] = out[index - window : index + window].mean(axis=0, dtype=np.float64)
    return out


def lip_outline(points: np.ndarray) -> np.ndarray:
    """The ring of 20 points around the lips: (478, 2 or 3) -> float32 (20, 2), in the units of the mesh."""
    _check_mesh(points)
    return points[list(LIP_OUTLINE), :2].astype(np.float32)


def lip_mask(outline: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """The area of the lips and a little skin around them.

    Args:
        outline: (20, 2), x and y in 0..1 of the image, as `lip_outline` gives them.
        size_hw: height and width of the mask, pixels.

    Returns:
        uint8 (H, W), 255 inside the polygon whose corners are at (floor(x W), floor(y H)) and on its edge, else 0.
    """
    if outline.shape != (len(LIP_OUTLINE), 2):
        raise ValueError(
            f"outline is {outline.shape}. Expected ({len(LIP_OUTLINE)}, 2). Pass what lip_outline returns."
        )
    height, width = size_hw
    corners = np.floor(outline.astype(np.float64) * (width, height)).astype(np.int32)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [corners], (255,))
    return mask


def lip_box(mask: np.ndarray, size_px: int) -> tuple[int, int, int, int]:
    """The rectangle of a lip mask after it was resized to size_px x size_px; pixels made grey by that do not count.

    Args:
        mask: uint8 (h, w), 255 on the lips.
        size_px: side of the images that the rectangle is meant for.

    Returns:
        row_min, row_max, col_min, col_max, all of them white rows and columns. The published losses use them as
        half-open slices, so that the last row and column fall off.

    Raises:
        ValueError: no pixel of the resized mask is white.
    """
    rows, columns = np.nonzero(_resized(mask, size_px) == 255)
    if not len(rows):
        raise ValueError(
            f"the lip mask of {mask.shape[1]}x{mask.shape[0]} px has no white pixel at {size_px}x{size_px}. Expected "
            "the lips inside the crop. Leave the frame out, or prepare the clip again with another --crop."
        )
    return int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())
