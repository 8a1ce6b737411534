# SPDX-License-Identifier: Apache-2.0
"""FID's Inception network against torchvision's own with other poolings; the published weights are not available.

They are filled by the rule of the golden arrays, in a file as pytorch-fid's, without the counters of batches.
"""

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from lipsync_bench.metrics.image.fid import FID
from lipsync_bench.metrics.image.inception import FILE, InceptionFeatures, inception_input
from tests import golden


def stock() -> torchvision.models.Inception3:
    return torchvision.models.Inception3(1008, aux_logits=False, init_weights=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inception")
    shapes = {name: tuple(value.shape) for name, value in stock().state_dict().items() if "num_batches" not in name}
    # Half of the variance is lost in each ReLU: without the factor nothing of the image would reach the last layer.
    state = {name: x * 2**0.5 if name.endswith("conv.weight") else x for name, x in golden.filled(shapes).items()}
    torch.save(state, path / FILE)
    return path


@pytest.fixture(scope="module")
def network(folder: Path) -> InceptionFeatures:
    return InceptionFeatures(weights=str(folder))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.from_numpy(golden.uniform("fid_image", (2, 3, 160, 400), 0, 255)).round()


def test_golden_resize(images: Tensor) -> None:
    out = inception_input(images)
    assert out.shape == (2, 3, 299, 299)
    assert out.dtype == torch.float32
    expected = golden.arrays("metrics")["fid_resize_pytorchfid"]
    assert out[:, :, ::37, ::37].numpy() == pytest.approx(expected, abs=5e-5)


def test_images_of_299_pixels_are_only_scaled() -> None:
    image = torch.randint(0, 256, (1, 3, 299, 299), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    torch.testing.assert_close(inception_input(image), image / 255 * 2 - 1, rtol=0, atol=1e-6)


def average_or_max(x: Tensor, **how: int) -> Tensor:
    """The published network's max pooling, where torchvision averages: only its last block sees 2048 channels."""
    if x.shape[1] == 2048:
        return F.max_pool2d(x, **how)
    return F.avg_pool2d(x, **how, count_include_pad=False)


def test_equals_torchvision_with_the_poolings_exchanged(
    network: InceptionFeatures, folder: Path, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = stock()
    incomplete = other.load_state_dict(torch.load(folder / FILE, weights_only=True), strict=False)
    assert not incomplete.unexpected_keys
    assert all("num_batches_tracked" in name for name in incomplete.missing_keys)
    other.fc = nn.Identity()
    other.requires_grad_(False).eval()
    images = images * torch.tensor([1.0, 0.5]).reshape(2, 1, 1, 1)
    ready = inception_input(images)
    features = network(images)
    unchanged = other(ready)
    shim = SimpleNamespace(**{**vars(F), "avg_pool2d": average_or_max})
    monkeypatch.setattr(torchvision.models.inception, "F", shim)
    expected = other(ready)
    assert features.shape == (2, InceptionFeatures.size)
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-6)
    assert (expected - unchanged).abs().max() > 100 * (features - expected).abs().max()
    assert features[0].std() > 0
    assert (features[0] - features[1]).abs().max() > 0.01 * features.abs().max()


def test_features_of_an_image_do_not_depend_on_the_batch(network: InceptionFeatures, images: Tensor) -> None:
    both = network(images)
    torch.testing.assert_close(both[1:], network(images[1:]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(both, network(images.to(torch.uint8)), rtol=1e-5, atol=1e-6)


def test_weights_are_the_files_frozen_and_known_by_their_hash(network: InceptionFeatures, folder: Path) -> None:
    assert network.weights == hashlib.sha256((folder / FILE).read_bytes()).hexdigest()
    state = torch.load(folder / FILE, weights_only=True)
    own = network.layers.state_dict()
    assert (
        len([name for name in own if "num_batches" not in name]) == 94 * 5 == len(state) - 2
    )  # all but the classifier
    assert all(torch.equal(own[name], value) for name, value in state.items() if not name.startswith("fc."))
    network.train()
    assert not any(part.training for part in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_fid_of_a_few_frames(network: InceptionFeatures) -> None:
    random = torch.Generator().manual_seed(1)
    real = torch.rand(4, 3, 40, 30, generator=random) * 255
    metric = FID(network, min_frames=2)
    metric.update(real, real)
    assert (metric.frames, metric.protocol) == (4, "fid_pytorch_fid")
    assert torch.equal(metric.pred_sum, metric.target_sum)
    assert metric.pred_outer.shape == (2048, 2048)


def test_a_missing_file_is_not_replaced_by_other_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    cached = tmp_path / "cache" / "hub" / "checkpoints" / FILE
    for weights, path in (("torchvision", cached), (str(tmp_path), tmp_path / FILE)):
        with pytest.raises(FileNotFoundError) as error:
            InceptionFeatures(weights=weights)
        text = str(error.value)
        assert text.startswith(f"{path}: no such file. Expected the weights of pytorch-fid, {FILE}. Run where ")
        assert "bench weights fetch inception_fid; or name its folder with InceptionFeatures(weights=DIR)" in text


def test_imagenet_weights_are_refused(tmp_path: Path) -> None:
    """torchvision's own file: the same names, but 1000 classes, and not the features of FID."""
    state = torchvision.models.Inception3(1000, aux_logits=False, init_weights=False).state_dict()
    torch.save({name: torch.zeros(()).expand(value.shape) for name, value in state.items()}, tmp_path / FILE)
    with pytest.raises(
        ValueError, match=r"Missing: none\. Unknown: none\. Other shape: fc\.weight \(1000, 2048\) instead"
    ):
        InceptionFeatures(weights=str(tmp_path))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(2, 1, 40, 40), r"images: shape \(2, 1, 40, 40\). Expected a tensor \(B, 3, H, W\), RGB.*expand"),
        (torch.zeros(2, 40, 40, 3), r"images: shape \(2, 40, 40, 3\). Expected a tensor \(B, 3, H, W\).*permute"),
        (torch.zeros(3, 40, 40), r"images: shape \(3, 40, 40\). Expected a tensor"),
        (torch.zeros(0, 3, 40, 40), r"images: shape \(0, 3, 40, 40\). Expected .*nothing empty"),
        (torch.zeros(1, 3, 40, 40) - 1, "images has values from -1 to -1. Expected 0..255"),
        (torch.zeros(1, 3, 40, 40).numpy(), r"images: ndarray. Expected a tensor"),
    ],
)
def test_wrong_images(bad: Any, message: str, network: InceptionFeatures) -> None:
    metric = FID(network, min_frames=2)
    with pytest.raises(ValueError, match=message):
        metric.update(bad, bad)
    assert metric.frames == 0
