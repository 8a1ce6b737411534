# SPDX-License-Identifier: Apache-2.0
"""FID against given features, SciPy's and torchmetrics' arithmetic. The Inception network is in test_inception.py."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor
from torchmetrics.image.fid import _compute_fid

from lipsync_bench.metrics.image import fid as fid_module
from lipsync_bench.metrics.image.fid import FID, MIN_FRAMES, fid, frechet_distance, is_complete, pool, scorer
from lipsync_bench.metrics.image.inception import InceptionFeatures
from lipsync_bench.metrics.metric import Audio, ScoredClip, View
from tests import golden


class Means(InceptionFeatures):
    """Mean of each channel as the features of an image, because it is fast."""

    size = 3

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.weights = "test"

    def forward(self, images: Tensor) -> Tensor:
        return images.float().mean(dim=(2, 3))


@pytest.fixture(scope="module")
def features() -> tuple[Tensor, Tensor]:
    """The goldens' two sets."""
    a = torch.from_numpy(golden.uniform("fid_a", (300, 64)).astype(np.float64))
    b = torch.from_numpy(0.9 * golden.uniform("fid_b", (250, 64)).astype(np.float64) + 0.1)
    return a, b


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.mean(dim=0), torch.cov(x.T)


def test_golden(features):
    assert golden.arrays("metrics")["fid"].tolist() == pytest.approx([float(fid(*features))] * 2, abs=1e-8)


def test_equals_scipy_as_pytorch_fid_uses_it(features):
    (m1, s1), (m2, s2) = ((m.numpy(), s.numpy()) for m, s in map(moments, features))
    root = scipy.linalg.sqrtm(s1 @ s2).real
    expected = ((m1 - m2) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * np.trace(root)
    assert float(fid(*features)) == pytest.approx(expected, abs=1e-8)


def test_equals_torchmetrics_and_torch_fidelitys_eigenvalues(features):
    expected = _compute_fid(*moments(features[0]), *moments(features[1]))
    assert float(fid(*features)) == pytest.approx(float(expected), abs=1e-8)


def test_normal_distributions_with_known_distance():
    """Covariances that commute: the distance is that of the means and of the standard deviations."""
    random = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(5, 5, generator=random, dtype=torch.float64))[0]
    deviations = torch.rand(2, 5, generator=random, dtype=torch.float64)
    means = torch.randn(2, 5, generator=random, dtype=torch.float64)
    s1, s2 = (basis * deviation**2 @ basis.T for deviation in deviations)
    expected = (means[0] - means[1]).square().sum() + (deviations[0] - deviations[1]).square().sum()
    assert float(frechet_distance(means[0], s1, means[1], s2)) == pytest.approx(float(expected), abs=1e-12)


def test_singular_covariances_have_a_distance():
    """Fewer frames than features; against the singular values of the centred sets, which need no root."""
    random = torch.Generator().manual_seed(1)
    a, b = torch.randn(20, 64, generator=random).double(), 1 + torch.randn(30, 64, generator=random).double()
    x, y = ((side - side.mean(dim=0)) / (len(side) - 1) ** 0.5 for side in (a, b))
    trace = torch.linalg.svdvals(x @ y.T).sum()  # tr (X'X Y'Y)^(1/2) is the nuclear norm of X Y'
    expected = (a.mean(dim=0) - b.mean(dim=0)).square().sum() + x.square().sum() + y.square().sum() - 2 * trace
    assert float(fid(a, b)) == pytest.approx(float(expected), abs=1e-5)
    assert float(fid(a, a)) == pytest.approx(0, abs=1e-5)


def test_symmetric_zero_on_itself_and_unmoved_by_rotation(features):
    a, b = features
    assert float(fid(a, a)) == pytest.approx(0, abs=1e-10)
    assert float(fid(a, a)) >= 0
    assert float(fid(a, b)) == pytest.approx(float(fid(b, a)), abs=1e-10)
    basis = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(2), dtype=torch.float64))[0]
    assert float(fid(a @ basis, b @ basis)) == pytest.approx(float(fid(a, b)), abs=1e-10)


def test_grows_as_the_sets_move_apart(features):
    a, _ = features
    values = [float(fid(a * scale + shift, a)) for scale, shift in ((1, 0), (1, 0.1), (1, 0.2), (1.5, 0.2), (2, 0.2))]
    assert values == sorted(values)
    assert values[1] == pytest.approx(64 * 0.1**2, abs=1e-10)


def test_is_biased_with_few_frames():
    """Two halves of one set: the bias that the docstring describes exists and falls with the number of frames."""
    x = torch.randn(4000, 16, generator=torch.Generator().manual_seed(3))
    few, many = float(fid(x[:50], x[50:100])), float(fid(x[:2000], x[2000:]))
    assert 0 < many < 0.1 < few


# The class


def frames(count: int, seed: int, size: int = 8) -> Tensor:
    return torch.rand(count, 3, size, size + 2, generator=torch.Generator().manual_seed(seed)) * 255


def test_sides_may_differ_in_number_and_size():
    metric = FID(Means(), min_frames=10)
    pred, target = frames(20, 0), frames(13, 1, size=5)
    metric.update(pred[:7], target[:12])
    metric.update(pred[7:], target[12:])
    expected = fid(Means()(pred), Means()(target))
    assert float(metric.compute()) == pytest.approx(float(expected), rel=1e-9)
    assert (metric.frames, metric.target_frames) == (20, 13)


def test_features_of_the_target_can_be_shared():
    network = Means()
    images, shared = frames(20, 0), network(frames(12, 1))
    own, by_features = FID(network, min_frames=10), FID(network, min_frames=10)
    own.update(images, frames(12, 1))
    by_features.update(None, shared)
    by_features.update(network(images), None)
    assert torch.equal(own.compute(), by_features.compute())
    first = float(by_features.compute())
    by_features.update(network(images) + 50, None)
    assert float(by_features.compute()) > first  # not the value of before


@pytest.mark.parametrize(("pred", "target"), [(9, 30), (30, 9), (0, 30), (9, 9)])
def test_too_few_frames_are_refused(pred, target):
    metric = FID(Means(), min_frames=10)
    if pred:
        metric.update(torch.rand(pred, 3), None)
    metric.update(None, torch.rand(target, 3))
    message = rf"FID of {pred} frames against {target}. Expected at least 10 on each side.*min_frames=N"
    with pytest.raises(RuntimeError, match=message):
        metric.compute()
    metric.update(torch.rand(30, 3), torch.rand(30, 3))
    assert metric.compute() >= 0


def test_the_limit_is_the_number_of_features_unless_lowered():
    assert MIN_FRAMES == InceptionFeatures.size == FID(Means()).min_frames == 2048
    with pytest.raises(ValueError, match=r"min_frames is 1. Expected at least 2"):
        FID(Means(), min_frames=1)


def test_wrong_features_add_nothing():
    metric = FID(Means(), min_frames=2)
    good = torch.rand(5, 3)
    for bad, message in (
        (torch.rand(5, 4), r"pred_features has shape \(5, 4\). Expected 3 columns"),
        (torch.empty(0, 3), r"pred_features has shape \(0, 3\) and dtype torch.float32. Expected \(N, D\), floating"),
        (torch.ones(5, 3).int(), r"pred_features has shape \(5, 3\) and dtype torch.int32"),
        (torch.full((5, 3), float("nan")), "pred_features is not finite everywhere"),
    ):
        with pytest.raises(ValueError, match=message):
            metric.update(bad, good)
    assert (metric.frames, metric.target_frames) == (0, 0)
    with pytest.raises(
        ValueError, match=r"pred_features has shape \(1, 3\), target_features \(5, 3\). Expected two rows"
    ):
        fid(good[:1], good)
    with pytest.raises(ValueError, match="as many columns"):
        fid(good[:, :2], good)


def test_protocol_says_whose_it_is():
    assert FID(Means()).protocol == "fid_pytorch_fid"
    assert FID(Means()).weights == "test"
    assert not list(FID(Means()).parameters())


def test_missing_feature_files_give_no_value_and_are_named(tmp_path, caplog):
    (tmp_path / "a.f32").write_bytes(bytes(4 * 2048))
    value, frames = pool(None, [tmp_path / "a.f32"], [tmp_path / "b.f32"])
    assert (math.isnan(value), frames) == (True, 0)
    assert "1 feature files are missing" in caplog.text
    assert "b.f32" in caplog.text


class Sums:
    """In place of the network: one feature, the sum of an image."""

    size, weights = 1, "test"

    def __call__(self, images: Tensor) -> Tensor:
        return images.sum(dim=(1, 2, 3), dtype=torch.float32)[:, None]


@pytest.mark.parametrize("keep", [True, False])
def test_features_of_a_clip_are_complete_or_absent(tmp_path, keep):
    path = tmp_path / "features" / "a.f32"
    clip = ScoredClip(True, Audio(lambda: np.zeros(0), lambda: np.zeros(0)), {"fid": Sums()}, lambda *_: path)
    features = scorer(clip)
    boxes, points = np.zeros((1, 4)), np.zeros((1, 68, 2))
    for level in (1, 2):
        crops = [np.full((4, 4, 3), level, np.uint8)]
        features.update(View(False, crops, crops, boxes, crops, crops, points, 0.25, *[points] * 4, np.ones(1, bool)))
        assert not path.exists()
    assert features.result() == {}
    features.close(keep=keep)
    assert [file.name for file in path.parent.iterdir()] == (["a.f32"] if keep else [])
    if keep:
        assert np.fromfile(path, "<f4").tolist() == [48, 96]
        assert [is_complete(Sums(), path, crops) for crops in (1, 2, 3)] == [False, True, False]
    features.close(keep=False)  # once more, as after an exception between two rows
    assert path.is_file() == keep


@pytest.mark.parametrize("values", [[1.0, math.nan], [1.0, math.inf]])
def test_damaged_features_are_named(tmp_path, monkeypatch, values):
    monkeypatch.setattr(fid_module, "MIN_FRAMES", 2)
    for name, found in (("a", [1.0, 2.0]), ("b", values)):
        np.array(found, "<f4").tofile(tmp_path / f"{name}.f32")
    with pytest.raises(ValueError, match=r"b\.f32: damaged.*evaluate its method again"):
        pool(Sums(), [tmp_path / "a.f32"], [tmp_path / "b.f32"])
