# SPDX-License-Identifier: Apache-2.0
"""Face enhancement: which faces are found and how they are aligned, restored in batches and pasted."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lipsync_bench.datamodules.weights.store import Store
from lipsync_bench.inference import enhancing
from lipsync_bench.inference.enhancing import TEMPLATE, FaceEnhancer, align, make_enhancer
from lipsync_bench.models.pretrained.gfpgan import GFPGAN
from tests.weight_files import make_official


class Negative(GFPGAN):
    """Inverts faces, and remembers how many it has seen at once."""

    def __init__(self) -> None:
        super().__init__(0.01)
        self.batches: list[int] = []

    def forward(self, faces: Tensor) -> Tensor:
        self.batches.append(len(faces))
        return -faces


def noise(size_hw: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)


def landmarks(scale: float = 1.0, degrees: float = 0.0, shift: tuple[float, float] = (0, 0)) -> np.ndarray:
    """float32 (68, 2) of a face that is FFHQ's template, scaled, turned and moved; other points are NaN."""
    points = np.full((68, 2), np.nan)
    ring = 8 * np.stack([np.cos(np.arange(6)), np.sin(np.arange(6))], axis=1)
    ring -= ring.mean(axis=0)
    points[36:42], points[42:48] = TEMPLATE[0] + ring, TEMPLATE[1] + ring
    points[[30, 48, 54]] = TEMPLATE[2:]
    sin, cos = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    return (scale * points @ np.array([(cos, sin), (-sin, cos)]) + shift).astype(np.float32)


def test_a_face_like_the_template_is_its_own_alignment() -> None:
    frame = noise((512, 512))
    square = align(landmarks(), (512, 512))
    assert square is not None
    np.testing.assert_allclose(square.to_face, [(1, 0, 0), (0, 1, 0)], atol=1e-4)
    assert square.box == (0, 0, 512, 512)
    assert np.abs(square.cut(frame).astype(int) - frame).max() <= 8  # OpenCV samples at 1/32 pixel


@pytest.mark.parametrize(("scale", "degrees"), [(0.5, 0), (0.3, 25), (1.7, -40), (0.8, 180)])
def test_a_face_is_turned_scaled_and_moved(scale: float, degrees: float) -> None:
    shift = (300.0, 200.0)
    square = align(landmarks(scale, degrees, shift), (4000, 4000))
    assert square is not None
    cos, sin = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    to_frame = np.array([(cos, -sin, shift[0]), (sin, cos, shift[1]), (0, 0, 1)])
    np.testing.assert_allclose(np.vstack([square.to_face, (0, 0, 1)]) @ to_frame, np.eye(3), atol=2e-3)


def test_the_frame_is_grey_beyond_its_edge() -> None:
    square = align(landmarks(shift=(-100, 0)), (512, 512))
    assert square is not None
    face = square.cut(np.zeros((512, 512, 3), np.uint8))
    assert (face[200:300, :90] == (132, 133, 135)).all()  # facexlib's, which are (135, 133, 132) in BGR
    assert (face[200:300, 110:] == 0).all()
    assert square.box == (0, 0, 412, 512)


@pytest.mark.parametrize("scale", [0.4, 1.5])
def test_a_pasted_face_fades_into_the_frame_inside_its_square(scale: float) -> None:
    frame = np.full((600, 700, 3), 100, np.uint8)
    before = frame.copy()
    square = align(landmarks(scale, 10, (200, 60)), frame.shape[:2])
    assert square is not None
    out = square.paste(frame, np.full((512, 512, 3), 200, np.uint8))
    assert np.array_equal(frame, before)
    rows, columns = np.indices(frame.shape[:2])
    x, y = np.tensordot(square.to_face, np.stack([columns, rows, np.ones_like(rows)]), axes=1)
    to_edge = np.minimum(np.minimum(x, 511 - x), np.minimum(y, 511 - y))
    assert (out[to_edge < 0] == 100).all()
    assert (out[to_edge > 55] == 200).all()
    between = out[(to_edge > 10) & (to_edge < 40)]
    assert between.min() < 120 < 180 < between.max()
    assert ((out >= 100) & (out <= 200)).all()


def test_only_frames_with_a_face_change_and_the_others_are_counted() -> None:
    frames = [noise((600, 640), seed) for seed in range(6)] + [noise((300, 200), 6)]
    missing, no_nose = np.full((68, 2), np.nan), landmarks()
    no_nose[30] = np.nan
    points = [
        landmarks(),
        missing,
        landmarks(0.03),
        no_nose,
        landmarks(shift=(2000, 0)),
        landmarks(0.9),
        landmarks(0.3),
    ]
    before = [frame.copy() for frame in frames]
    network = Negative()
    out, unchanged = FaceEnhancer(network, batch_faces=2).enhance(frames, np.stack(points))
    assert unchanged == 4
    assert [new is old for new, old in zip(out, frames, strict=True)] == [False, True, True, True, True, False, False]
    assert all(np.array_equal(old, kept) for old, kept in zip(frames, before, strict=True))
    assert network.batches == [2, 1]
    middle = np.s_[100:400, 100:400]
    assert np.abs(out[0][middle].astype(int) - (255 - frames[0][middle])).max() <= 8
    for index in (5, 6):  # each face into its own frame
        square = align(points[index], frames[index].shape[:2])
        assert square is not None
        assert np.array_equal(out[index], square.paste(frames[index], 255 - square.cut(frames[index])))


def test_no_frames_and_no_faces_need_no_network() -> None:
    network = Negative()
    assert FaceEnhancer(network).enhance([], np.empty((0, 68, 2))) == ([], 0)
    frames = [noise((64, 64))]
    assert FaceEnhancer(network).enhance(frames, np.full((1, 68, 2), np.nan)) == (frames, 1)
    assert FaceEnhancer(network).enhance(frames, np.full((1, 68, 2), 30.0)) == (frames, 1)
    assert network.batches == []


@pytest.mark.parametrize(
    ("frames", "points"),
    [
        ([noise((64, 64))], np.zeros((2, 68, 2))),
        ([noise((64, 64))], np.zeros((1, 478, 2))),
        ([noise((64, 64)).astype(np.float32)], np.zeros((1, 68, 2))),
        ([noise((64, 64))[..., 0]], np.zeros((1, 68, 2))),
    ],
)
def test_other_shapes_and_types_are_refused(frames: list[np.ndarray], points: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"points are .* for 1 frames.*Expected \(N, 68, 2\) for N uint8 frames"):
        FaceEnhancer(Negative()).enhance(frames, points)


def test_the_name_tells_whose_weights_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"weights gfpgan_1_3: not in .*Run: bench weights fetch gfpgan_1_3"):
        make_enhancer(Store([tmp_path]))
    path = tmp_path / "face.pth"
    torch.save({"params_ema": {}}, path)
    monkeypatch.setattr(enhancing, "load_gfpgan", lambda path: GFPGAN(0.01))
    assert make_enhancer(Store(given={"gfpgan_1_3": path})).name.startswith("gfpgan-1.3 ")
    make_official(monkeypatch, "gfpgan_1_3", path)
    assert make_enhancer(Store([tmp_path])).name == "gfpgan-1.3"
