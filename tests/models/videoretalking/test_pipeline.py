# SPDX-License-Identifier: Apache-2.0
"""The steps of VideoReTalking's released inference against stored facts (videoretalking_pipeline.golden.npz), and the
session that takes them.

Keys: `quads`, `crop0`, `align_coeff`, FFHQ's squares of three faces, what they cut out, and the way back; `coords` the
smoothed boxes y1 y2 x1 x2 of four frames; `img_batch_u8`, `img_batch_mean` what the networks see; `blend_*` Laplacian
pyramids of 10 and 6 levels; the others, every second pixel of a frame after a step with stand-ins for the networks.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
import torch

from lipsync_bench.datamodules.faces.crop_rules.boxes import BoxCut
from lipsync_bench.models.videoretalking import session as sessions
from lipsync_bench.models.videoretalking.blending import blend_mouth, paste_face, pyramid_blend
from lipsync_bench.models.videoretalking.references import crop_quad, ffhq_corners, paste_coefficients
from tests import golden

STORED = golden.arrays("videoretalking_pipeline")
STANDING = {30: (128, 145), 48: (104, 180), 54: (152, 180)}
BOXES = np.array([(60, 40, 180, 150), (62, 41, 183, 152), (58, 39, 178, 149)])
CUT = BoxCut((60, 40, 180, 170))
POINTS = np.array([(95, 85), (145, 86), (120, 110), (100, 140), (140, 141)], np.float64)


def u8(name: str, *shape: int) -> np.ndarray:
    return np.floor(golden.uniform(f"vrt/pipe/{name}", shape, 0, 256)).astype(np.uint8)


def landmarks() -> np.ndarray:
    points = np.full((68, 2), 128.0)
    points[36:42], points[42:48] = (96, 110), (160, 110)
    for number, place in STANDING.items():
        points[number] = place
    return points + golden.uniform("vrt/pipe/lm", (3, 68, 2), -3, 3)


def smooth(name: str) -> np.ndarray:
    return cv2.GaussianBlur(u8(name, 200, 240, 3), (0, 0), 2)


def is_stored(image: np.ndarray, key: str, levels: int = 1) -> None:
    difference = np.abs(image.astype(int) - STORED[key])
    assert difference.max() <= levels
    assert difference.mean() < 0.01


def test_squares_and_the_way_back() -> None:
    corners = np.stack([ffhq_corners(points, (256, 256)) for points in landmarks()])
    np.testing.assert_allclose(corners, STORED["quads"], atol=1e-9)
    is_stored(crop_quad(u8("enh0", 256, 256, 3), corners[0])[::5, ::5], "crop0")
    numbers = [paste_coefficients(quad, (256, 256)) for quad in corners]
    np.testing.assert_allclose(numbers, STORED["align_coeff"], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("levels", [10, 6])
def test_laplacian_pyramids(levels: int) -> None:
    images = u8("blendA", 512, 512, 3), u8("blendB", 512, 512, 3)
    hard = np.zeros((512, 512), np.float32)
    hard[200:330, 150:377] = 1
    for name, mask in (("soft", golden.uniform("vrt/pipe/blendM", (512, 512))), ("hard", hard)):
        made = pyramid_blend(*images, mask, levels)[::9, ::9]
        np.testing.assert_allclose(made, STORED[f"blend_{name}_{levels}"], atol=1e-3)


def labels(value: int, rows: slice, columns: slice) -> np.ndarray:
    image = np.zeros((512, 512), np.uint8)
    image[rows, columns] = value
    return image


def test_pasting() -> None:
    face, mouth = labels(1, slice(60, 480), slice(80, 430)), labels(11, slice(300, 420), slice(150, 360))
    original = smooth("paste_ori")
    predicted = (golden.uniform("vrt/pipe/paste_pred", (1, 384, 384, 3))[0] * 255).astype(np.uint8)
    pasted = CUT.paste(original, predicted)
    is_stored(pasted[::2, ::2], "frame_with_pred")
    with_mouth = blend_mouth(pasted, smooth("paste_restored"), CUT, lambda _: mouth)
    is_stored(with_mouth[::2, ::2], "mouth_blend")
    final = paste_face(original, with_mouth, POINTS, lambda _: face, cut=CUT)
    is_stored(final[::2, ::2], "final_frame", levels=2)
    image = smooth("paste_img")
    is_stored(paste_face(original, image, POINTS, lambda _: face, cut=CUT)[::2, ::2], "gpen_pyramid")
    enhanced = paste_face(original, image, POINTS, lambda _: face, restore=lambda face: 255 - face, face_px=90)
    is_stored(enhanced[::2, ::2], "gpen_plain")
