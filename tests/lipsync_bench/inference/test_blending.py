# SPDX-License-Identifier: Apache-2.0
"""The mask covers the lower face and nothing else, and no blend leaves an edge or moves a pixel it should not."""

import numpy as np
import pytest

from lipsync_bench.datamodules.faces.geometry import CONTOUR
from lipsync_bench.inference.blending import BLENDS, blend, face_mask

SOFT = ("feather", "laplacian")
BOX = np.array([40, 30, 241, 301], np.float32)  # 201 x 271


def contour(box: np.ndarray = BOX, chin: float = 1.0) -> np.ndarray:
    """A frontal face that fills the box: 19 points along the jaw, right to left, 11 below the eyes, left to right."""
    x1, y1, x2, y2 = box
    middle, half, ears = (x1 + x2) / 2, (x2 - x1) / 2, y1 + 0.45 * (y2 - y1)
    angle = np.linspace(0, np.pi, 19)
    jaw = np.stack([middle + half * np.cos(angle), ears + chin * (y2 - ears) * np.sin(angle)], axis=1)
    cheeks = np.stack([np.linspace(x1 + 5, x2 - 5, 11), np.full(11, ears - 5)], axis=1)
    return np.concatenate([jaw, cheeks]).astype(np.float32)


def frame(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(40, 200, (320, 260, 3), dtype=np.uint8)


def as_generated(image: np.ndarray) -> np.ndarray:
    return image.transpose(2, 0, 1).astype(np.float32) / 255


def test_there_is_a_point_for_each_of_the_contour():
    assert len(CONTOUR) == len(set(CONTOUR)) == len(contour())
    assert max(CONTOUR) < 468


def test_mask_is_one_at_the_mouth_and_zero_at_the_border_and_at_the_eyes():
    mask = face_mask(contour(), BOX)
    assert mask.shape == (271, 201)
    assert mask.dtype == np.float32
    assert (mask[170:230, 60:140] == 1).all()  # the mouth
    assert not mask[[0, -1]].any()
    assert not mask[:, [0, -1]].any()
    assert not mask[: int(0.4 * 271)].any()  # forehead and eyes
    assert not mask[-20:, :30].any()  # beside the chin
    assert mask.min() == 0
    assert mask.max() == 1


def test_mask_reaches_down_to_where_the_jaw_can_open():
    closed = face_mask(contour(chin=0.85), BOX)
    assert closed[-30, 100] > 0.5  # 15 % of 149 px below the chin of this frame
    padded = np.array([40, 30, 241, 600])
    assert not face_mask(contour(), padded)[420:].any()  # but not over a wide margin


@pytest.mark.parametrize("how", SOFT)
@pytest.mark.parametrize("box", [BOX, np.array([0, 0, 260, 320]), np.array([100, 100, 116, 117])])
def test_an_identity_generator_leaves_every_pixel_as_it_was(how, box):
    source = frame()
    x1, y1, x2, y2 = box.astype(int)
    generated = as_generated(source[y1:y2, x1:x2])
    np.testing.assert_array_equal(blend(source, generated, box, contour(box), how), source)


@pytest.mark.parametrize("how", SOFT)
def test_another_colour_leaves_no_edge(how):
    source = np.full((320, 260, 3), 100, np.uint8)
    out = blend(source, np.full((3, 96, 96), 160 / 255, np.float32), BOX, contour(), how).astype(int)
    assert abs(out[230, 140] - 160).max() <= (1 if how == "feather" else 12)
    steps = max(abs(np.diff(out, axis=axis)).max() for axis in (0, 1))
    assert steps <= 1.5 * 60 / 20 + 1.5  # a smooth rise over the 20 px of the soft edge


@pytest.mark.parametrize("how", BLENDS)
def test_nothing_outside_the_box_changes_and_the_input_is_not_written_to(how):
    source = frame()
    before = source.copy()
    out = blend(source, as_generated(frame(1)[:96, :96]), BOX, contour(), how)
    np.testing.assert_array_equal(source, before)
    assert (out != source).any()
    out[30:301, 40:241] = source[30:301, 40:241]
    np.testing.assert_array_equal(out, source)


@pytest.mark.parametrize("how", SOFT)
def test_the_border_of_the_box_and_all_outside_the_contour_stay(how):
    source = frame()
    out = blend(source, as_generated(frame(1)[:96, :96]), BOX, contour(), how)
    ring = np.ones((271, 201), bool)
    ring[1:-1, 1:-1] = False
    np.testing.assert_array_equal(out[30:301, 40:241][ring], source[30:301, 40:241][ring])
    if how == "feather":
        outside = face_mask(contour(), BOX) == 0
        np.testing.assert_array_equal(out[30:301, 40:241][outside], source[30:301, 40:241][outside])


def test_a_profile_whose_contour_crosses_itself_has_a_mask():
    points = contour()
    points[:, 0] = 140 + (points[:, 0] - 140) * np.linspace(1, -0.3, len(points))
    mask = face_mask(points, BOX)
    assert 0.1 < mask.mean() < 0.9
    assert np.isfinite(mask).all()


def test_a_face_outside_its_box_changes_nothing():
    source = frame()
    out = blend(source, as_generated(frame(1)[:96, :96]), BOX, contour() + 500, "feather")
    np.testing.assert_array_equal(out, source)


def test_an_unknown_blend_is_an_error():
    with pytest.raises(ValueError, match=r"blend 'poisson', expected one of feather, laplacian \(--recipe.paste\)"):
        blend(frame(), as_generated(frame(1)), BOX, contour(), "poisson")
