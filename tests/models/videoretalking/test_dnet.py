# SPDX-License-Identifier: Apache-2.0
"""D-Net of VideoReTalking against stored outputs of the official network; what network and module add to that.

Keys of videoretalking_dnet.golden.npz: `descriptor` and `flow_field` whole, `warp_image` and `fake_image` every fifth
pixel, `descriptor27` that of 27 frames; `*_f64`, the same of the official network in float64 (the flow every second,
the images every seventh pixel); `*_stats`, mean and deviation of the whole; and parts of maps inside the network
(`TAPS` says which).
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from lipsync_bench.models.videoretalking.dnet.network import DNet, warped
from tests import golden
from tests.models.videoretalking.near import assert_near

STORED = {key: torch.from_numpy(value) for key, value in golden.arrays("videoretalking_dnet").items()}
TAPS: dict[str, tuple[str, int, int]] = {  # submodule, every n-th channel, every n-th pixel
    "hourglass": ("warpping_net.hourglass", 32, 3),
    "edit_down0": ("editing_net.encoder.down0", 16, 9),
    "edit_res2": ("editing_net.decoder.res2", 32, 3),
    "edit_up0": ("editing_net.decoder.up0", 16, 17),
}
SMALL: dict[str, Any] = {"width": 0.125}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def uniform(name: str, *shape: int) -> Tensor:
    return torch.from_numpy(golden.uniform(f"vrt/dnet/{name}", shape, -1, 1))


@pytest.fixture(scope="module")
def official() -> DNet:
    network = DNet()
    network.load_state_dict(golden.filled(golden.names_and_shapes("videoretalking_dnet")), strict=True)
    return network.eval()


@pytest.fixture
def official_double(official: DNet) -> Iterator[DNet]:
    yield official.double()
    official.float()  # the values came from float32: nothing is lost


# Against the official network


def test_names_and_shapes_are_the_official_ones_in_order() -> None:
    with torch.device("meta"):
        official = DNet()
    shapes = {name: list(value.shape) for name, value in official.state_dict().items()}
    assert list(shapes.items()) == list(golden.names_and_shapes("videoretalking_dnet").items())
    assert len(shapes) == 304
    assert sum(value.numel() for value in official.state_dict().values()) == 22_519_109


def test_outputs_and_maps_equal_the_official_ones(official: DNet) -> None:
    """1e-4: the official float32 images are 5e-5 away from its own float64 images."""
    maps: dict[str, Tensor] = {}

    def keeper(name: str) -> Callable[..., None]:
        return lambda module, arguments, output: maps.__setitem__(name, output.clone())

    hooks = [official.get_submodule(TAPS[name][0]).register_forward_hook(keeper(name)) for name in TAPS]
    with torch.no_grad():
        out = official(uniform("image", 2, 3, 256, 256)[:1], uniform("coeff", 2, 73, 26)[:1])
        assert_near(official.mapping_net(uniform("coeff", 2, 73, 26)), STORED["descriptor"], 1e-5)
        assert_near(official.mapping_net(uniform("coeff27", 2, 73, 27)), STORED["descriptor27"], 1e-5)
    for hook in hooks:
        hook.remove()
    assert list(out) == ["flow_field", "warp_image", "fake_image"]
    assert_near(out["flow_field"], STORED["flow_field"][:1], 3e-4 * float(STORED["flow_field"].std()))
    for name in ("warp_image", "fake_image"):
        assert_near(out[name][..., ::5, ::5], STORED[name][:1], 1e-4)
    for name, (_, channels, pixels) in TAPS.items():
        tolerance = 3e-4 * float(STORED[name].std())
        assert_near(maps[name][:, ::channels, ::pixels, ::pixels], STORED[name][:1], tolerance)


@pytest.mark.slow
def test_both_images_and_their_means_equal_the_official_ones(official: DNet) -> None:
    with torch.no_grad():
        out = official(uniform("image", 2, 3, 256, 256), uniform("coeff", 2, 73, 26))
    for name in ("warp_image", "fake_image"):
        assert_near(out[name][..., ::5, ::5], STORED[name], 1e-4)
        whole = torch.stack([out[name].double().mean(), out[name].double().std(correction=0)])
        torch.testing.assert_close(whole, STORED[f"{name}_stats"], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_float64_equals_the_official_float64(official_double: DNet) -> None:
    with torch.no_grad():
        out = official_double(uniform("image", 2, 3, 256, 256).double(), uniform("coeff", 2, 73, 26).double())
    assert_near(out["flow_field"][..., ::2, ::2], STORED["flow_field_f64"], 1e-9)
    for name in ("warp_image", "fake_image"):
        assert_near(out[name][..., ::7, ::7], STORED[f"{name}_f64"], 1e-9)


# The network in other sizes


@pytest.mark.parametrize(("frames", "size"), [(25, (64, 64)), (26, (96, 64)), (40, (64, 128))])
def test_frames_sizes_and_dead_layers(frames: int, size: tuple[int, int]) -> None:
    network = DNet(**SMALL)
    image, coeff = torch.rand(2, 3, *size) * 2 - 1, torch.rand(2, 73, frames)
    out = network(image, coeff)
    assert out["flow_field"].shape == (2, 2, size[0] // 4, size[1] // 4)
    assert out["warp_image"].shape == out["fake_image"].shape == image.shape
    assert list(network(image, coeff, stage="warp")) == ["flow_field", "warp_image"]
    torch.testing.assert_close(network(image, coeff, "warp")["warp_image"], out["warp_image"])
    sum(value.sum() for value in out.values()).backward()
    without = {name for name, value in network.named_parameters() if value.grad is None}
    assert without == {name for name in network.state_dict() if ".conv1." in name or ".norm1." in name}
    assert len(without) == 6 * 8


def test_a_flow_moves_pixels() -> None:
    """Sampling has its border elsewhere than the flow's grid, so that no flow at all stretches the image a little."""
    image = torch.rand(1, 3, 64, 64)
    flow = torch.zeros(1, 2, 16, 16)
    still = warped(image, flow)
    assert (still - image)[..., 24:40, 24:40].abs().mean() < 0.2
    flow[:, 0] = 1  # of 16 pixels: four and a bit of 64 to the right
    moved = warped(image, flow)
    assert (moved[..., :, 8:40] - still[..., :, 12:44]).abs().mean() < (moved - still)[..., 8:40].abs().mean()
    assert moved[..., -1].abs().max() == 0


@pytest.mark.parametrize(
    ("image", "coeff", "message"),
    [
        ((1, 3, 100, 96), (1, 73, 26), r"images of 100 x 96\. Expected multiples of 32.*Resize"),
        ((1, 3, 32, 32), (1, 73, 26), r"images of 32 x 32\. Expected multiples of 32.*Resize"),
        ((1, 3, 64, 64), (1, 73, 24), r"coeff is \(1, 73, 24\)\. Expected \(N, 73, T\) with 25 frames or more.*Repeat"),
        ((1, 3, 64, 64), (1, 70, 26), r"coeff is \(1, 70, 26\)\. Expected"),
        ((1, 3, 64, 64), (1, 73), r"coeff is \(1, 73\)\. Expected"),
    ],
)
def test_impossible_inputs_are_refused(image: tuple[int, ...], coeff: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DNet(**SMALL)(torch.zeros(image), torch.zeros(coeff))
