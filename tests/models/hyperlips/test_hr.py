# SPDX-License-Identifier: Apache-2.0
"""HyperLips-HR at inference: against the released code, without a face, without a sketch, and with the base it carries.

Keys of hyperlips_pipeline.golden.npz: `hrR.landmarks`, what stands in for Face Mesh; `hr_in_img_u8` and `hr_in_sketch`,
every fourth and every R-th pixel of what the decoder is given; `hr_in_sketch_sum`; `out`, every 4R-th pixel of what
comes out, `out_mean`, `out_std` of all of it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.models import load_method
from lipsync_bench.models.core.checkpoints import RECORD, save_module
from lipsync_bench.models.core.inputs import FaceInputs
from lipsync_bench.models.hyperlips import HyperLipsBase, HyperLipsHR, HyperLipsSyncExpertModule
from lipsync_bench.models.hyperlips.base.network import HyperLipsBaseGenerator
from lipsync_bench.models.hyperlips.hr.guide import guide
from lipsync_bench.models.hyperlips.hr.sketch import draw_sketch, inference_sketch, smooth_landmarks, training_sketch
from lipsync_bench.models.parts.perceptual import RANDOM
from tests import golden
from tests.models.training import loader, trainer_for

PIPELINE = golden.arrays("hyperlips_pipeline")
LANDMARKS = PIPELINE["hr1.landmarks"]
ALONE: dict[str, Any] = {"adversarial_weight": 0.0, "vgg_weight": 0.0, "lip_lpips_weight": 0.0}  # without ImageNet


def uniform(name: str, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Tensor:
    return torch.from_numpy(golden.uniform(name, shape, low, high))


def fill(network: nn.Module, name: str) -> None:
    network.load_state_dict(golden.filled(golden.names_and_shapes(name)), strict=True)


# Inference of the official code


@pytest.mark.parametrize(("scale", "smooth_frames"), [(1, 1), (2, None)])
def test_released_inference_equals_the_official_one(
    scale: Any, smooth_frames: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = {key.partition(".")[2]: value for key, value in PIPELINE.items() if key.startswith(f"hr{scale}.")}
    count, size = len(stored["landmarks"]), 128 * scale
    module = HyperLipsHR(scale, inference="released", smooth_frames=smooth_frames)
    fill(module.generator, f"hyperlips_hr{scale}")
    fill(module.attach_base(HyperLipsBaseGenerator(), "filled"), "hyperlips_base")
    shown: list[np.ndarray] = []

    def meshes(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shown.append(images)
        return stored["landmarks"], np.ones(count, bool)

    monkeypatch.setattr("lipsync_bench.models.hyperlips.hr.guide.find_meshes", meshes)
    # The stored inputs are noise in both halves: the mask is left out.
    monkeypatch.setattr("lipsync_bench.models.hyperlips.hr.module.mask_lower_half", lambda faces: faces)
    given: list[Tensor] = []
    module.eval().generator.register_forward_pre_hook(lambda network, inputs: given.append(inputs[0]))
    faces = uniform(f"hyperlips.hrinf{scale}.face", (count, 6, size, size))
    mels = uniform(f"hyperlips.hrinf{scale}.mel", (count, 1, 80, 16), -4, 4)
    with torch.no_grad():
        made = module.generate_chunk(FaceInputs.of(mels, faces[:, :3], faces[:, 3:]))
    out = made.frames
    (decoder_input,) = given
    images = (decoder_input[:, :3] * 255).round().to(torch.uint8).numpy()
    np.testing.assert_array_equal(shown[0], images.transpose(0, 2, 3, 1))  # Face Mesh is shown BGR, enlarged
    difference = np.abs(images[:, :, ::4, ::4].astype(int) - stored["hr_in_img_u8"])
    assert difference.max() <= 1
    assert np.count_nonzero(difference) <= 3  # the truncation of values next to a whole number
    sketches = (decoder_input[:, 3:] * 255).round().to(torch.uint8).numpy()
    assert (sketches == sketches[:, :1]).all()
    np.testing.assert_array_equal(sketches[:, 0, ::scale, ::scale], stored["hr_in_sketch"])
    np.testing.assert_array_equal(sketches[:, 0].sum((1, 2), dtype=np.int64), stored["hr_in_sketch_sum"])
    assert out.shape == (count, 3, scale * size, scale * size)
    # A flipped grey level moves it by up to 1e-3 nearby; those between the stored ones are flipped on some processors.
    moved = np.abs(out[:, :, :: 4 * scale, :: 4 * scale].numpy() - stored["out"])
    assert moved.max() < 1e-3
    assert np.quantile(moved, 0.99) < 1e-5
    assert float(out.double().mean()) == pytest.approx(float(stored["out_mean"]), abs=1e-6)
    assert float(out.double().std(correction=0)) == pytest.approx(float(stored["out_std"]), rel=1e-5)
    assert not made.fallback.any()


# The decoder's guide


def stand_in(monkeypatch: pytest.MonkeyPatch, found: list[bool]) -> list[np.ndarray]:
    """Face Mesh finds the stored landmarks in these frames of each call; returns what it will be shown."""
    shown: list[np.ndarray] = []
    meshes = np.resize(LANDMARKS, (len(found), 478, 3)) * np.array(found)[:, None, None]

    def find(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shown.append(images)
        return meshes[: len(images)], np.array(found)[: len(images)]

    monkeypatch.setattr("lipsync_bench.models.hyperlips.hr.guide.find_meshes", find)
    return shown


def test_training_rule_draws_as_the_windows_do(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = stand_in(monkeypatch, [True, True])
    base = torch.rand(2, 3, 128, 128)
    seen = guide(base, "training", 4)
    assert seen.faces is base
    assert seen.found.all()
    rgb = (base.flip(1) * 255).floor().to(torch.uint8).permute(0, 2, 3, 1)
    np.testing.assert_array_equal(shown[0], rgb)
    expected = np.stack([training_sketch(draw_sketch(mesh, (128, 128))) for mesh in LANDMARKS[:2]])
    assert set(np.unique(seen.sketches)) == {0, 1}
    np.testing.assert_array_equal(255 * seen.sketches[:, 0], expected)


def test_smoothing_stays_between_frames_without_a_face(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [True, True, True, True, False, True, True]
    stand_in(monkeypatch, found)
    seen = guide(torch.rand(7, 3, 128, 128), "released", 1, smooth_frames=1)
    assert seen.found.tolist() == found
    meshes = np.resize(LANDMARKS, (7, 478, 3))
    smooth = [*smooth_landmarks(meshes[:4], 1), None, *smooth_landmarks(meshes[5:], 1)]
    for sketch, mesh in zip(seen.sketches, smooth, strict=True):
        expected = np.zeros((128, 128)) if mesh is None else inference_sketch(mesh, 128)
        np.testing.assert_array_equal((255 * sketch[0]).round(), expected)
    assert not np.array_equal(smooth[1], meshes[1])


def inputs(size: int, frames: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(5)
    faces, references = torch.rand(2, frames, 3, size, size, generator=random)
    return torch.rand(frames, 1, 80, 16, generator=random) * 8 - 4, faces, references


@pytest.mark.parametrize(("scale", "rule", "size"), [(2, "training", 256), (2, "released", 512), (1, "training", 128)])
def test_a_frame_without_a_face_is_the_enlarged_base(
    scale: Any, rule: Any, size: int, small_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, [True, False, True])
    module = HyperLipsHR(scale, 0.125, str(small_base), inference=rule).eval()
    mels, faces, references = inputs(128 * scale)
    made = module.generate(FaceInputs.of(mels, faces, references))
    frames = made.frames
    small = [F.interpolate(x, (128, 128), mode="bilinear") for x in (faces, references)]
    base = load_method(small_base).generate(FaceInputs.of(mels, *small)).frames
    enlarged = F.interpolate(base, (size, size), mode="bilinear")
    assert frames.shape == enlarged.shape
    torch.testing.assert_close(frames[1], enlarged[1], rtol=0, atol=1e-6)
    assert (frames - enlarged).abs().amax((1, 2, 3))[[0, 2]].min() > 0.01
    assert made.fallback.tolist() == [False, True, False]


def test_face_mesh_finds_nothing_in_an_untrained_base(small_base: Path) -> None:
    module = HyperLipsHR(width=0.125, base=str(small_base)).eval()
    made = module.generate(FaceInputs.of(*inputs(128)))
    base = load_method(small_base).generate(FaceInputs.of(*inputs(128)))
    torch.testing.assert_close(made.frames, base.frames, rtol=0, atol=1e-6)
    assert made.fallback.all()
    assert not base.fallback.any()


@pytest.mark.parametrize("rule", ["training", "released"])
def test_without_sketches_they_have_no_influence_and_no_face_is_looked_for(
    rule: Any, small_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    module, blind = (HyperLipsHR(1, 0.125, str(small_base), sketch=on, inference=rule).eval() for on in (True, False))
    blind.generator.load_state_dict(module.generator.state_dict())
    base, sketches = torch.rand(2, 3, 128, 128), torch.ones(2, 1, 128, 128)
    with torch.no_grad():
        black = module(base, torch.zeros_like(sketches))
        assert torch.equal(blind(base, sketches), black)
        assert not torch.equal(module(base, sketches), black)
    shown = stand_in(monkeypatch, [True, False, True])
    made = blind.generate(FaceInputs.of(*inputs(128)))
    assert not shown
    assert not made.fallback.any()
    monkeypatch.setattr(
        "lipsync_bench.models.hyperlips.hr.guide.draw_sketch", lambda mesh, size: np.zeros(size, np.uint8)
    )
    monkeypatch.setattr(
        "lipsync_bench.models.hyperlips.hr.guide.inference_sketch", lambda mesh, size: np.zeros((size, size), np.uint8)
    )
    torch.testing.assert_close(module.generate(FaceInputs.of(*inputs(128))).frames[[0, 2]], made.frames[[0, 2]])


def test_other_rules_of_inference_are_refused() -> None:
    with pytest.raises(ValueError, match=r"inference is 'official'\. .*Set --model\.init_args\.inference\."):
        HyperLipsHR(width=0.125, inference="official")  # type: ignore[arg-type]


# The decoder's base


def test_the_base_is_frozen_and_goes_with_the_checkpoint(
    small_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = HyperLipsHR(width=0.125, base=str(small_base), **ALONE)
    digest = sha256(small_base)
    before = load_method(small_base).generator.state_dict()
    trainer = trainer_for(tmp_path)
    trainer.fit(module, loader(module.example_batch(1)))
    assert module.base is not None
    assert module.eval().train().training
    assert not any(part.training for part in module.base.modules())
    assert not any(parameter.requires_grad for parameter in module.base.parameters())
    for name, value in module.base.state_dict().items():  # statistics included
        assert torch.equal(value, before[name]), name
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    small_base.unlink()
    record = torch.load(tmp_path / "run.ckpt", weights_only=True)[RECORD]
    assert (record["base_width"], record["base_sha256"]) == (0.125, digest)
    assert record["vgg19"] is record["lpips_vgg16"] is None
    stand_in(monkeypatch, [True, False, True])
    loaded = load_method(tmp_path / "run.ckpt")
    assert torch.equal(
        loaded.generate(FaceInputs.of(*inputs(128))).frames, module.eval().generate(FaceInputs.of(*inputs(128))).frames
    )


def test_a_resumed_training_keeps_the_base_it_began_with(small_base: Path, tmp_path: Path) -> None:
    module = HyperLipsHR(width=0.125, base=str(small_base), **ALONE)
    batch = loader(module.example_batch(1))
    trainer = trainer_for(tmp_path)
    trainer.fit(module, batch)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    first, network = sha256(small_base), load_method(small_base).generator.state_dict()
    torch.manual_seed(4)
    save_module(HyperLipsBase(width=0.25), small_base)  # trained on, say
    resumed = HyperLipsHR(width=0.125, base=str(small_base), **ALONE)
    trainer = trainer_for(tmp_path, max_epochs=2)
    trainer.fit(resumed, batch, ckpt_path=tmp_path / "run.ckpt", weights_only=True)
    assert trainer.global_step == 2
    assert resumed.base is not None
    assert resumed.base_sha256 == first
    own = resumed.base.state_dict()
    assert all(torch.equal(own[name], value) for name, value in network.items())
    small_base.rename(tmp_path / "other.ckpt")
    named = HyperLipsHR(width=0.125, base=str(tmp_path / "other.ckpt"), **ALONE)
    with pytest.raises(
        ValueError, match=r"base names .*other\.ckpt, and .*run\.ckpt holds the content of another file"
    ):
        trainer_for(tmp_path).fit(named, batch, ckpt_path=tmp_path / "run.ckpt", weights_only=True)


def test_a_missing_base_says_how_to_make_one(tmp_path: Path) -> None:
    tiny: dict[str, Any] = {"width": 0.125, "perceptual_weights": RANDOM}
    repair = r"Train one with: lightning fit -c experiments/hyperlips_base\.yaml; .*--model\.init_args\.base PATH"
    batch = loader(HyperLipsHR(**tiny).example_batch(1))
    with pytest.raises(ValueError, match=rf"base is None\. Expected the path of a HyperLipsBase checkpoint\. {repair}"):
        trainer_for(tmp_path).fit(HyperLipsHR(**tiny), batch)
    path = str(tmp_path / "none.ckpt")
    with pytest.raises(FileNotFoundError, match=rf"no base at .*none\.ckpt\. Expected a HyperLipsBase .*{repair}"):
        trainer_for(tmp_path).fit(HyperLipsHR(**tiny, base=path), batch)
    save_module(HyperLipsSyncExpertModule(width=0.125), tmp_path / "expert.ckpt")
    with pytest.raises(ValueError, match=r"holds a lipsync_bench\.models\.HyperLipsSync.*HyperLipsBase"):
        trainer_for(tmp_path).fit(HyperLipsHR(**tiny, base=str(tmp_path / "expert.ckpt")), batch)
    with pytest.raises(ValueError, match=r"base is None"):
        HyperLipsHR(**tiny).eval().generate(FaceInputs.of(*inputs(128)))
