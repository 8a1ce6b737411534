# SPDX-License-Identifier: Apache-2.0
"""Perceptual losses: whose weights they have and what they do without; values against the packages themselves.

ImageNet's weights are not here. Files of the same names and shapes are filled by the rule of the golden arrays, and
test_hyperlips.py compares losses with these weights with stored ones of the official code.
"""

import contextlib
import hashlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import lpips
import pytest
import pytorch_lightning as pl
import torch
import torchvision
from torch import Tensor

from lipsync_bench.models.core.checkpoints import RECORD, save_module
from lipsync_bench.models.hyperlips import HyperLipsBase, HyperLipsHR
from lipsync_bench.models.parts.perceptual import RANDOM, LPIPSLoss, VGGLoss, VGGPyramidLoss, backbone_file
from tests.models.training import loader, trainer_for
from tests.weight_files import make_official

LOSSES = [(LPIPSLoss, "vgg16", "vgg16-397923af.pth"), (VGGLoss, "vgg19", "vgg19-dcbb9e9d.pth")]


def images(seed: int) -> Tensor:
    return torch.rand((2, 3, 40, 48), generator=torch.Generator().manual_seed(seed))


def fit(module: HyperLipsBase | HyperLipsHR, folder: Path) -> pl.Trainer:
    trainer, batch = trainer_for(folder), loader(module.example_batch(1))
    trainer.fit(module, batch, batch)
    return trainer


def base_with(perceptual_weights: str) -> HyperLipsBase:
    return HyperLipsBase(width=0.125, sync_weight=0.0, adversarial_weight=0.0, perceptual_weights=perceptual_weights)


def hr_with(perceptual_weights: str, folder: Path) -> HyperLipsHR:
    save_module(HyperLipsBase(width=0.125), folder / "base.ckpt")
    return HyperLipsHR(
        width=0.125, base=str(folder / "base.ckpt"), adversarial_weight=0.0, perceptual_weights=perceptual_weights
    )


# Where the weights come from


@pytest.mark.parametrize(("loss", "name", "file"), LOSSES)
def test_a_missing_file_is_no_reason_to_take_other_weights(
    loss: Any, name: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    cached = tmp_path / "cache" / "hub" / "checkpoints" / file
    for weights, path in (("torchvision", cached), (str(tmp_path), tmp_path / file)):
        assert backbone_file(name, weights) == path  # type: ignore[arg-type]
        with pytest.raises(FileNotFoundError) as error:
            loss(weights)
        text = str(error.value)
        assert text.startswith(f"{path}: no such file. Expected torchvision's ImageNet weights of {name}, {file}. ")
        assert f"bench weights fetch {name};" in text
        assert "--model.init_args.perceptual_weights DIR" in text
        assert text.endswith("for smoke runs only: --model.init_args.perceptual_weights random")
        assert hasattr(torchvision.models, name)


def test_weights_are_found_in_the_store_under_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "mine.bin").write_bytes(b"what VGG-19 is taken for here")
    monkeypatch.chdir(tmp_path)
    make_official(monkeypatch, "vgg19", tmp_path / "weights" / "mine.bin")
    assert backbone_file("vgg19").samefile(tmp_path / "weights" / "mine.bin")
    assert backbone_file("vgg16").name == "vgg16-397923af.pth"  # as before: where it is expected


def test_a_training_stops_where_weights_are_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"vgg16-397923af\.pth: no such file"):
        fit(base_with(str(tmp_path / "none")), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"vgg19-dcbb9e9d\.pth: no such file"):
        fit(hr_with(str(tmp_path / "none"), tmp_path), tmp_path)


class Shout:
    """What a pickle can do when it is read."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("shouted"),))


@pytest.mark.parametrize(("loss", "name", "file"), LOSSES)
@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "list", "code", "key", "shape"])
def test_a_damaged_file_is_refused(
    loss: Any,
    name: str,
    file: str,
    damage: str,
    imagenet_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    source, path = imagenet_weights / file, tmp_path / file
    contents: dict[str, Any] = {"list": [1, 2], "code": {"features.0.weight": Shout()}}
    if damage in ("truncated", "empty", "text"):
        with source.open("rb") as original:
            head = original.read(1_000_000)
        path.write_bytes({"truncated": head, "empty": b"", "text": b"404: not found"}[damage])
    elif damage in contents:
        torch.save(contents[damage], path)
    else:
        shapes = {key: value.shape for key, value in torch.load(source, weights_only=True, mmap=True).items()}
        state = {key: torch.zeros(1).expand(shape) for key, shape in shapes.items()}  # small on the disk
        value = state.pop("features.28.weight")  # VGG-16's last
        torch.save(state if damage == "key" else {**state, "features.28.weight": value[:, :-1]}, path)
    found = {
        "list": "is no flat mapping",
        "code": r"asks for __builtin__\.getattr, which is not a tensor; nothing of it was run",
        "key": r"does not fit\. Missing: features\.28\.weight",
        "shape": r"does not fit\. Missing: none\. Unknown: none\. Other shape: features\.28\.weight",
    }
    with pytest.raises(ValueError, match=found.get(damage, r"cannot be read as a weight file \(\w+\)")) as error:
        loss(str(tmp_path))
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert f"Expected torchvision's ImageNet weights of {name}, {file}. Delete it. Run " in text
    assert "\n" not in text
    assert "weights_only" not in text
    assert not Path("shouted").exists()


@pytest.mark.parametrize(("loss", "name", "file"), LOSSES)
def test_weights_are_those_of_the_file_frozen_and_known_by_their_hash(
    loss: Any, name: str, file: str, imagenet_weights: Path
) -> None:
    module = loss(str(imagenet_weights))
    assert module.source_sha256 == hashlib.sha256((imagenet_weights / file).read_bytes()).hexdigest()
    state = torch.load(imagenet_weights / file, weights_only=True)
    convolutions = [
        layer for layer in module.modules() if isinstance(layer, torch.nn.Conv2d) and layer.out_channels > 1
    ]
    stored = [value for key, value in state.items() if key.startswith("features.") and key.endswith("weight")]
    assert len(convolutions) == len(stored) == {"vgg16": 13, "vgg19": 16}[name]
    for layer, value in zip(convolutions, stored, strict=True):
        assert torch.equal(layer.weight, value)
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert not any(part.training for part in module.modules())


@pytest.mark.parametrize(("loss", "name", "file"), LOSSES)
def test_random_weights_are_announced(loss: Any, name: str, file: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="lipsync_bench.models.parts.perceptual"):
        module = loss(RANDOM)
    assert module.source_sha256 == "random"
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{name} has RANDOM weights, as asked for")


# Values


def package_lpips(folder: Path) -> lpips.LPIPS:
    """The package with the weights of the file under its own names, slice1.0, slice1.2, slice2.5, ..."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        network = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).eval()
    state = torch.load(folder / "vgg16-397923af.pth", weights_only=True)
    for name, parameter in network.net.named_parameters():
        parameter.data.copy_(state[f"features.{name.partition('.')[2]}"])
    return network


def test_lpips_is_the_packages(imagenet_weights: Path) -> None:
    network, (a, b) = package_lpips(imagenet_weights), (images(0), images(1))
    with torch.no_grad():
        own, raw = (LPIPSLoss(str(imagenet_weights), normalised)(a, b) for normalised in (True, False))
        torch.testing.assert_close(own, network(2 * a - 1, 2 * b - 1).flatten(), rtol=1e-5, atol=0)
        torch.testing.assert_close(raw, network(a, b).flatten(), rtol=1e-5, atol=0)
        assert own.shape == (2,)
        assert (own - raw).abs().min() > 0.05 * own.min()
        assert not LPIPSLoss(str(imagenet_weights))(a, a).any()


def test_vgg_is_the_mean_difference_before_the_last_relu(imagenet_weights: Path) -> None:
    features = torchvision.models.vgg19(init_weights=False).features
    state = torch.load(imagenet_weights / "vgg19-dcbb9e9d.pth", weights_only=True)
    features.load_state_dict(
        {key.removeprefix("features."): state[key] for key in state if key.startswith("features.")}
    )
    assert isinstance(features[34], torch.nn.Conv2d)
    a, b = images(2), images(3)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        for normalised in (True, False):
            seen = []
            for x in (a, b):
                x = (x - mean[:, None, None]) / std[:, None, None] if normalised else x.clone()
                for layer in features[:35]:
                    x = layer(x)
                seen.append(x)
            assert float(seen[0].min()) < 0  # no ReLU
            own = VGGLoss(str(imagenet_weights), normalised)(a, b)
            torch.testing.assert_close(own, (seen[0] - seen[1]).abs().mean(), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("size", "scales"), [((64, 80), 3), ((40, 48), 2), ((16, 16), 1)])
def test_the_pyramid_sums_five_layers_over_the_sizes_that_are_large_enough(
    size: tuple[int, int], scales: int, imagenet_weights: Path
) -> None:
    loss = VGGPyramidLoss(str(imagenet_weights))
    assert len(loss.source_sha256) == 64
    network = torchvision.models.vgg19(init_weights=False)
    state = torch.load(imagenet_weights / "vgg19-dcbb9e9d.pth", weights_only=True)
    features = network.features[:30]
    wanted_keys = features.state_dict()
    features.load_state_dict({key: state[f"features.{key}"] for key in wanted_keys})
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    a, b = torch.rand((2, 2, 3, *size), generator=torch.Generator().manual_seed(0))
    wanted = torch.tensor(0.0)
    with torch.no_grad():
        for scale in range(scales):
            seen = []
            for x in (a, b):
                for _ in range(scale):
                    x = torch.nn.functional.avg_pool2d(x, 2)  # what halving bilinearly is
                x = (x - mean[:, None, None]) / std[:, None, None]
                maps = [x := layer(x) for layer in features]
                pools = [k for k, layer in enumerate(features) if isinstance(layer, torch.nn.MaxPool2d)]
                seen.append([maps[k + 2] for k in (-1, *pools[:4])])  # relu1_1, and behind each of the poolings
            wanted = wanted + sum((first - second).abs().mean() for first, second in zip(*seen, strict=True))
        torch.testing.assert_close(loss(a, b), wanted, rtol=1e-4, atol=0)
        assert loss(a, a) == 0


def test_the_pyramid_refuses_images_too_small_for_any_size() -> None:
    with pytest.raises(ValueError, match=r"\(15, 40\) pixels\. Expected 16 or more.*perceptual_weight 0"):
        VGGPyramidLoss(RANDOM)(*torch.rand(2, 1, 3, 15, 40))


@pytest.mark.parametrize(("loss", "name", "file"), LOSSES)
def test_gradients_reach_the_generated_image(loss: Any, name: str, file: str, imagenet_weights: Path) -> None:
    a, b = images(4).requires_grad_(), images(5).requires_grad_()
    loss(str(imagenet_weights))(a, b).sum().backward()
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()
    assert (a.grad != 0).float().mean() > 0.9


# In the modules


@pytest.mark.parametrize("method", ["base", "hr"])
def test_terms_and_checkpoints_say_that_weights_are_random(
    method: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = base_with(RANDOM) if method == "base" else hr_with(RANDOM, tmp_path)
    with caplog.at_level(logging.WARNING, logger="lipsync_bench.models.parts.perceptual"):
        trainer = fit(module, tmp_path)
    networks = {"vgg16"} if method == "base" else {"vgg16", "vgg19"}
    assert {record.getMessage().partition(" ")[0] for record in caplog.records} == networks
    perceptual = {"lpips_random_weights"} if method == "base" else {"vgg_random_weights", "lip_lpips_random_weights"}
    exact = {"l1"} if method == "base" else {"l1", "lip_l1"}
    expected = {f"{stage}/{term}" for stage in ("train", "val") for term in perceptual | exact | {"loss"}}
    assert set(trainer.callback_metrics) == expected
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    checkpoint = torch.load(tmp_path / "run.ckpt", weights_only=True)
    record = {key: value for key, value in checkpoint[RECORD].items() if "vgg" in key}
    assert record == ({"lpips_vgg16": "random"} if method == "base" else {"vgg19": "random", "lpips_vgg16": "random"})
    assert {name.partition(".")[0] for name in checkpoint["state_dict"]} <= {"generator", "base"}


@pytest.mark.parametrize("method", ["base", "hr"])
def test_terms_and_checkpoints_of_given_weights(method: str, imagenet_weights: Path, tmp_path: Path) -> None:
    module = base_with(str(imagenet_weights)) if method == "base" else hr_with(str(imagenet_weights), tmp_path)
    trainer = fit(module, tmp_path)
    assert not any("random" in name for name in trainer.callback_metrics)
    assert ("train/lpips" if method == "base" else "train/lip_lpips") in trainer.callback_metrics
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    record = torch.load(tmp_path / "run.ckpt", weights_only=True)[RECORD]
    assert len(record["lpips_vgg16"]) == 64
    assert len(record.get("vgg19", 64 * "-")) == 64
    assert isinstance(module.lpips_loss, LPIPSLoss)
    assert module.train().training
    assert not any(part.training for part in module.lpips_loss.modules())  # its dropout would be active
