# SPDX-License-Identifier: Apache-2.0
"""E-Net of VideoReTalking against stored outputs of the official network; what network and module add to that.

Keys of videoretalking_enet.golden.npz: `out4`, every seventh pixel of the image for single frames and zero noise,
`low4`, every third of L-Net's; `out4_noise`, the same with given noise; `out4_stub`, with given faces in L-Net's place,
and `out4_stub_f64`, every eleventh pixel of that of the official network in float64; `out5`, `low5`, every ninth pixel
for windows; `*_stats`, mean and deviation of the whole; and parts of maps inside the network (`TAPS` says which).
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lipsync_bench.models.videoretalking.enet.network import ENet
from lipsync_bench.models.videoretalking.lnet.network import LNet
from tests import golden
from tests.models.videoretalking.near import assert_mean_and_deviation, assert_near

STORED = {key: torch.from_numpy(value) for key, value in golden.arrays("videoretalking_enet").items()}
TAPS: dict[str, tuple[str, int, int]] = {  # submodule, every n-th channel, every n-th pixel
    "style_code": ("final_linear", 1, 1),
    "down0": ("conv_body_down.0", 32, 7),
    "down5": ("conv_body_down.5", 1, 1),
    "style0": ("style_convs.0", 64, 7),
    "style1": ("style_convs.1", 64, 7),
    "rgb0": ("to_rgbs.0", 1, 7),
    "style3": ("style_convs.3", 32, 11),
}
SIDES = (200, 200, 400, 400)
SMALL: dict[str, Any] = {"width": 0.0625, "low_size": 16}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def uniform(name: str, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Tensor:
    return torch.from_numpy(golden.uniform(f"vrt/enet/{name}", shape, low, high))


def still(images: int) -> list[Tensor]:
    return [torch.zeros(images, 1, side, side) for side in SIDES]


class Stub(nn.Module):
    """Gives known faces in L-Net's place."""

    def __init__(self, faces: Tensor) -> None:
        super().__init__()
        self.faces = faces

    def forward(self, audio: Tensor, faces: Tensor) -> Tensor:
        self.seen = faces
        return self.faces


@pytest.fixture(scope="module")
def alone() -> ENet:
    """The published network without L-Net, with the weights of the golden outputs."""
    network = ENet(Stub(uniform("lowstub", (2, 3, 96, 96))))
    shapes = golden.names_and_shapes("videoretalking_enet")
    network.load_state_dict(golden.filled({k: v for k, v in shapes.items() if not k.startswith("low_res.")}))
    return network.eval()


@pytest.fixture(scope="module")
def official() -> ENet:
    """With L-Net; shared, more than half a gigabyte."""
    network = ENet(LNet())
    network.load_state_dict(golden.filled(golden.names_and_shapes("videoretalking_enet")), strict=True)
    return network.eval()


def frames4() -> tuple[Tensor, Tensor, Tensor]:
    audio = uniform("audio4", (2, 1, 80, 16), -4, 4)
    return audio, uniform("face4", (2, 6, 384, 384)), uniform("gt4", (2, 3, 384, 384))


# Against the official network


def test_names_and_shapes_are_the_official_ones_in_order() -> None:
    with torch.device("meta"):
        official = ENet(LNet())
    shapes = {name: list(value.shape) for name, value in official.state_dict().items()}
    assert list(shapes.items()) == list(golden.names_and_shapes("videoretalking_enet").items())
    assert len(shapes) == 1785
    assert sum(value.numel() for value in official.state_dict().values()) == 159_023_666


@pytest.mark.slow
def test_output_and_maps_equal_the_official_ones(official: ENet) -> None:
    """1e-4 for images whose deviation is near 1: float32 is not exacter."""
    maps: dict[str, Tensor] = {}

    def keeper(name: str) -> Callable[..., None]:
        return lambda module, arguments, output: maps.__setitem__(name, output.clone())

    hooks = [official.get_submodule(TAPS[name][0]).register_forward_hook(keeper(name)) for name in TAPS]
    with torch.no_grad():
        out, low = official(*frames4(), noise=still(2))
    for hook in hooks:
        hook.remove()
    assert_near(out[..., ::7, ::7], STORED["out4"], 1e-4)
    assert_mean_and_deviation(out, STORED["out4_stats"])
    assert_near(low[..., ::3, ::3], STORED["low4"], 1e-4)
    assert_mean_and_deviation(low, STORED["low4_stats"])
    for name, (_, channels, pixels) in TAPS.items():
        own = maps[name] if maps[name].ndim == 2 else maps[name][:, ::channels, ::pixels, ::pixels]
        assert_near(own, STORED[name], 3e-4 * float(STORED[name].std()))
    noise = [uniform(f"noise{k}", (2, 1, side, side), -1, 1) for k, side in enumerate(SIDES)]
    with torch.no_grad():
        noisy = official.enlarged(low, official.style(frames4()[1][:, 3:]), noise)
    assert_near(noisy[..., ::7, ::7], STORED["out4_noise"], 1e-4)
    assert_mean_and_deviation(noisy, STORED["out4_noise_stats"])


@pytest.mark.slow
def test_windows_equal_the_official_ones(official: ENet) -> None:
    face = uniform("face5", (2, 6, 2, 384, 384))
    face[:, :3, :, 192:] = 0
    with torch.no_grad():
        audio = uniform("audio5", (2, 2, 1, 80, 16), -4, 4)
        out, low = official(audio, face, uniform("gt5", (2, 3, 2, 384, 384)), noise=still(4))
    for name, own in (("out5", out), ("low5", low)):
        assert own.shape == (2, 3, 2, 384, 384)
        assert_near(own[..., ::9, ::9], STORED[name], 1e-4)
        assert_mean_and_deviation(own, STORED[f"{name}_stats"])


def test_another_network_in_the_place_of_l_net(alone: ENet) -> None:
    alone.low_res.faces = uniform("lowstub", (2, 3, 96, 96))[:1]
    with torch.no_grad():
        out, low = alone(*(x[:1] for x in frames4()), noise=still(1))
    assert_near(out[..., ::7, ::7], STORED["out4_stub"][:1], 1e-4)
    assert torch.equal(low, alone.low_res.faces)


@pytest.mark.slow
def test_float64_equals_the_official_float64(alone: ENet) -> None:
    alone.low_res.faces = uniform("lowstub", (2, 3, 96, 96))
    with torch.no_grad():
        out, _ = alone(*frames4(), noise=still(2))
        assert_mean_and_deviation(out, STORED["out4_stub_stats"])
        alone.low_res.faces = alone.low_res.faces.double()
        exact, _ = alone.double()(*(x.double() for x in frames4()), noise=[x.double() for x in still(2)])
    alone.float()
    assert_near(exact[..., ::11, ::11], STORED["out4_stub_f64"], 1e-9)


# The network in other sizes


def small() -> ENet:
    network = ENet(Stub(torch.rand(2, 3, 16, 16)), **SMALL)
    for layer in network.style_convs:
        nn.init.constant_(layer.weight, 0.1)  # of the noise, which a new network does not use
    return network


@pytest.mark.parametrize("size", [(16, 16), (256, 200), (100, 131)])
def test_any_input_size_and_who_sees_what(size: tuple[int, int]) -> None:
    network = small()
    face, gt = torch.rand(2, 6, *size), torch.rand(2, 3, *size)
    out, low = network(torch.rand(2, 1, 80, 16), face, gt, noise=network.no_noise(face))
    assert out.shape == (2, 3, 64, 64)
    assert low.shape == (2, 3, 16, 16)
    seen = network.low_res.seen
    assert seen.shape == (2, 6, 16, 16)
    if size == (16, 16):
        assert torch.equal(seen, torch.cat([face[:, :3], gt], dim=1))
    other, _ = network(torch.rand(2, 1, 80, 16), face, 1 - gt, noise=network.no_noise(face))
    assert torch.equal(out, other)  # the reference alone gives the identity
    face[:, 3:] = 1 - face[:, 3:]
    assert not torch.allclose(out, network(torch.rand(2, 1, 80, 16), face, gt, noise=network.no_noise(face))[0])
    out.sum().backward()
    assert all(value.grad is not None for name, value in network.named_parameters())


def test_noise_is_random_or_given() -> None:
    network = small().eval()
    inputs = torch.rand(2, 1, 80, 16), torch.rand(2, 6, 96, 96), torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        zeros = network.no_noise(inputs[0])
        still_one, still_two = (network(*inputs, noise=zeros)[0] for _ in range(2))
        random_one, random_two = (network(*inputs)[0] for _ in range(2))
        assert not torch.allclose(network(*inputs, noise=[x + 1 for x in zeros])[0], still_one)
    assert torch.equal(still_one, still_two)
    assert not torch.allclose(random_one, random_two)
    assert not torch.allclose(random_one, still_one)


def test_l_net_is_not_trained_along() -> None:
    network = ENet(LNet(width=0.125, blocks=1), **SMALL).train()
    assert network.training
    assert network.style_convs.training
    before = {name: value.clone() for name, value in network.low_res.state_dict().items()}
    out, low = network(torch.rand(1, 1, 80, 16), torch.rand(1, 6, 96, 96), torch.rand(1, 3, 96, 96))
    assert not any(part.training for part in network.low_res.modules())
    (out.sum() + low.sum()).backward()
    assert all(value.grad is None for value in network.low_res.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.low_res.state_dict().items())
    assert network.final_linear.weight.grad is not None


def test_impossible_inputs_are_refused() -> None:
    audio, face = torch.rand(2, 1, 80, 16), torch.rand(2, 6, 96, 96)
    with pytest.raises(ValueError, match=r"face is \(2, 6, 96, 96\), gt is \(2, 3, 384, 384\)\. Expected.*Resize"):
        small()(audio, face, torch.rand(2, 3, 384, 384))
    with pytest.raises(ValueError, match=r"face is \(2, 3, 96, 96\).*Expected 6 and 3 channels"):
        small()(audio, face[:, :3], face[:, :3])
    with pytest.raises(ValueError, match=r"3 noise maps\. Expected 4, or None"):
        small()(audio, face, face[:, :3], noise=still(2)[:3])
