# SPDX-License-Identifier: Apache-2.0
"""LPIPS against the outputs of the package and of torchmetrics; ImageNet's weights are not available.

The trunks are filled by the rule of the golden arrays, under the package's names (`net.slice1.0.weight`, ...), and
stored in files as torchvision names them; the heads are the package's own.
"""

import contextlib
import hashlib
import io
import warnings
from pathlib import Path
from typing import Any

import lpips as package
import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import lpips as others

from lipsync_bench.metrics.image.lpips import LPIPS, LPIPSNetwork, lpips
from tests import golden

NETS = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}
TORCHVISION_NAMES = {"alex": "alexnet", "vgg": "vgg16"}


def trunk(net: str) -> dict[str, Tensor]:
    """The filled trunk, by torchvision's names."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        network = package.LPIPS(net=net, pnet_rand=True, verbose=False)
    shapes = {f"net.{name}": tuple(value.shape) for name, value in network.net.named_parameters()}
    return {f"features.{name.partition('.')[2].partition('.')[2]}": x for name, x in golden.filled(shapes).items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of both trunks, with a classifier that is never read."""
    path = tmp_path_factory.mktemp("imagenet")
    for net, file in NETS.items():
        torch.save({**trunk(net), "classifier.6.bias": torch.zeros(1000)}, path / file)
    return path


@pytest.fixture(scope="module")
def networks(folder: Path) -> dict[str, LPIPSNetwork]:
    return {net: LPIPSNetwork(net, str(folder)) for net in NETS}  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, Tensor]:
    """The goldens' images, [-1, 1) -> 0..255."""
    x, y = (torch.from_numpy(golden.uniform(f"lpips_{name}", (2, 3, 64, 64), -1, 1)).double() for name in "xy")
    return (x + 1) * 127.5, (y + 1) * 127.5


@pytest.mark.parametrize("net", NETS)
def test_golden(net: str, networks: dict[str, LPIPSNetwork], inputs: tuple[Tensor, Tensor]) -> None:
    expected = golden.arrays("metrics")
    values = lpips(*inputs, networks[net]).tolist()
    assert values == pytest.approx(expected[f"lpips_{net}"], abs=1e-6)
    assert values == pytest.approx(expected[f"lpips_{net}_torchmetrics"], abs=1e-6)


@pytest.mark.parametrize("net", NETS)
def test_golden_layers_and_heads(net: str, networks: dict[str, LPIPSNetwork], inputs: tuple[Tensor, Tensor]) -> None:
    expected = golden.arrays("metrics")
    network = networks[net].network
    x, y = (image.float() / 127.5 - 1 for image in inputs)
    with torch.no_grad():
        _, layers = network(x, y, retPerLayer=True)
    assert torch.stack([layer.flatten() for layer in layers]).numpy() == pytest.approx(
        expected[f"lpips_{net}_layers"], abs=1e-6
    )
    heads = [float(head.model[1].weight.double().sum()) for head in network.lins]
    assert heads == pytest.approx(expected[f"lpips_{net}_linsum"], abs=1e-5)


@pytest.mark.parametrize("net", NETS)
def test_equals_torchmetrics_on_photographs(
    net: str, networks: dict[str, LPIPSNetwork], folder: Path, image_pairs: dict[str, Any], batched: Any
) -> None:
    other = others._LPIPS(pretrained=True, net=net, pnet_rand=True).eval()
    state = torch.load(folder / NETS[net], weights_only=True)
    for name, parameter in other.net.named_parameters():
        parameter.data.copy_(state[f"features.{name.partition('.')[2]}"])
    for target, pred in image_pairs["pairs_crop"]:
        x, y = batched(pred), batched(target)
        with torch.no_grad():
            expected = float(other(x / 255.0, y / 255.0, normalize=True))
        assert float(lpips(x, y, networks[net])) == pytest.approx(expected, rel=1e-5, abs=1e-6)
        assert expected > 1e-3


@pytest.mark.parametrize("net", NETS)
def test_identical_images_and_batches(
    net: str, networks: dict[str, LPIPSNetwork], inputs: tuple[Tensor, Tensor]
) -> None:
    x, y = inputs
    assert lpips(x, x, networks[net]).tolist() == [0.0, 0.0]
    singly = [float(lpips(x[k : k + 1], y[k : k + 1], networks[net])) for k in range(2)]
    assert lpips(x, y, networks[net]).tolist() == singly
    metric = LPIPS(networks[net])
    metric.update(x, y)
    assert float(metric.compute()) == pytest.approx(sum(singly) / 2, abs=1e-12)
    assert (metric.protocol, metric.frames) == (f"lpips_{net}", 2)
    assert not list(metric.parameters())


def test_grows_with_blur_and_noise(
    networks: dict[str, LPIPSNetwork], image_pairs: dict[str, Any], batched: Any
) -> None:
    target = batched(image_pairs["pairs_crop"][0][0])
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(target.shape, generator=random)
    for network in networks.values():
        blurred = [float(lpips(batched(p), batched(t), network)) for t, p in image_pairs["pairs_crop"][:2]]
        assert 0 < blurred[0] < blurred[1]
        noisy = [float(lpips((target + sigma * noise).clamp(0, 255), target, network)) for sigma in (0, 4, 8, 16)]
        assert noisy[0] == 0
        assert noisy == sorted(noisy)


def test_the_two_are_different_numbers(networks: dict[str, LPIPSNetwork], inputs: tuple[Tensor, Tensor]) -> None:
    alex, vgg = (lpips(*inputs, networks[net]) for net in NETS)
    assert (alex - vgg).abs().min() > 0.01


def test_has_a_gradient(networks: dict[str, LPIPSNetwork], inputs: tuple[Tensor, Tensor]) -> None:
    pred = inputs[0].clone().requires_grad_(True)
    lpips(pred, inputs[1], networks["alex"]).sum().backward()
    assert (pred.grad.flatten(1).norm(dim=1) > 0).all()
    assert all(parameter.grad is None for parameter in networks["alex"].parameters())


# Weights


@pytest.mark.parametrize("net", NETS)
def test_weights_are_the_files_frozen_and_known_by_their_hash(
    net: str, networks: dict[str, LPIPSNetwork], folder: Path
) -> None:
    network = networks[net]
    assert network.weights == hashlib.sha256((folder / NETS[net]).read_bytes()).hexdigest()
    assert LPIPS(network).weights == network.weights
    assert not any(parameter.requires_grad for parameter in network.parameters())
    network.train()
    assert not any(part.training for part in network.modules())


@pytest.mark.parametrize("net", NETS)
def test_a_missing_file_is_not_replaced_by_other_weights(
    net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    file, name = NETS[net], TORCHVISION_NAMES[net]
    cached = tmp_path / "cache" / "hub" / "checkpoints" / file
    # "random" is a folder like another here: this metric has no random weights.
    for weights, path in (("torchvision", cached), (str(tmp_path), tmp_path / file), ("random", Path("random", file))):
        with pytest.raises(FileNotFoundError) as error:
            LPIPSNetwork(net, weights)  # type: ignore[arg-type]
        assert str(error.value) == (
            f"{path}: no such file. Expected torchvision's ImageNet weights of {name}, {file}. Run where there is a "
            f"network: bench weights fetch {name}; or name its folder with LPIPSNetwork(weights=DIR)"
        )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"404: not found",
            r"cannot be read as a weight file \(\w+\).*\. Expected torchvision's ImageNet weights of alexnet",
        ),
        (b"", r"cannot be read as a weight file \(\w+\), 0 bytes"),
        ([1, 2], "is no flat mapping of names to tensors"),
        ("key", r"does not fit\. Missing: features\.10\.weight\. Unknown: none\. Other shape: none"),
        ("shape", r"does not fit\. Missing: none\. Unknown: none\. Other shape: features\.10\.weight \("),
    ],
)
def test_a_damaged_file_is_refused(content: Any, message: str, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / NETS["alex"]
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, list):
        torch.save(content, path)
    else:
        state = torch.load(folder / NETS["alex"], weights_only=True)
        last = state.pop("features.10.weight")
        torch.save(state if content == "key" else {**state, "features.10.weight": last[:-1]}, path)
    with pytest.raises(ValueError, match=message) as error:
        LPIPSNetwork("alex", str(tmp_path))
    assert str(error.value).startswith(f"{path}: ")
    assert "Delete it. Run where there is a network" in str(error.value)


def test_wrong_inputs(networks: dict[str, LPIPSNetwork]) -> None:
    with pytest.raises(ValueError, match=r"net is 'squeeze'. Expected one of alex, vgg"):
        LPIPSNetwork("squeeze")  # type: ignore[arg-type]
    for net, size in (("alex", 31), ("vgg", 16)):
        fits = torch.zeros(1, 3, size, size, dtype=torch.uint8)
        assert lpips(fits, fits, networks[net]).tolist() == [0.0]
        metric = LPIPS(networks[net])
        small = fits[..., :-1, :]
        found = rf"are {size - 1} x {size} pixels. Expected at least {size} x {size} for {net}"
        with pytest.raises(ValueError, match=found):
            metric.update(small, small)
        with pytest.raises(ValueError, match=r"pred and target have shape \(1, 1, .*Expected RGB.*expand"):
            metric.update(fits[:, :1], fits[:, :1])
        assert metric.frames == 0
