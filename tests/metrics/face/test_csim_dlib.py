# SPDX-License-Identifier: Apache-2.0
"""Identity similarity: dlib's own crop and embedding, frames without landmarks, and what an evaluation computes."""

import math
from dataclasses import replace
from pathlib import Path

import dlib
import numpy as np
import pytest
import skimage
import torch

from lipsync_bench.datamodules.faces.detectors import detect_landmarks68
from lipsync_bench.datamodules.faces.dlib_models import EMBEDDING, dlib_model
from lipsync_bench.metrics.face.csim_dlib import CSIMDlib, FaceEmbedding, csim_dlib, load, scorer
from lipsync_bench.metrics.metric import Audio, ScoredClip, View
from tests.metrics.conftest import blur
from tests.metrics.contract import Case, by_function


class TinyEmbedding(FaceEmbedding):
    """Three colours at the first landmark as the embedding, because it is fast."""

    calls = 0

    def __init__(self) -> None:
        self.weights = "test"

    def __reduce__(self):
        return TinyEmbedding, ()

    def __call__(self, image: np.ndarray, points: np.ndarray) -> np.ndarray:
        type(self).calls += 1
        x, y = np.clip(np.rint(points[0]).astype(int), 0, 9)
        return image[y, x].astype(np.float64) + 1


def face_batch(seed: int) -> tuple[torch.Tensor, ...]:
    random = torch.Generator().manual_seed(seed)
    images = torch.rand(2, seed + 1, 3, 12, 10, generator=random) * 255
    points = torch.rand(2, seed + 1, 68, 2, generator=random) * 9
    points[0, 0] += torch.nan if seed == 1 else 0
    return *images, *points


CASES = {
    "csim_dlib": Case(
        lambda **options: CSIMDlib(TinyEmbedding(), **options),
        face_batch,
        by_function(lambda *batch: csim_dlib(*batch, TinyEmbedding())),
        "csim_dlib",
    )
}


@pytest.fixture(scope="module")
def network():
    return FaceEmbedding()


@pytest.fixture(scope="module")
def face():
    image = skimage.data.astronaut()
    return image, detect_landmarks68(image)[1]


def images(*arrays: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


def test_equals_dlibs_own_crop_and_embedding(network, face):
    image, points = face
    detection = dlib.full_object_detection(
        dlib.rectangle(0, 0, 10, 10), [dlib.point(int(x), int(y)) for x, y in points]
    )
    model = dlib.face_recognition_model_v1(str(dlib_model(EMBEDDING, "")))
    expected = np.array(model.compute_face_descriptor(image, detection, 0, 0.25))
    assert expected.shape == (128,)
    np.testing.assert_allclose(network(image, points), expected, atol=1e-12)


def test_jaw_brows_and_lower_lip_do_not_move_the_crop(network, face):
    image, points = face
    left_out = [*range(27), *range(55, 60), *range(65, 68)]
    moved, others = points.copy(), points.copy()
    moved[left_out] += 9
    others[27:55] += 9
    np.testing.assert_array_equal(network(image, moved), network(image, points))
    assert np.abs(network(image, others) - network(image, points)).max() > 0.01


def test_a_blurred_face_is_further_away_than_a_shifted_one(network, face):
    image, points = face
    shifted = np.ascontiguousarray(np.roll(image, 4, axis=1))
    pred = images(image, shifted, blur(image, 6))
    values = csim_dlib(
        pred,
        images(image, image, image),
        np.stack([points, points + np.array([4, 0]), points]),
        np.stack([points] * 3),
        network,
    )
    assert values[0] == pytest.approx(1, abs=1e-12)
    assert values[1] == pytest.approx(1, abs=1e-9)  # the crop follows the landmarks
    assert values[2] < 0.97
    one = network(image, points), network(blur(image, 6), points)
    assert values[2] == pytest.approx(float(one[0] @ one[1]) / math.prod(map(np.linalg.norm, one)), abs=1e-12)


def test_frames_without_landmarks_are_counted_and_left_out():
    metric = CSIMDlib(TinyEmbedding())
    metric.update(*face_batch(1))  # two frames, one of them without
    assert (metric.frames, metric.skipped_frames) == (2, 1)
    assert metric.compute() == csim_dlib(*face_batch(1), TinyEmbedding())[1]


def clip(paired: bool = True, asked: bool = True) -> ScoredClip:
    networks = {"csim_dlib": TinyEmbedding()} if asked else {}
    return ScoredClip(paired, Audio(lambda: np.zeros(0), lambda: np.zeros(0)), networks, lambda *_: Path("none"))


def view(seed: int = 3) -> View:
    pred, target, at_pred, at_target = (x.numpy() for x in face_batch(seed))
    frames = [list(x.astype(np.uint8).transpose(0, 2, 3, 1)) for x in (pred, target)]
    lost = at_pred + np.where(np.arange(len(pred)) == 2, np.nan, 0)[:, None, None]
    return View(
        is_target=False, frames=frames[0], target_frames=frames[1], face_boxes=np.zeros((4, 4)), crops=[],
        target_crops=[], lips=lost[:0], mouth_margin=0.25, landmarks=lost, target_landmarks=at_target,
        frame_landmarks=at_pred, target_frame_landmarks=at_target, face_found=np.ones(4, bool),
    )  # fmt: skip


def test_in_an_evaluation_each_target_is_embedded_once_and_the_ground_truth_not_at_all():
    chunk, TinyEmbedding.calls = view(), 0
    first, second, ground_truth = (scorer(clip()) for _ in range(3))
    first.update(chunk)
    assert TinyEmbedding.calls == 3 + 3  # of four frames one has no landmarks
    second.update(chunk)
    ground_truth.update(replace(chunk, is_target=True))
    assert TinyEmbedding.calls == 3 + 3 + 3
    pred, target, at_pred, at_target = face_batch(3)
    expected = csim_dlib(pred.floor(), target.floor(), at_pred, at_target, TinyEmbedding())[[0, 1, 3]]
    assert first.result() == second.result()
    assert first.result()["csim_dlib"] == pytest.approx(float(expected.mean()), abs=1e-12)
    assert first.result()["csim_dlib_skipped_frames"] == 1
    assert ground_truth.result() == {"csim_dlib": 1.0, "csim_dlib_skipped_frames": 1}


def test_is_computed_only_with_a_target_and_if_asked_for():
    assert scorer(clip(paired=False)) is None
    assert scorer(clip(asked=False)) is None


def test_weights_are_the_installed_file_or_a_given_one(network, tmp_path):
    assert network.weights == "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
    (tmp_path / "other.dat").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"other.dat cannot be read. Expected dlib_face_recognition"):
        load("csim_dlib", tmp_path / "other.dat", "cpu")
    with pytest.raises(FileNotFoundError, match=r"none.dat not found. Expected dlib_face_recognition"):
        load("csim_dlib", tmp_path / "none.dat", "cpu")


GOOD = face_batch(2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: GOOD[0][:, :1], 1: GOOD[1][:, :1]}, r"pred has shape \(3, 1, 12, 10\). Expected RGB"),
        ({0: GOOD[0][:2]}, r"pred has shape \(2, 3, 12, 10\), target \(3, 3, 12, 10\)"),
        ({2: GOOD[2][:, :20]}, r"landmarks_pred has shape \(3, 20, 2\).*Expected \(3, 68, 2\)"),
        ({3: GOOD[3].bool()}, "landmarks_target has shape .*bool"),
        ({3: GOOD[3] / 0}, "landmarks_target has infinite values"),
    ],
)
def test_wrong_arguments(change, message):
    metric = CSIMDlib(TinyEmbedding())
    with pytest.raises(ValueError, match=message):
        metric.update(*(change.get(k, GOOD[k]) for k in range(4)))
    assert metric.frames == 0
