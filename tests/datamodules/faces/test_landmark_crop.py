# SPDX-License-Identifier: Apache-2.0
"""G4G's rectangle: the published rows and columns, its refusals, and a paste that ends inside of it."""

import re
from dataclasses import replace

import numpy as np
import pytest

from lipsync_bench.datamodules.faces.crop_rules.boxes import FaceMeshBox
from lipsync_bench.datamodules.faces.crop_rules.g4g import LandmarkCrop, LandmarkCut, soft_mask
from lipsync_bench.datamodules.recipes.options import RecipeOptions
from lipsync_bench.datamodules.recipes.recipe import Recipe
from lipsync_bench.datamodules.weights.store import Store
from lipsync_bench.inference.pasting import make_paste
from tests.talking_points import drawn_frames, face_points, geometry_of_points

RANDOM = np.random.default_rng(3)
OPENING = RANDOM.uniform(0, 14, 40)
POINTS = face_points(OPENING, RANDOM.normal(0, 2, (40, 2)).cumsum(0) / 3)


def boxes(rule: LandmarkCrop, points: np.ndarray = POINTS) -> np.ndarray:
    return np.array([cut.box for cut in rule.cuts(geometry_of_points(points)) if isinstance(cut, LandmarkCut)])


@pytest.mark.parametrize("enlarge", [1.05, 1.1])
def test_the_rectangle_is_the_published_one(enlarge: float) -> None:
    whole = POINTS.astype(int)
    r = [
        int(max((p[:, 1].max() - p[29, 1]) * enlarge, (p[54, 0] - p[48, 0]) * enlarge) / 2) for p in whole
    ]  # as the sheet writes it, frame by frame
    radius = 4 * (max(r) // 4 + 1)
    y, x, more = whole[:, 29, 1], whole[:, 33, 0], radius // 4
    expected = np.stack([x - radius - more, y - radius, x + radius + more, y + 2 * radius + more], axis=1)
    np.testing.assert_array_equal(boxes(LandmarkCrop(enlarge)), expected)
    width, height = np.unique(boxes(LandmarkCrop(enlarge))[:, 2:] - boxes(LandmarkCrop(enlarge))[:, :2], axis=0).T
    assert height / width == pytest.approx(416 / 320)


def test_the_height_does_not_follow_the_jaw_unless_it_is_asked_to() -> None:
    heights = {frames: np.diff(boxes(LandmarkCrop(frames=frames))[:, 1::2])[:, 0] for frames in (1, 125)}
    assert np.corrcoef(heights[1], OPENING)[0, 1] > 0.8
    assert np.unique(heights[125]).size == 1


@pytest.mark.parametrize(
    ("points", "size_hw", "message"),
    [
        (POINTS - np.array([100, 0]), (260, 240), r"frame 0, -\d+ .* leaves the frame of 240 x 260 pixels"),
        (POINTS + np.array([0, 90]), (260, 240), "leaves the frame"),
        (POINTS, (180, 240), "leaves the frame"),
        (face_points(np.r_[np.zeros(20), np.full(20, 70.0)], np.zeros((40, 2)), 0.7), (400, 240), "changes its size"),
        (POINTS * np.nan, (260, 240), "are not those of faces"),
        (np.zeros((3, 68, 2), np.float32), (260, 240), "are not those of faces"),
    ],
)  # fmt: skip
def test_what_is_refused_is_named_with_what_to_do(points: np.ndarray, size_hw: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=f"{message}.*Expected .*--recipe.crop mesh"):
        LandmarkCrop().cuts(geometry_of_points(points, size_hw))


def test_runs_are_cut_by_themselves_and_hidden_frames_not_at_all() -> None:
    small = face_points(np.zeros(20), np.zeros((20, 2)), 0.5)
    points = np.concatenate([POINTS[:20], np.full((5, 68, 2), np.nan, np.float32), small])
    geometry = geometry_of_points(points)
    visible = np.ones(45, bool)
    visible[20:25] = False
    cuts = LandmarkCrop().cuts(replace(geometry, visible=visible))
    assert [cut is None for cut in cuts] == (~visible).tolist()
    assert cuts[0] == LandmarkCrop().cuts(geometry_of_points(POINTS[:20]))[0]
    with pytest.raises(ValueError, match="68 points"):
        LandmarkCrop().cuts(replace(geometry, landmarks=None))


def test_the_mask_is_one_at_the_mouth_and_nothing_at_the_border() -> None:
    points = POINTS[0, :27] - boxes(LandmarkCrop())[0, :2]
    size = boxes(LandmarkCrop())[0]
    mask = soft_mask(points, (size[3] - size[1], size[2] - size[0]))
    mouth = (POINTS[0, 62] - size[:2]).astype(int)
    assert mask[mouth[1], mouth[0]] > 0.99
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    assert 0 <= border.min() <= border.max() < 0.04
    assert abs(np.diff(mask, axis=0)).max() < 0.12  # no edge


def test_a_face_is_pasted_through_its_mask() -> None:
    frame, cut = drawn_frames(POINTS[:1])[0], LandmarkCrop().cuts(geometry_of_points(POINTS))[0]
    assert isinstance(cut, LandmarkCut)
    paste = make_paste(Recipe(LandmarkCrop(), (104, 80), paste="mask"), Store())
    white = np.ones((3, 104, 80), np.float32)
    out = paste(frame, cut, white, np.zeros((30, 2)))
    x1, y1, x2, y2 = cut.box
    mouth = POINTS[0, 62].astype(int)
    assert (out[mouth[1], mouth[0]] >= 253).all()
    outside = np.ones(frame.shape[:2], bool)
    outside[y1:y2, x1:x2] = False
    np.testing.assert_array_equal(out[outside], frame[outside])
    same = cut.face(frame, (y2 - y1, x2 - x1)).transpose(2, 0, 1).astype(np.float32) / 255
    assert abs(paste(frame, cut, same, np.zeros((30, 2))).astype(int) - frame).max() <= 1
    hard = make_paste(Recipe(LandmarkCrop(), (104, 80), paste="box"), Store())(frame, cut, white, np.zeros((30, 2)))
    assert (hard[y1:y2, x1:x2] == 255).all()


def test_a_recipe_has_the_mask_with_this_rule_alone_and_reads_it_back() -> None:
    recipe = Recipe(LandmarkCrop(), (416, 320), LandmarkCrop(1.1), paste="mask")
    assert Recipe.of(recipe.plain()) == recipe
    assert recipe.text().startswith("g4g*1.05 320x416")
    other = RecipeOptions(crop="mesh").applied(recipe)
    assert (other.crop, other.training_crop, other.paste) == (FaceMeshBox(), None, "feather")
    assert RecipeOptions(crop="g4g").applied(recipe) == recipe
    assert RecipeOptions(crop="g4g", paste="mask").applied(other).paste == "mask"
    with pytest.raises(ValueError, match=re.escape("paste is mask with the crop rule mesh. Expected g4g")):
        RecipeOptions(paste="mask").applied(other)
    for wrong in ({"frames": 4}, {"frames": 0}, {"enlarge": 0.0}):
        with pytest.raises(ValueError, match=r"Expected 0\.5 to 3, and an odd number"):
            LandmarkCrop(**wrong)  # type: ignore[arg-type]
