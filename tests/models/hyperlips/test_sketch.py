# SPDX-License-Identifier: Apache-2.0
"""Sketches, lip masks and lip rectangles against the released code of HyperLips.

Keys of hyperlips_sketch.golden.npz, all from one photograph of 150 x 130: `lm_bgr`, `lm_rgb`, Face Mesh on the image in
either channel order; `sketch_native`, `mask_native`, drawings at that size; `sketch_train_S`, packed bits of what the
training loader makes of the drawing, `sketch_train_jpg_128`, of the drawing after JPEG; `lip_box_S`, `lip_box_jpg_S`;
`sketch_infer_S` (512 at every second pixel); `smooth_lm` (every 16th point) and `smooth_sketch_sum`.
Of hyperlips_pipeline.golden.npz: `hrR.landmarks`, `hrR.hr_in_sketch` (every R-th pixel), `hrR.hr_in_sketch_sum`, what
the released inference gives the HR network. R = 1 smooths over a window of 1, R = 2 does not.
"""

import subprocess
import sys
from itertools import pairwise

import cv2
import numpy as np
import pytest

from lipsync_bench.models.hyperlips.hr.sketch import (
    LIP_OUTLINE,
    SKETCH_EDGES,
    draw_sketch,
    inference_sketch,
    lip_box,
    lip_mask,
    lip_outline,
    smooth_landmarks,
    training_sketch,
)
from tests import golden

NATIVE_HW = (150, 130)
KERNELS = {128: 5, 256: 7, 512: 11}


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    return golden.arrays("hyperlips_sketch")


@pytest.fixture(scope="module")
def pipeline() -> dict[str, np.ndarray]:
    return golden.arrays("hyperlips_pipeline")


def bits(packed: np.ndarray, size: int) -> np.ndarray:
    return np.unpackbits(packed).reshape(size, size)


def through_jpeg(image: np.ndarray) -> np.ndarray:
    """As the released preparation stores it: three equal channels, OpenCV's default quality of 95."""
    data = cv2.imencode(".jpg", np.repeat(image[..., None], 3, axis=2))[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., 0]


def dots(**points: tuple[float, float]) -> np.ndarray:
    """A mesh outside the image but for some points, named p<index>."""
    mesh = np.full((478, 3), -1.0, np.float32)
    for name, place in points.items():
        mesh[int(name[1:]), :2] = place
    return mesh


def test_edges_are_mediapipes_without_irises_forehead_and_rim_of_the_nose() -> None:
    from mediapipe.python.solutions import face_mesh_connections as mediapipe

    def undirected(edges: object) -> set[frozenset[int]]:
        return {frozenset(edge) for edge in edges}  # type: ignore[attr-defined]

    ours = undirected(SKETCH_EDGES)
    assert len(ours) == len(SKETCH_EDGES) == 125
    whole = [
        mediapipe.FACEMESH_LIPS,
        mediapipe.FACEMESH_LEFT_EYE,
        mediapipe.FACEMESH_LEFT_EYEBROW,
        mediapipe.FACEMESH_RIGHT_EYE,
        mediapipe.FACEMESH_RIGHT_EYEBROW,
    ]
    assert [len(edges) for edges in whole] == [40, 16, 8, 16, 8]
    for edges in whole:
        assert undirected(edges) <= ours
    forehead = [10, 338, 297, 332, 284, 251, 389], [162, 21, 54, 103, 67, 109, 10]
    rim = [4, 1, 19, 94, 2, 97, 98, 64, 48], [2, 326, 327, 294, 278]
    dropped: set[frozenset[int]] = set()
    for chain in (*forehead, *rim):
        dropped |= undirected(pairwise(chain))
    reduced = undirected(mediapipe.FACEMESH_FACE_OVAL) | undirected(mediapipe.FACEMESH_NOSE)
    assert len(dropped) == 24
    assert dropped <= reduced
    assert ours == reduced - dropped | set().union(*map(undirected, whole))


def test_golden_drawings(expected: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(draw_sketch(expected["lm_bgr"], NATIVE_HW), expected["sketch_native"])
    # Channel order matters: the mesh of the RGB image is another drawing.
    assert (draw_sketch(expected["lm_rgb"], NATIVE_HW) != expected["sketch_native"]).mean() > 0.005
    mask = lip_mask(lip_outline(expected["lm_rgb"]), NATIVE_HW)
    np.testing.assert_array_equal(mask, expected["mask_native"])


@pytest.mark.parametrize("size", KERNELS)
def test_golden_training_sketches_and_boxes(expected: dict[str, np.ndarray], size: int) -> None:
    sketch = training_sketch(draw_sketch(expected["lm_bgr"], NATIVE_HW), size, KERNELS[size])
    assert set(np.unique(sketch)) == {0, 255}
    np.testing.assert_array_equal(sketch // 255, bits(expected[f"sketch_train_{size}"], size))
    mask = lip_mask(lip_outline(expected["lm_rgb"]), NATIVE_HW)
    assert lip_box(mask, size) == tuple(expected[f"lip_box_{size}"])
    np.testing.assert_allclose(lip_box(through_jpeg(mask), size), expected[f"lip_box_jpg_{size}"], atol=1)


def test_golden_training_sketch_through_jpeg(expected: dict[str, np.ndarray]) -> None:
    reference = bits(expected["sketch_train_jpg_128"], 128)
    sketch = draw_sketch(expected["lm_bgr"], NATIVE_HW)
    assert (training_sketch(through_jpeg(sketch)) // 255 != reference).mean() <= 0.02  # depends on the codec
    # The ringing turns white: without JPEG the lines are thinner.
    assert (training_sketch(sketch) // 255 != reference).mean() > 0.03


@pytest.mark.parametrize("size", KERNELS)
def test_golden_inference_sketches(expected: dict[str, np.ndarray], size: int) -> None:
    step = 2 if size == 512 else 1
    sketch = inference_sketch(expected["lm_bgr"], size)
    assert sketch.shape == (size, size)
    np.testing.assert_array_equal(sketch[::step, ::step], expected[f"sketch_infer_{size}"])


def test_golden_smoothing(expected: dict[str, np.ndarray]) -> None:
    raw = golden.uniform("hyperlips.smooth.lm", (8, 478, 3), 0.05, 0.95)
    before = raw.copy()
    smooth = smooth_landmarks(raw, 2)
    np.testing.assert_array_equal(raw, before)
    assert smooth.dtype == np.float32
    np.testing.assert_allclose(smooth[:, ::16], expected["smooth_lm"], atol=1e-7, rtol=0)
    sums = [int(inference_sketch(points, 128).sum(dtype=np.int64)) for points in smooth]
    assert sums == expected["smooth_sketch_sum"].tolist()
    # A mean over raw frames alone is something else.
    assert abs(smooth[4] - raw[2:6].mean(axis=0)).max() > 0.05
    np.testing.assert_array_equal(smooth[[0, 1, 6, 7]], raw[[0, 1, 6, 7]])


@pytest.mark.parametrize(("scale", "window"), [(1, 1), (2, None)])
def test_golden_sketches_of_the_released_inference(
    pipeline: dict[str, np.ndarray], scale: int, window: int | None
) -> None:
    landmarks = pipeline[f"hr{scale}.landmarks"]
    if window is not None:
        landmarks = smooth_landmarks(landmarks, window)
    sketches = np.stack([inference_sketch(points, 128 * scale) for points in landmarks])
    np.testing.assert_array_equal(sketches[:, ::scale, ::scale], pipeline[f"hr{scale}.hr_in_sketch"])
    np.testing.assert_array_equal(sketches.sum(axis=(1, 2), dtype=np.int64), pipeline[f"hr{scale}.hr_in_sketch_sum"])


def test_points_outside_the_image_take_their_lines_with_them() -> None:
    line = draw_sketch(dots(p61=(0.25, 0.5), p146=(0.75, 0.5)), (40, 80))
    assert line[20, 20:61].all()
    assert not line[:, :16].any()
    assert not line[:, 65:].any()
    for x in (-1e-6, 1.001, np.nan):
        assert not draw_sketch(dots(p61=(x, 0.5), p146=(0.75, 0.5)), (40, 80)).any()
        assert not draw_sketch(dots(p61=(0.5, x), p146=(0.75, 0.5)), (40, 80)).any()


def test_points_on_the_edge_lie_in_the_last_pixel() -> None:
    sketch = draw_sketch(dots(p61=(1.0, 0.0), p146=(1.0, 1.0)), (40, 80), thickness=1)
    assert sketch[:, 79].all()
    assert not sketch[:, :79].any()


def test_thickness_is_in_pixels_of_the_drawing() -> None:
    thin = draw_sketch(dots(p61=(0.25, 0.5), p146=(0.75, 0.5)), (128, 128), thickness=1)
    thick = draw_sketch(dots(p61=(0.25, 0.5), p146=(0.75, 0.5)), (128, 128))
    assert np.count_nonzero(thin[:, 64]) == 1
    assert np.count_nonzero(thick[:, 64]) == 7  # what OpenCV makes of 6


def test_a_black_and_white_sketch_grows_by_half_the_kernel() -> None:
    sketch = draw_sketch(golden.arrays("hyperlips_sketch")["lm_bgr"], (128, 128))
    np.testing.assert_array_equal(training_sketch(sketch), cv2.dilate(sketch, np.ones((5, 5), np.uint8)))


def test_lip_box_is_the_white_rectangle_and_no_grey() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[10:20, 30:50] = 255
    assert lip_box(mask, 64) == (10, 19, 30, 49)
    assert lip_box(mask, 128) == (21, 38, 61, 98)  # the outermost of 20..39 and 60..99 are grey
    mask[10, 30:50] = 254
    assert lip_box(mask, 64) == (11, 19, 30, 49)


def test_lips_outside_the_crop_are_an_error() -> None:
    outline = np.full((20, 2), 1.5) + np.random.default_rng(0).uniform(0, 0.2, (20, 2))
    mask = lip_mask(outline.astype(np.float32), (60, 50))
    with pytest.raises(ValueError, match=r"lip mask of 50x60 px has no white pixel at 128x128\. Expected .*--crop"):
        lip_box(mask, 128)


def test_outline_is_a_ring_in_order(expected: dict[str, np.ndarray]) -> None:
    outline = lip_outline(expected["lm_rgb"])
    assert outline.shape == (20, 2)
    assert outline.dtype == np.float32
    np.testing.assert_array_equal(outline[3], expected["lm_rgb"][LIP_OUTLINE[3], :2])
    area = cv2.contourArea(np.floor(outline * (130, 150)).astype(np.int32))
    assert area == pytest.approx(np.count_nonzero(expected["mask_native"]), rel=0.15)  # no edge crosses another


@pytest.mark.parametrize("points", [np.zeros((68, 2)), np.zeros((2, 478, 3)), np.zeros((478, 1))])
def test_other_landmarks_are_refused(points: np.ndarray) -> None:
    for function in (lip_outline, lambda x: draw_sketch(x, (64, 64))):
        with pytest.raises(ValueError, match=r"Expected \(478, 2\) or \(478, 3\)"):
            function(points)


def test_other_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"outline is \(19, 2\)\. Expected \(20, 2\)"):
        lip_mask(np.zeros((19, 2)), (64, 64))
    with pytest.raises(ValueError, match=r"window is 0\. Expected 1 or more"):
        smooth_landmarks(np.zeros((4, 478, 3)), 0)


def test_mediapipe_is_not_loaded_with_the_methods() -> None:
    code = "import sys, lipsync_bench.models; sys.exit('mediapipe' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
