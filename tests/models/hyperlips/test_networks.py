# SPDX-License-Identifier: Apache-2.0
"""The networks of HyperLips against stored outputs of the official classes, and what those outputs do not show."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_bench.models.hyperlips.base.encoder import MobileNetV3Encoder
from lipsync_bench.models.hyperlips.base.hyperconv import HyperConv
from lipsync_bench.models.hyperlips.base.network import ConvGRU, HyperLipsBaseGenerator
from lipsync_bench.models.hyperlips.discriminators import BaseDiscriminator, HRDiscriminator
from lipsync_bench.models.hyperlips.hr.network import HRDecoder
from lipsync_bench.models.hyperlips.sync_expert import HyperLipsSyncExpert
from tests import golden

NETWORKS = [
    (HyperLipsBaseGenerator, "hyperlips_base", 29_716_503),
    (BaseDiscriminator, "hyperlips_base_disc", 14_113_793),
    (lambda width=1.0: HRDecoder(1, width), "hyperlips_hr1", 133_443),
    (lambda width=1.0: HRDecoder(2, width), "hyperlips_hr2", 170_499),
    (lambda width=1.0: HRDecoder(4, width), "hyperlips_hr4", 281_667),
    (HRDiscriminator, "hyperlips_hr_disc", 1_887_873),
    (HyperLipsSyncExpert, "hyperlips_sync_expert", 22_991_744),
]
INPUTS: dict[str, list[tuple[int, ...]]] = {
    "hyperlips_base": [(2, 1, 80, 16), (2, 6, 128, 128)],
    "hyperlips_base_disc": [(1, 3, 2, 128, 128)],
    "hyperlips_hr1": [(2, 6, 128, 128)],
    "hyperlips_hr2": [(2, 6, 64, 64)],
    "hyperlips_hr4": [(2, 6, 32, 32)],
    "hyperlips_hr_disc": [(2, 3, 128, 128)],
    "hyperlips_sync_expert": [(2, 1, 80, 16), (2, 15, 64, 128)],
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def uniform(name: str, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Tensor:
    return torch.from_numpy(golden.uniform(name, shape, low, high))


def load(network: nn.Module, name: str) -> tuple[Any, dict[str, Tensor]]:
    """The network with the weights of the golden outputs, in evaluation mode, and these outputs."""
    network.load_state_dict(golden.filled(golden.names_and_shapes(name)), strict=True)
    return network.eval(), {key: torch.from_numpy(value) for key, value in golden.arrays(name).items()}


def record(network: nn.Module, names: list[str]) -> dict[str, Tensor]:
    """Outputs of these parts during the next forward, copied: later layers may work in place."""
    outputs: dict[str, Tensor] = {}

    def keeper(name: str) -> Callable[..., None]:
        return lambda module, arguments, output: outputs.__setitem__(name, output.clone())

    for name in names:
        network.get_submodule(name).register_forward_hook(keeper(name))
    return outputs


def assert_near(own: Tensor, stored: Tensor, scale: float = 1.0) -> None:
    """1e-5 of the scale (1 for what lies in [0, 1]): what float32 sums in another order may differ by."""
    assert own.shape == stored.shape
    assert (own - stored).abs().max() <= 1e-5 * scale


def assert_mean_and_deviation(own: Tensor, stored: dict[str, Tensor], name: str) -> None:
    """Of the whole tensor, of which only a part is stored."""
    deviation = float(stored[f"{name}_std"])
    assert float(own.double().mean()) == pytest.approx(float(stored[f"{name}_mean"]), abs=1e-5 * deviation)
    assert float(own.double().std(correction=0)) == pytest.approx(deviation, rel=1e-5)


def every_eighth(x: Tensor, cells: int) -> Tensor:
    """The stored part of a map: eight channels, at most `cells` columns."""
    step = max(1, x.shape[-1] // cells)
    channels = 1 if x.shape[1] == 3 else x.shape[1] // 8
    return x[:, ::channels, ::step, ::step]


# Against the official classes


@pytest.mark.parametrize(("network", "name", "parameters"), NETWORKS, ids=[name for _, name, _ in NETWORKS])
def test_names_and_shapes_are_the_official_ones_in_order(
    network: Callable[..., nn.Module], name: str, parameters: int
) -> None:
    own = network()
    shapes = {name: list(value.shape) for name, value in own.state_dict().items()}
    assert list(shapes.items()) == list(golden.names_and_shapes(name).items())
    assert sum(parameter.numel() for parameter in own.parameters()) == parameters


def test_base_generator_equals_the_official_outputs() -> None:
    generator, stored = load(HyperLipsBaseGenerator(), "hyperlips_base")
    suffixes = ("_mean", "_std")
    taps = [key.removeprefix("tap.") for key in stored if key.startswith("tap.") and not key.endswith(suffixes)]
    taps.remove("kernel0_first64")
    assert len(taps) == 29
    kernel = "hyper_control_net.dconv_down0.0.hyperkernel"
    outputs = record(generator, [*taps, kernel])
    with torch.no_grad():
        out = generator(
            uniform("hyperlips.base.mel", (2, 1, 80, 16), -4, 4), uniform("hyperlips.base.face", (2, 6, 128, 128))
        )
    assert_near(out[:, :, ::2, ::2], stored["out4"])
    assert_mean_and_deviation(out, stored, "out4")
    for name in taps:
        own, reference = outputs[name], stored[f"tap.{name}"]
        assert_mean_and_deviation(own, stored, f"tap.{name}")
        own = own if own.ndim == 2 else every_eighth(own, 8)
        assert_near(own, reference, float(reference.abs().max()))
    assert_near(
        outputs[kernel][:, :64], stored["tap.kernel0_first64"], float(stored["tap.kernel0_first64"].abs().max())
    )


def test_base_generator_equals_the_official_output_of_windows() -> None:
    generator, stored = load(HyperLipsBaseGenerator(), "hyperlips_base")
    audio, faces = (
        uniform("hyperlips.base5.mel", (2, 5, 1, 80, 16), -4, 4),
        uniform("hyperlips.base5.face", (2, 6, 5, 128, 128)),
    )
    with torch.no_grad():
        out = generator(audio, faces)
    assert_near(out[..., ::4, ::4], stored["out5"])
    assert_mean_and_deviation(out, stored, "out5")


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_hr_decoder_equals_the_official_output(scale: Any) -> None:
    decoder, stored = load(HRDecoder(scale), f"hyperlips_hr{scale}")
    taps = ["conv_base", "up_conv", "output_block.1"]
    outputs = record(decoder, taps)
    with torch.no_grad():
        out = decoder(uniform("hyperlips.hr.x", (2, 6, 128, 128)))
    assert_near(out[:, :, :: 2 * scale, :: 2 * scale], stored["out"])
    assert_mean_and_deviation(out, stored, "out")
    for name in taps:
        reference = stored[f"tap.{name}"]
        assert_near(every_eighth(outputs[name], 16), reference, float(reference.abs().max()))
        assert_mean_and_deviation(outputs[name], stored, f"tap.{name}")


def test_base_discriminator_equals_the_official_output() -> None:
    discriminator, stored = load(BaseDiscriminator(), "hyperlips_base_disc")
    outputs = record(discriminator, ["face_encoder_blocks.0", "face_encoder_blocks.6"])
    faces = uniform("hyperlips.base_disc.x", (2, 3, 5, 128, 128))
    with torch.no_grad():
        logit, out = discriminator.logit(faces), discriminator(faces)
    # The ten values are nearly equal: a tolerance of a thousandth of their deviation.
    torch.testing.assert_close(logit, stored["logit"], atol=5e-7, rtol=0)
    torch.testing.assert_close(out, stored["pred"], atol=2e-7, rtol=0)
    first, last = outputs.values()
    assert_near(first[:, ::8, ::16, ::16], stored["block0"], float(stored["block0"].abs().max()))
    assert_near(last[:, ::16], stored["block6"], float(stored["block6"].abs().max()))
    loss = F.binary_cross_entropy(out, torch.ones_like(out))
    assert float(loss) == pytest.approx(float(stored["perceptual_loss"]), rel=1e-6)


@pytest.mark.parametrize("size", [128, 256])
def test_hr_discriminator_equals_the_official_output(size: int) -> None:
    discriminator, stored = load(HRDiscriminator(), "hyperlips_hr_disc")
    faces = uniform(f"hyperlips.hr_disc{size}.x", (2, 3, size, size))
    with torch.no_grad():
        torch.testing.assert_close(discriminator.logit(faces), stored[f"logit{size}"], atol=5e-7, rtol=0)
        torch.testing.assert_close(discriminator(faces), stored[f"pred{size}"], atol=2e-7, rtol=0)


def test_sync_expert_equals_the_official_output() -> None:
    expert, stored = load(HyperLipsSyncExpert(), "hyperlips_sync_expert")
    with torch.no_grad():
        audio, face = expert(
            uniform("hyperlips.sync.mel", (2, 1, 80, 16), -4, 4), uniform("hyperlips.sync.face", (2, 15, 64, 128))
        )
    assert_near(audio, stored["audio_emb"], float(stored["audio_emb"].max()))
    assert_near(face, stored["face_emb"], float(stored["face_emb"].max()))
    cosine = F.cosine_similarity(audio, face)
    assert_near(cosine, stored["cos"])
    for label, name in ((1.0, "loss_y1"), (0.0, "loss_y0")):
        loss = F.binary_cross_entropy(cosine, torch.full_like(cosine, label))
        assert float(loss) == pytest.approx(float(stored[name]), rel=1e-5)


# Initialisation and width


def test_first_layer_has_the_default_initialisation_and_the_others_kaiming() -> None:
    encoder = MobileNetV3Encoder(6)
    first = encoder.features[0][0].weight
    bound = (6 * 9) ** -0.5  # the default is uniform
    assert 0.98 * bound < float(first.detach().abs().max()) <= bound
    last, depthwise = encoder.features[16][0].weight, encoder.features[15].block[1][0].weight
    assert float(last.detach().std()) == pytest.approx((2 / 960) ** 0.5, rel=0.02)
    assert float(last.detach().abs().max()) > 3 * (2 / 960) ** 0.5  # normal, not uniform
    assert float(depthwise.detach().std()) == pytest.approx((2 / (960 * 25)) ** 0.5, rel=0.02)
    excitation = encoder.features[15].block[2]
    assert not excitation.fc1.bias.any()
    assert not excitation.fc2.bias.any()
    norms = [layer for layer in encoder.features.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert [(norm.eps, norm.momentum) for norm in norms] == [(1e-5, 0.1)] + [(1e-3, 0.01)] * 45


@pytest.mark.parametrize("width", [0.125, 0.35])
@pytest.mark.parametrize(("network", "name"), [entry[:2] for entry in NETWORKS], ids=[name for _, name, _ in NETWORKS])
def test_narrow_networks_have_the_same_layers(network: Callable[..., nn.Module], name: str, width: float) -> None:
    narrow = network(width=width)
    assert list(narrow.state_dict()) == list(golden.names_and_shapes(name))
    with pytest.raises(ValueError, match="width is 0"):
        network(width=0)


@pytest.mark.parametrize(("network", "name"), [entry[:2] for entry in NETWORKS], ids=[name for _, name, _ in NETWORKS])
def test_narrow_networks_train(network: Callable[..., nn.Module], name: str) -> None:
    narrow = network(width=0.25)
    out = narrow(*(torch.rand(shape) for shape in INPUTS[name]))
    outputs = out if isinstance(out, tuple) else (out,)
    sum((x * torch.rand_like(x)).sum() for x in outputs).backward()
    for parameter_name, parameter in narrow.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name


def test_base_generator_learns_a_picture() -> None:
    generator = HyperLipsBaseGenerator(width=0.25)
    audio, faces, target = torch.randn(2, 1, 80, 16), torch.rand(2, 6, 64, 64), torch.zeros(2, 3, 64, 64)
    optimizer = torch.optim.Adam(generator.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        loss = (generator(audio, faces) - target).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


# Hyper-convolution


def test_hyper_convolution_of_a_batch_equals_that_of_its_samples() -> None:
    batched, single = HyperConv(12, 8), HyperConv(12, 8)
    single.load_state_dict(batched.state_dict())
    x, code, weight = torch.randn(3, 12, 10, 7), torch.randn(3, 8), torch.randn(3, 12, 10, 7)
    x1, code1, x2, code2 = (value.clone().requires_grad_() for value in (x, code, x, code))
    together = batched(x1, code1)
    one_by_one = torch.cat([single(x2[n : n + 1], code2[n : n + 1]) for n in range(3)])
    assert_near(together.detach(), one_by_one.detach(), float(together.detach().abs().max()))
    (together * weight).sum().backward()
    (one_by_one * weight).sum().backward()
    pairs = [(x1, x2), (code1, code2), *zip(batched.parameters(), single.parameters(), strict=True)]
    for own, other in pairs:
        assert own.grad is not None
        assert other.grad is not None
        assert_near(own.grad, other.grad, float(other.grad.abs().max()))


def test_hyper_convolution_reads_its_kernel_as_output_input_row_column() -> None:
    layer = HyperConv(4, 3)
    x, code = torch.randn(2, 4, 6, 5), torch.randn(2, 3)
    with torch.no_grad():
        out = layer(x, code)
        for n in range(2):
            kernel = (layer.hyperkernel.weight @ code[n] + layer.hyperkernel.bias).reshape(4, 4, 3, 3)
            bias = layer.hyperbias.weight @ code[n] + layer.hyperbias.bias
            torch.testing.assert_close(out[n : n + 1], F.conv2d(x[n : n + 1], kernel, bias, padding=1))


def test_speech_of_one_sample_does_not_reach_another() -> None:
    generator = HyperLipsBaseGenerator(width=0.25).eval()
    audio, faces = torch.randn(2, 1, 80, 16), torch.rand(2, 6, 64, 64)
    with torch.no_grad():
        before = generator(audio, faces)
        audio[1] += 1
        after = generator(audio, faces)
    torch.testing.assert_close(after[0], before[0])
    assert not torch.allclose(after[1], before[1])


# Dead weights


def dead_parts(gru: ConvGRU, of: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """What only the reset gate and the hidden state use; `of` a parameter gives itself or its gradient."""
    c = gru.channels
    gates, candidate = of(gru.ih[0].weight), of(gru.hh[0].weight)
    return [gates[:c], gates[:, c:], of(gru.ih[0].bias)[:c], candidate[:, c:]]


def live_parts(gru: ConvGRU, of: Callable[[Tensor], Tensor]) -> list[Tensor]:
    c = gru.channels
    gates, candidate = of(gru.ih[0].weight), of(gru.hh[0].weight)
    return [gates[c:, :c], of(gru.ih[0].bias)[c:], candidate[:, :c], of(gru.hh[0].bias)]


def gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def test_gru_equals_a_published_step_from_a_zero_state() -> None:
    gru = ConvGRU(6)
    x = torch.randn(2, 6, 9, 8)
    with torch.no_grad():
        h = torch.zeros_like(x)
        r, z = gru.ih(torch.cat([x, h], dim=1)).chunk(2, dim=1)
        c = gru.hh(torch.cat([x, r * h], dim=1))
        torch.testing.assert_close(gru(x), (1 - z) * h + z * c)


def test_dead_weights_have_zero_gradients_and_no_influence() -> None:
    generator = HyperLipsBaseGenerator(width=0.25)
    audio, faces = torch.randn(2, 1, 80, 16), torch.rand(2, 6, 64, 64)
    generator(audio, faces).square().sum().backward()
    grus = [module for module in generator.modules() if isinstance(module, ConvGRU)]
    assert len(grus) == 4
    changed = copy.deepcopy(generator).eval()
    generator.eval()
    with torch.no_grad():
        for gru, other in zip(grus, (m for m in changed.modules() if isinstance(m, ConvGRU)), strict=True):
            assert not any(part.any() for part in dead_parts(gru, gradient))
            assert all(part.any() for part in live_parts(gru, gradient))
            for part in dead_parts(other, lambda parameter: parameter):
                part.add_(torch.randn_like(part))
        assert torch.equal(changed(audio, faces), generator(audio, faces))
        live_parts(other, lambda parameter: parameter)[0].add_(1)
        assert not torch.equal(changed(audio, faces), generator(audio, faces))


# Shapes


def test_windows_are_independent_frames() -> None:
    generator = HyperLipsBaseGenerator(width=0.25).eval()
    audio, faces = torch.randn(2, 3, 1, 80, 16), torch.rand(2, 6, 3, 64, 64)
    with torch.no_grad():
        window = generator(audio, faces)
        assert window.shape == (2, 3, 3, 64, 64)
        for frame in range(3):
            torch.testing.assert_close(window[:, :, frame], generator(audio[:, frame], faces[:, :, frame]))


@pytest.mark.parametrize("shape", [(2, 1, 16, 80), (2, 1, 80, 15), (2, 80, 16), (3, 1, 80, 16), (2, 1, 1, 80, 16)])
def test_mels_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    generator = HyperLipsBaseGenerator(width=0.125).eval()
    with pytest.raises(
        ValueError, match=r"80 bands by 16 steps a face\. Use lipsync_bench\.datamodules\.media\.audio\.frame_mels"
    ):
        generator(torch.zeros(shape), torch.zeros(2, 6, 32, 32))


def test_windows_of_faces_without_windows_of_mels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected \(4, 1, 80, 16\)"):
        HyperLipsBaseGenerator(width=0.125).eval()(torch.zeros(2, 1, 80, 16), torch.zeros(2, 6, 2, 32, 32))


@pytest.mark.parametrize("size", [(128, 128), (50, 71), (33, 48)])
def test_base_generator_takes_any_size(size: tuple[int, int]) -> None:
    generator = HyperLipsBaseGenerator(width=0.125).eval()
    with torch.no_grad():
        assert generator(torch.zeros(1, 1, 80, 16), torch.rand(1, 6, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("size", [(128, 128), (6, 10), (30, 64)])
def test_hr_decoder_multiplies_the_size(scale: Any, size: tuple[int, int]) -> None:
    with torch.no_grad():
        out = HRDecoder(scale, width=0.125).eval()(torch.rand(1, 6, *size))
    assert out.shape == (1, 3, scale * size[0], scale * size[1])


def test_other_scales_are_refused() -> None:
    with pytest.raises(ValueError, match=r"scale is 3\. Expected 1, 2 or 4\."):
        HRDecoder(3)  # type: ignore[arg-type]


def test_base_discriminator_sees_lower_halves_frame_by_frame() -> None:
    discriminator = BaseDiscriminator(width=0.125).eval()
    faces = torch.rand(2, 3, 3, 128, 128)
    with torch.no_grad():
        before = discriminator(faces)
        assert before.shape == (6, 1)
        faces[..., :64, :] = 0
        assert torch.equal(discriminator(faces), before)
        faces[1, :, 2, 64:] = 0  # sample 1 of frame 2 is row 2 * 2 + 1
        changed = (discriminator(faces) != before).flatten()
    assert changed.tolist() == [False] * 5 + [True]
