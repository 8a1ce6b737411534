# SPDX-License-Identifier: Apache-2.0
"""Face Mesh on single images: what it finds does not depend on the images beside them.

Keys of hyperlips_sketch.golden.npz: `lm_bgr`, `lm_rgb`, meshes of one photograph of 150 x 130 in either channel
order, each found by a new Face Mesh in tracking mode, which looks at its first image as at a still one.
"""

import cv2
import numpy as np
import pytest
import skimage.data

from lipsync_bench.models.hyperlips.hr.face_mesh import MESH_POINTS, find_meshes
from tests import golden

NATIVE_WH = (130, 150)


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """The golden crop, RGB."""
    return np.ascontiguousarray(skimage.data.astronaut()[50:200, 160:290])


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)


def distance_px(own: np.ndarray, other: np.ndarray) -> float:
    """Of the points farthest apart, in pixels of the golden crop."""
    return float((np.abs(own - other)[:, :2] * NATIVE_WH).max())


def test_golden_meshes_in_both_channel_orders(photograph: np.ndarray) -> None:
    stored = golden.arrays("hyperlips_sketch")
    (rgb, bgr), found = find_meshes([photograph, photograph[..., ::-1]])
    assert found.all()
    # Equal to the bit where they were compared; the tolerance is for processors with other vector units.
    assert distance_px(rgb, stored["lm_rgb"]) < 0.05
    assert distance_px(bgr, stored["lm_bgr"]) < 0.05
    assert distance_px(rgb, bgr) > 1


def test_types_and_ranges(photograph: np.ndarray) -> None:
    meshes, found = find_meshes([photograph])
    assert (meshes.dtype, meshes.shape) == (np.float32, (1, MESH_POINTS, 3))
    assert (found.dtype, found.shape) == (np.bool_, (1,))
    assert meshes[..., :2].min() > 0
    assert meshes[..., :2].max() < 1
    meshes, found = find_meshes([])
    assert (meshes.shape, found.shape) == ((0, MESH_POINTS, 3), (0,))


def test_nothing_is_found_in_noise_and_the_mesh_is_zero(noise: np.ndarray, photograph: np.ndarray) -> None:
    meshes, found = find_meshes([noise, photograph, noise])  # nor is an earlier face remembered
    assert found.tolist() == [False, True, False]
    assert not meshes[[0, 2]].any()
    assert meshes[1].any()


def test_an_image_has_one_mesh_whatever_is_beside_it(noise: np.ndarray, photograph: np.ndarray) -> None:
    """Tracking would start from the face of the image before and give another mesh."""
    wide = skimage.data.astronaut()[30:220, 130:320]
    moved = [np.ascontiguousarray(np.roll(wide, shift, axis=1)) for shift in (0, 4, 8, 12)]
    images = [photograph, *moved, noise, photograph[:, ::-1], photograph]
    alone = np.concatenate([find_meshes([image])[0] for image in images])
    together, found = find_meshes(images)
    backwards, _ = find_meshes(images[::-1])
    assert found.tolist() == [True] * 5 + [False, True, True]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(backwards[::-1], alone)
    np.testing.assert_array_equal(together[0], together[-1])
    assert np.abs(np.diff(together[1:5, 4, 0]) - 4 / 190).max() < 0.01  # the nose moves along
    arrays = np.stack([cv2.resize(image, (128, 128)) for image in images])
    np.testing.assert_array_equal(find_meshes(arrays)[0], find_meshes(list(arrays))[0])


@pytest.mark.parametrize("image", [np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8)])
def test_other_images_are_refused(photograph: np.ndarray, image: np.ndarray) -> None:
    with pytest.raises(
        ValueError, match=r"image 1 is (float32 \(8, 8, 3\)|uint8 \(8, 8\))\. Expected uint8 \(H, W, 3\)"
    ):
        find_meshes([photograph, image])
