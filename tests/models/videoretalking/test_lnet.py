# SPDX-License-Identifier: Apache-2.0
"""L-Net of VideoReTalking against stored outputs of the official network; what network and module add to that.

Keys of videoretalking_lnet.golden.npz: `out4`, `out5`, every third pixel of the output for single frames and windows;
`out4_f64`, the same of the official network in float64; `*_stats`, mean and deviation of the whole; and parts of maps
inside the network, for the single frames (`TAPS` says which).
"""

import copy
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_bench.models import list_methods, load_method
from lipsync_bench.models.core.checkpoints import RECORD, save_module
from lipsync_bench.models.core.inputs import FaceInputs
from lipsync_bench.models.videoretalking import VideoReTalkingLNet
from lipsync_bench.models.videoretalking.blocks import LayerNorm2d, SpectralConv2d
from lipsync_bench.models.videoretalking.lnet.ffc import FFCResidualBlock, FourierUnit
from lipsync_bench.models.videoretalking.lnet.module import shown_to_expert
from lipsync_bench.models.videoretalking.lnet.network import LNet
from lipsync_bench.models.wav2lip.sync_expert import SyncExpertModule
from tests import golden
from tests.models.training import loader, trainer_for
from tests.models.videoretalking.near import assert_mean_and_deviation, assert_near

STORED = {key: torch.from_numpy(value) for key, value in golden.arrays("videoretalking_lnet").items()}
TAPS: dict[str, tuple[str, int, int]] = {  # submodule, every n-th channel, every n-th pixel
    "audio_feat": ("audio_encoder", 1, 1),
    "enc_level1": ("encoder.inp_down1", 32, 2),
    "ref_level2": ("encoder.ref_down2", 32, 1),
    "cross_att": ("encoder.ca2", 32, 1),
    "dec_res2_block0": ("decoder.res2.res0", 64, 1),
    "dec_res2": ("decoder.res2", 64, 1),
    "dec_up2": ("decoder.up2", 32, 2),
    "dec_jump2": ("decoder.jump2", 32, 2),
    "dec_res1": ("decoder.res1", 32, 2),
    "dec_res0": ("decoder.res0", 16, 4),
    "dec_up0": ("decoder.up0", 16, 5),
}
SMALL: dict[str, Any] = {"width": 0.125, "blocks": 1}
ALONE: dict[str, Any] = {**SMALL, "sync_weight": 0.0, "perceptual_weight": 0.0}  # without expert and ImageNet


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def uniform(name: str, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Tensor:
    return torch.from_numpy(golden.uniform(f"vrt/lnet/{name}", shape, low, high))


@pytest.fixture(scope="module")
def official() -> LNet:
    """The published network with the weights of the golden outputs; shared, half a gigabyte."""
    network = LNet()
    network.load_state_dict(golden.filled(golden.names_and_shapes("videoretalking_lnet")), strict=True)
    return network.eval()


@pytest.fixture
def official_double(official: LNet) -> Iterator[LNet]:
    yield official.double()
    official.float()  # the values came from float32: nothing is lost


@pytest.fixture(scope="module")
def small_expert(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("expert") / "small.ckpt"
    save_module(SyncExpertModule(width=0.125), path)
    return str(path)


def frames_of(size: tuple[int, int] = (96, 96), batch: int = 2) -> tuple[Tensor, Tensor]:
    return torch.rand(batch, 1, 80, 16) * 8 - 4, torch.rand(batch, 6, *size)


# Against the official network


def test_names_and_shapes_are_the_official_ones_in_order(official: LNet) -> None:
    shapes = {name: list(value.shape) for name, value in official.state_dict().items()}
    assert list(shapes.items()) == list(golden.names_and_shapes("videoretalking_lnet").items())
    assert len(shapes) == 1721
    assert sum(value.numel() for value in official.state_dict().values()) == 127_826_085


def test_output_and_maps_equal_the_official_ones(official: LNet) -> None:
    """1e-4: the official float32 output is 2e-5 away from its own float64 output."""
    maps: dict[str, Tensor] = {}

    def keeper(name: str) -> Callable[..., None]:
        return lambda module, arguments, output: maps.__setitem__(name, output.clone())

    hooks = [official.get_submodule(TAPS[name][0]).register_forward_hook(keeper(name)) for name in TAPS]
    with torch.no_grad():
        out = official(uniform("audio4", (2, 1, 80, 16), -4, 4), uniform("face4", (2, 6, 96, 96)))
    for hook in hooks:
        hook.remove()
    assert_near(out[..., ::3, ::3], STORED["out4"], 1e-4)
    assert_mean_and_deviation(out, STORED["out4_stats"])
    assert set(TAPS) == {key for key in STORED if not key.startswith("out")}
    for name, (_, channels, pixels) in TAPS.items():
        # At dec_up0 the official float32 is itself 4.5e-4 deviations away from what float64 gives.
        tolerance = (1e-3 if name == "dec_up0" else 3e-4) * float(STORED[name].std())
        assert_near(maps[name][:, ::channels, ::pixels, ::pixels], STORED[name], tolerance)


def test_windows_equal_the_official_ones(official: LNet) -> None:
    faces = uniform("face5", (2, 6, 3, 96, 96))
    faces[:, :3, :, 48:] = 0
    with torch.no_grad():
        out = official(uniform("audio5", (2, 3, 1, 80, 16), -4, 4), faces)
    assert_near(out[..., ::3, ::3], STORED["out5"], 1e-4)
    assert_mean_and_deviation(out, STORED["out5_stats"])


@pytest.mark.slow
def test_float64_equals_the_official_float64(official_double: LNet) -> None:
    with torch.no_grad():
        out = official_double(
            uniform("audio4", (2, 1, 80, 16), -4, 4).double(), uniform("face4", (2, 6, 96, 96)).double()
        )
    assert_near(out[..., ::3, ::3], STORED["out4_f64"], 1e-9)


# Spectral norm


def test_spectral_norm_trains_like_the_framework_s() -> None:
    own = SpectralConv2d(5, 7, 3)
    other = nn.utils.spectral_norm(nn.Conv2d(5, 7, 3, padding=1))
    assert list(own.state_dict()) == list(other.state_dict())
    other.load_state_dict(own.state_dict(), strict=True)
    results = []
    for network in (own, other):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        inputs = torch.rand((3, 2, 5, 8, 8), generator=torch.Generator().manual_seed(3))
        outputs = []
        for x in inputs:
            outputs.append(network(x))
            optimizer.zero_grad()
            outputs[-1].square().sum().backward()
            optimizer.step()
        network.eval()
        results.append([*outputs, network(inputs[0]), *network.state_dict().values()])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_spectral_norm_is_near_1_from_the_start_and_fixed_in_evaluation() -> None:
    conv = SpectralConv2d(64, 32, 3).eval()
    before = copy.deepcopy(conv.state_dict())
    matrix = conv.normalised_weight().detach().flatten(1)
    assert float(torch.linalg.matrix_norm(matrix, ord=2)) == pytest.approx(1, abs=0.1)
    conv(torch.rand(1, 64, 4, 4)).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in conv.state_dict().items())
    copied = copy.deepcopy(conv)  # the framework's own fails here once a gradient has passed
    assert torch.equal(copied(torch.ones(1, 64, 4, 4)), conv(torch.ones(1, 64, 4, 4)))


def test_two_forwards_in_training_can_both_be_followed_back() -> None:
    conv = SpectralConv2d(3, 4, 3)
    (conv(torch.rand(1, 3, 8, 8)) - conv(torch.rand(1, 3, 8, 8))).sum().backward()
    assert conv.weight_orig.grad is not None


def test_layer_norm_is_over_channels_and_pixels_together() -> None:
    norm = LayerNorm2d(3)
    with torch.no_grad():
        norm.weight.copy_(torch.rand(3, 1, 1))
        norm.bias.copy_(torch.rand(3, 1, 1))
    x = torch.randn(2, 3, 4, 5)
    expected = F.layer_norm(x, (3, 4, 5)) * norm.weight + norm.bias
    torch.testing.assert_close(norm(x), expected)


# Fast Fourier convolution


@pytest.mark.parametrize("size", [(12, 12), (24, 48), (11, 13), (5, 2), (16, 1)])
def test_fourier_unit_equals_numpy(size: tuple[int, int]) -> None:
    unit = FourierUnit(3).double().eval()
    unit.bn.running_mean.normal_()
    unit.bn.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    spectrum = np.fft.rfft2(x.numpy(), norm="ortho")
    planes = np.empty((2, 6, *spectrum.shape[2:]))
    planes[:, 0::2], planes[:, 1::2] = spectrum.real, spectrum.imag
    planes = np.einsum("oi,nihw->nohw", unit.conv_layer.weight.detach().numpy()[..., 0, 0], planes)
    mean, var = (value.numpy()[:, None, None] for value in (unit.bn.running_mean, unit.bn.running_var))
    planes = np.maximum((planes - mean) / np.sqrt(var + 1e-5), 0)
    expected = np.fft.irfft2(planes[:, 0::2] + 1j * planes[:, 1::2], s=size, norm="ortho")
    np.testing.assert_allclose(unit(x).detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [(12, 12), (13, 11)])
def test_fourier_unit_keeps_the_dtype_and_computes_in_float32(dtype: torch.dtype, size: tuple[int, int]) -> None:
    unit = FourierUnit(4).eval()
    x = torch.randn(2, 4, *size)
    expected = unit(x)
    out = copy.deepcopy(unit).to(dtype)(x.to(dtype))
    assert out.dtype == dtype
    assert (out.float() - expected).abs().max() < 0.05 * expected.abs().max()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = unit(x)
    assert mixed.dtype == torch.float32
    assert (mixed - expected).abs().max() < 0.05 * expected.abs().max()


def test_a_block_sees_the_whole_map_and_both_parts() -> None:
    block = FFCResidualBlock(16, code=8, hidden=8).eval()
    assert block.split == (4, 12)
    x, code = torch.rand(1, 16, 24, 24), torch.rand(1, 8)
    before = block(x, code)
    for channel in (0, 15):  # local, global
        changed = x.clone()
        changed[0, channel, 0, 0] += 1
        difference = (block(changed, code) - before).abs()
        assert (difference[0, :, 20:, 20:].amax(dim=(1, 2)) > 1e-7).all()
    assert not torch.allclose(block(x, -code), before)


def test_mixed_precision_stays_near_float32_and_trains() -> None:
    network = LNet(**SMALL)
    audio, faces = frames_of()
    with torch.no_grad():
        expected = network.eval()(audio, faces)
    with torch.autocast("cpu", torch.bfloat16):
        out = network(audio, faces)
        network.train()
        loss = network(audio, faces).float().mean()
    assert (out.float() - expected).abs().max() < 0.05
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


# The network in other sizes


def test_width_blocks_and_windows() -> None:
    network = LNet(width=0.125, blocks=2).eval()
    assert network.decoder.final.model[0].in_channels == 8
    assert network.encoder.ca2.layers[0][0].fn["to_q"].weight.shape == (4 * 8, 64)
    assert len(list(network.decoder.res1.children())) == 2
    audio, faces = torch.rand(2, 3, 1, 80, 16), torch.rand(2, 6, 3, 96, 96)
    with torch.no_grad():
        window = network(audio, faces)
        assert window.shape == (2, 3, 3, 96, 96)
        for frame in range(3):
            torch.testing.assert_close(window[:, :, frame], network(audio[:, frame], faces[:, :, frame]))
    with pytest.raises(ValueError, match=r"blocks is 0\. Expected 1 or more.*--model\.init_args\.blocks"):
        LNet(width=0.125, blocks=0)
    with pytest.raises(ValueError, match="width is 0"):
        LNet(width=0)


@pytest.mark.parametrize("size", [(88, 104), (64, 96), (16, 16)])
def test_other_sizes(size: tuple[int, int]) -> None:
    network = LNet(**SMALL)  # in training mode
    out = network(*frames_of(size))
    assert out.shape == (2, 3, *size)
    out.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize("size", [(100, 96), (96, 90), (8, 96)])
def test_impossible_sizes_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"faces of {size[0]} x {size[1]}\. Expected multiples of 8.*Resize"):
        LNet(**SMALL)(*frames_of(size))


def test_without_cross_attention_features_are_only_joined() -> None:
    network, ablation = LNet(**SMALL).eval(), LNet(**SMALL, cross_attention=False).eval()
    names = [name for name in network.state_dict() if not name.startswith("encoder.ca2.")]
    assert len(names) == len(network.state_dict()) - 30
    assert list(ablation.state_dict()) == names
    ablation.load_state_dict({name: network.state_dict()[name] for name in names})
    _, faces = frames_of()
    with torch.no_grad():
        maps, joined = (net.encoder(faces[:, :3], faces[:, 3:]) for net in (network, ablation))
        alone = ablation.encoder(faces[:, :3], 1 - faces[:, 3:])
    assert all(torch.equal(own, other) for own, other in zip(maps[:3], joined[:3], strict=True))
    half = joined[3].shape[1] // 2
    assert torch.equal(maps[3][:, half:], joined[3][:, half:])  # the reference's half
    assert not torch.allclose(maps[3][:, :half], joined[3][:, :half])
    assert torch.equal(alone[3][:, :half], joined[3][:, :half])  # the target's has seen no reference
    assert not torch.allclose(alone[3][:, half:], joined[3][:, half:])


# The module


def test_published_defaults_and_wrong_weights() -> None:
    module = VideoReTalkingLNet(**SMALL)
    assert module.weights == {"l1": 1.0, "perceptual": 1.0, "sync": 0.3}
    assert (module.lr, module.betas, module.image_size) == (1e-4, (0.9, 0.999), 96)
    assert list_methods()["videoretalking_lnet"] is VideoReTalkingLNet
    assert module.hparams["cross_attention"]
    assert module.automatic_optimization
    assert module.discriminator is None
    with pytest.raises(ValueError, match=r"sync_weight is -1.*--model\.init_args\.sync_weight"):
        VideoReTalkingLNet(**SMALL, sync_weight=-1)


def test_faces_of_another_size(small_expert: str, tmp_path: Path) -> None:
    module = VideoReTalkingLNet(48, **SMALL, sync_expert=small_expert, perceptual_weight=0.0)
    assert module.recipe.size_hw == (48, 48)
    trainer = trainer_for(tmp_path)
    trainer.fit(module, loader(module.example_batch(1)))
    assert np.isfinite(float(trainer.callback_metrics["train/sync"]))
    window = torch.rand(2, 3, 5, 48, 48)
    shown = shown_to_expert(window)
    assert shown.shape == (2, 5, 3, 96, 96)
    expected = F.interpolate(window[1, :, 3][None], (96, 96), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(shown[1, 3], expected)
    assert torch.equal(shown_to_expert(shown.transpose(1, 2)), shown)
    for size in (8, 100):
        with pytest.raises(ValueError, match=rf"image_size is {size}\. Expected multiples of 8 from 16 on"):
            VideoReTalkingLNet(size, **SMALL)


def test_loss_is_the_weighted_sum_of_its_terms(small_expert: str, tmp_path: Path) -> None:
    module = VideoReTalkingLNet(
        **SMALL, sync_expert=small_expert, l1_weight=2, perceptual_weight=0.5, perceptual_weights="random"
    )
    batch = loader(module.example_batch(1))
    trainer = trainer_for(tmp_path)
    trainer.fit(module, batch, batch)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    terms = {"l1": 2, "perceptual_random_weights": 0.5, "sync": 0.3}
    assert set(logged) == {f"{stage}/{name}" for stage in ("train", "val") for name in (*terms, "loss")}
    for stage in ("train", "val"):
        total = sum(weight * logged[f"{stage}/{name}"] for name, weight in terms.items())
        assert logged[f"{stage}/loss"] == pytest.approx(total, rel=1e-5)
    assert module.sync_expert is not None
    assert not module.sync_expert.training
    assert module.vgg_loss is not None
    assert not module.vgg_loss.training


def test_losses_see_what_they_should(small_expert: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """L1 and sync in BGR, the perceptual loss in RGB, the network BGR with the lower half of the target hidden."""
    module = VideoReTalkingLNet(**SMALL, sync_expert=small_expert, perceptual_weights="random")
    module.setup("fit")
    seen: dict[str, Any] = {}
    batch = module.example_batch(2)

    def network(audio: Tensor, faces: Tensor) -> Tensor:
        seen["mels"], seen["faces"] = audio, faces
        return faces[:, 3:]  # the reference

    monkeypatch.setattr(module.generator, "forward", network)
    assert module.vgg_loss is not None
    monkeypatch.setattr(module.vgg_loss, "forward", lambda *images: seen.setdefault("vgg", images)[0].mean())
    monkeypatch.setattr(module.sync_loss, "forward", lambda *inputs: seen.setdefault("sync", inputs)[2].mean())
    terms = module.loss_terms(batch, "train").loss
    bgr = {name: batch[name][:, :, [2, 1, 0]] for name in ("target", "reference")}
    assert torch.equal(seen["mels"], batch["frame_mels"])
    assert torch.equal(seen["faces"][:, :3, :, :48], bgr["target"].transpose(1, 2)[:, :, :, :48])
    assert seen["faces"][:, :3, :, 48:].abs().max() == 0
    assert torch.equal(seen["faces"][:, 3:], bgr["reference"].transpose(1, 2))
    for image, name in zip(seen["vgg"], ("reference", "target"), strict=True):
        assert torch.equal(image, batch[name].transpose(0, 1).flatten(0, 1))  # frame 0 of all windows first
    assert seen["sync"][0] is module.sync_expert
    assert torch.equal(seen["sync"][1], batch["mel"])
    assert torch.equal(seen["sync"][2], bgr["reference"])
    assert float(terms["l1"]) == pytest.approx(float((batch["reference"] - batch["target"]).abs().mean()), rel=1e-5)


def test_generate_masks_faces_and_speaks_bgr_to_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    module = VideoReTalkingLNet(**SMALL).eval()
    seen: list[Tensor] = []

    def network(audio: Tensor, faces: Tensor) -> Tensor:
        seen.append(faces)
        return faces[:, 3:]

    monkeypatch.setattr(module.generator, "forward", network)
    faces, references = torch.rand(3, 3, 96, 96), torch.rand(3, 3, 96, 96)
    torch.testing.assert_close(
        module.generate(FaceInputs.of(torch.zeros(3, 1, 80, 16), faces, references)).frames, references
    )
    assert torch.equal(seen[0][:, :3, :48], faces[:, [2, 1, 0], :48])
    assert seen[0][:, :3, 48:].abs().max() == 0
    assert torch.equal(seen[0][:, 3:], references[:, [2, 1, 0]])


@pytest.mark.slow
def test_training_learns_a_batch(tmp_path: Path) -> None:
    module = VideoReTalkingLNet(**ALONE, lr=3e-3)
    batch = module.example_batch(1)
    batch["target"] = F.interpolate(batch["target"][0, :, :, :8, :8], (96, 96), mode="bilinear").unsqueeze(0)
    losses: list[float] = []

    class Losses(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            losses.append(float(trainer.callback_metrics["train/l1"]))

    trainer_for(tmp_path, callbacks=[Losses()]).fit(module, loader(*[batch] * 20))
    assert len(losses) == 20
    assert losses[-1] < 0.6 * losses[0]


def test_checkpoint_names_what_trained_it(small_expert: str, tmp_path: Path) -> None:
    module = VideoReTalkingLNet(**SMALL, cross_attention=False, sync_expert=small_expert, perceptual_weights="random")
    trainer = trainer_for(tmp_path)
    trainer.fit(module, loader(module.example_batch(1)))
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    checkpoint = torch.load(tmp_path / "run.ckpt", weights_only=True)
    assert {name.split(".")[0] for name in checkpoint["state_dict"]} == {"generator"}
    record = checkpoint[RECORD]
    assert record["class_path"] == "lipsync_bench.models.VideoReTalkingLNet"
    assert record["vgg19"] == "random"
    assert len(record["sync_expert_sha256"]) == 64
    loaded = load_method(tmp_path / "run.ckpt")
    assert isinstance(loaded, VideoReTalkingLNet)
    assert not loaded.generator.encoder.cross_attention


def test_training_starts_from_another_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = VideoReTalkingLNet(**ALONE)
    save_module(first, tmp_path / "first.ckpt")
    module = VideoReTalkingLNet(**ALONE, lr=0.0, init_from=str(tmp_path / "first.ckpt"))
    with caplog.at_level(logging.INFO, logger="lipsync_bench.models.core.checkpoints"):
        trainer_for(tmp_path).fit(module, loader(module.example_batch(1)))
    assert "starts from" in caplog.text
    own = dict(module.generator.named_parameters())
    assert all(torch.equal(own[name], value) for name, value in first.generator.named_parameters())


def test_missing_files_are_named(tmp_path: Path) -> None:
    batch = loader(VideoReTalkingLNet(**ALONE).example_batch(1))
    with pytest.raises(ValueError, match=r"sync_expert is None.*lightning fit -c experiments/sync_expert\.yaml"):
        trainer_for(tmp_path).fit(VideoReTalkingLNet(**SMALL), batch)
    module = VideoReTalkingLNet(**SMALL, sync_weight=0.0, perceptual_weights=str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"vgg19-dcbb9e9d\.pth: no such file.*perceptual_weights"):
        trainer_for(tmp_path).fit(module, batch)
