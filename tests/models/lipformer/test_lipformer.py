# SPDX-License-Identifier: Apache-2.0
"""LipFormer's second stage: warping, Transformer, lip codes, and what is trained by which loss."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lipsync_bench.models.core.checkpoints import load_checkpoint, load_module, save_module
from lipsync_bench.models.core.inputs import FaceInputs
from lipsync_bench.models.lipformer import LipFormer, LipFormerCodebook
from lipsync_bench.models.lipformer.network import LipFormerGenerator
from lipsync_bench.models.lipformer.transformer import ConditionalLayerNorm, LipTransformer
from lipsync_bench.models.lipformer.warping import AdaptiveWarping
from lipsync_bench.models.parts.sampling import sample_bilinear
from tests.models.training import loader, trainer_for

Small = Callable[..., LipFormer]


@pytest.fixture
def small(tmp_path: Path) -> Small:
    """A small LipFormer with its stage 1, changed as asked."""

    def build(**changes: Any) -> LipFormer:
        torch.manual_seed(0)
        return LipFormer(**{**LipFormer.smoke_arguments(tmp_path), **changes})

    return build


@pytest.mark.parametrize("shape", [(8, 16), (6, 12), (3, 5), (1, 1)])
def test_an_untrained_warping_returns_the_reference_exactly(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    warping = AdaptiveWarping(16, width=0.25)
    upper, other, bottom = torch.randn(3, 2, 16, *shape)
    assert torch.equal(warping(upper, other, bottom), bottom)


def test_an_offset_of_one_cell_moves_by_one_cell_and_the_border_goes_on() -> None:
    maps = torch.randn(2, 4, 6, 12)
    offsets = torch.zeros(2, 2, 6, 12)
    offsets[:, 0] = 1
    moved = sample_bilinear(maps, offsets)
    assert torch.equal(moved[..., :-1], maps[..., 1:])
    assert torch.equal(moved[..., -1], maps[..., -1])
    moved = sample_bilinear(maps, -offsets.flip(1))  # upwards
    assert torch.equal(moved[..., 1:, :], maps[..., :-1, :])
    assert torch.equal(moved[..., 0, :], maps[..., 0, :])


def test_samples_between_cells_are_those_of_grid_sample() -> None:
    torch.manual_seed(0)
    maps, offsets = torch.randn(2, 4, 6, 10).double(), torch.randn(2, 2, 6, 10).double() * 3
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(10.0), indexing="ij")
    x, y = (columns + offsets[:, 0]) * 2 / 9 - 1, (rows + offsets[:, 1]) * 2 / 5 - 1
    grid = torch.stack([x, y], dim=-1)
    wanted = torch.nn.functional.grid_sample(maps, grid, padding_mode="border", align_corners=True)
    torch.testing.assert_close(sample_bilinear(maps, offsets), wanted, atol=1e-12, rtol=1e-12)


def test_gradients_reach_the_offsets() -> None:
    maps, offsets = torch.randn(1, 2, 4, 5).double(), (torch.rand(1, 2, 4, 5).double() * 0.4 + 0.3).requires_grad_()
    assert torch.autograd.gradcheck(lambda moves: sample_bilinear(maps, moves), (offsets,))


def test_heat_maps_are_distributions_over_positions() -> None:
    maps = AdaptiveWarping(16, width=0.25, keypoints=5).heat_maps(torch.randn(2, 16, 4, 8))
    assert maps.shape == (2, 5, 4, 8)
    torch.testing.assert_close(maps.sum(dim=(2, 3)), torch.ones(2, 5))


def test_the_conditional_norm_starts_as_a_layer_norm_and_then_obeys_speech() -> None:
    norm = ConditionalLayerNorm(16, 8)
    x, speech = torch.randn(2, 5, 16), torch.randn(2, 8)
    torch.nn.init.zeros_(norm.scale_and_shift.weight)
    torch.testing.assert_close(norm(x, speech), torch.nn.functional.layer_norm(x, (16,)))
    torch.nn.init.normal_(norm.scale_and_shift.weight)
    assert not torch.allclose(norm(x, speech)[0], norm(x, -speech)[0])


def test_queries_come_from_the_state_or_from_the_reference() -> None:
    torch.manual_seed(0)
    arguments = {"shape": (2, 4), "channels": 16, "entries": 12, "audio_channels": 8, "heads": 4}
    state, reference = (LipTransformer(layers=2, queries=kind, **arguments) for kind in ("state", "reference"))  # type: ignore[arg-type]
    reference.load_state_dict(state.state_dict())
    inputs = torch.randn(3, 16, 2, 4), torch.randn(12, 16), torch.randn(3, 8)
    assert state(*inputs).shape == (3, 12, 2, 4)
    assert not torch.allclose(state(*inputs), reference(*inputs))
    one, other = (LipTransformer(layers=1, queries=kind, **arguments) for kind in ("state", "reference"))  # type: ignore[arg-type]
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(*inputs), other(*inputs))  # equal for i = 0
    with pytest.raises(ValueError, match="Expected state or reference"):
        LipTransformer(queries="keys", **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="multiple of the heads"):
        LipTransformer(**{**arguments, "heads": 3})  # type: ignore[arg-type]


def test_the_true_codes_give_stage_1s_reconstruction_exactly(small: Small, tmp_path: Path) -> None:
    module = small().eval()
    codes = module.codes
    stage_1 = load_module(tmp_path / "codebook.ckpt", [LipFormerCodebook])
    images = module.example_batch()["target"].flatten(0, 1)
    true = codes.lower_half(images)
    one_hot = torch.nn.functional.one_hot(true.indices, module.hparams["entries"]).movedim(-1, 1).float()
    bottom = module.generator.entries_of(one_hot, codes.bottom.embedding)
    with torch.no_grad():
        decoded = module.generator.decode(codes.upper_half(images), bottom)
        _, upper, lower, _, _ = stage_1.network(images)
        wanted = stage_1.network.decode(upper.entries, lower.entries)
    assert torch.equal(bottom, true.entries)
    assert torch.equal(decoded, wanted)


def test_evaluation_takes_the_best_entry_and_training_draws(small: Small) -> None:
    module = small()
    codes = module.codes
    audio = torch.randn(2, 1, 80, 16)
    height, width = module.image_size // 16, module.image_size // 8
    maps = torch.randn(3, 2, module.hparams["code_channels"], height, width)
    predict = module.eval().generator.predict
    first, second = (predict(audio, *maps, codes.bottom.embedding) for _ in range(2))
    assert torch.equal(first.codes, second.codes)
    assert torch.equal(first.codes, codes.bottom.lookup(first.scores.argmax(dim=1)))
    module.train()
    first, second = (predict(audio, *maps, codes.bottom.embedding) for _ in range(2))
    assert not torch.equal(first.codes, second.codes)


def reached(module: LipFormer) -> set[str]:
    return {name for name, x in module.named_parameters() if x.grad is not None and bool((x.grad != 0).any())}


def parts(names: set[str]) -> set[str]:
    return {name.split(".")[1] if name.startswith("generator.") else name.split(".")[0] for name in names}


def test_gradients_reach_what_stage_2_trains_and_nothing_of_stage_1(small: Small) -> None:
    module = small(adversarial_weight=0.0, perceptual_weight=0.0)
    assert module.codes is not None
    with torch.no_grad():  # at exactly zero, the warping's last layer lets nothing through
        torch.nn.init.normal_(module.generator.warping.offset_decoder[-1].weight, std=0.1)  # type: ignore[union-attr, arg-type]
    module.train()
    module.weighted_sum(module.loss_terms(module.example_batch(), "train").loss).backward()
    assert parts(reached(module)) == {"audio_encoder", "warping", "transformer", "decoder"}
    assert all(x.grad is None for x in module.codes.parameters())
    assert not module.codes.training


def image_loss_reaches(module: LipFormer) -> set[str]:
    assert module.codes is not None
    module.train()
    module.loss_terms(module.example_batch(), "train").loss["l2"].backward()
    return parts(reached(module))


def test_trained_apart_the_image_losses_stay_in_the_decoder(small: Small) -> None:
    free = {"adversarial_weight": 0.0, "perceptual_weight": 0.0}
    assert "transformer" in image_loss_reaches(small(**free))
    assert image_loss_reaches(small(**free, end_to_end=False)) == {"decoder"}


def test_without_warping_the_reference_goes_straight_in(small: Small) -> None:
    module = small(warping=False).eval()
    assert module.generator.warping is None
    assert not any("warping" in name for name in module.state_dict())
    frames = module.generate(
        FaceInputs.of(torch.randn(2, 1, 80, 16), *torch.rand(2, 2, 3, module.image_size, module.image_size))
    ).frames
    assert frames.shape == (2, 3, module.image_size, module.image_size)


def test_loss_terms_and_weights(small: Small) -> None:
    module = small(adversarial_weight=0.0, perceptual_weight=0.0, cross_entropy_weight=0.25, reconstruction_weight=2.0)
    module.eval()
    batch = module.example_batch()
    terms, watched, target, generated = module.loss_terms(batch, "val")
    assert target is not None
    assert torch.equal(target, 2 * batch["target"][:, :4].flatten(0, 1) - 1)
    torch.testing.assert_close(terms["l2"], ((generated - target) ** 2).mean())
    torch.testing.assert_close(module.weighted_sum(terms), 0.25 * terms["cross_entropy"] + 2 * terms["l2"])
    assert 0 <= watched["codes_right"] <= 1
    changed = {**batch, "frame_mels": batch["frame_mels"].clone()}
    changed["frame_mels"][:, 0] *= -1  # the cut of the frame before the window
    assert torch.equal(module.loss_terms(changed, "val").loss["cross_entropy"], terms["cross_entropy"])


@pytest.mark.slow
def test_over_fits_one_clip(small: Small, tmp_path: Path) -> None:
    """The cross-entropy falls below a tenth of log n, where it starts."""
    module = small(
        adversarial_weight=0.0, perceptual_weight=0.0, lr=2e-3, transformer_lr=2e-3, cross_entropy_weight=1.0
    )
    batch = module.example_batch(1)
    trainer = trainer_for(tmp_path, max_epochs=-1, max_steps=70, limit_val_batches=0)
    trainer.fit(module, loader(batch))
    log_n = math.log(module.hparams["entries"])
    assert float(trainer.callback_metrics["train/cross_entropy"]) < 0.1 * log_n
    assert float(trainer.callback_metrics["train/codes_right"]) > 0.9


def test_two_learning_rates(small: Small) -> None:
    optimizers = small().configure_optimizers()
    groups = optimizers[0].param_groups  # type: ignore[index]
    assert [group["lr"] for group in groups] == [1e-4, 8e-5]
    assert groups[0]["betas"] == (0.9, 0.95)


def test_a_codebook_of_another_shape_is_refused(small: Small) -> None:
    with pytest.raises(
        ValueError, match=r"codebook with entries 32\. Expected entries 64\. .*--model.init_args.entries"
    ):
        _ = small(entries=64).codes


def test_no_codebook_is_an_error_that_names_the_command(small: Small, tmp_path: Path) -> None:
    command = r"lightning fit -c experiments/lipformer_codebook\.yaml"
    with pytest.raises(ValueError, match=f"codebook is None.*{command}"):
        _ = small(codebook=None).codes
    with pytest.raises(FileNotFoundError, match=f"no codebook at .*gone.ckpt.*{command}"):
        _ = small(codebook=str(tmp_path / "gone.ckpt")).codes


def test_a_checkpoint_needs_no_codebook_file_to_generate_or_to_go_on(small: Small, tmp_path: Path) -> None:
    module = small(adversarial_weight=0.0)
    batch = module.example_batch(1)
    trainer_for(tmp_path, max_steps=1).fit(module, loader(batch))
    trainer = trainer_for(tmp_path, max_steps=1)
    trainer.fit(module, loader(batch))
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    (tmp_path / "codebook.ckpt").unlink()
    record = load_checkpoint(tmp_path / "run.ckpt")["lipsync_bench"]
    assert record["codebook_sha256"] == module.codebook_sha256
    assert record["perceptual_sha256"] == "random"
    resumed = LipFormer(**dict(module.hparams.items()))
    trainer_for(tmp_path, max_steps=3, max_epochs=3).fit(resumed, loader(batch), ckpt_path=tmp_path / "run.ckpt")
    assert resumed.codebook_sha256 == module.codebook_sha256
    assert torch.equal(resumed.codes.bottom.embedding, module.codes.bottom.embedding)
    before, after = (x.generator.transformer.to_scores.weight for x in (module, resumed))
    assert not torch.equal(before, after)


def test_fine_tuning_goes_on_with_the_codes_of_its_beginning(small: Small, tmp_path: Path) -> None:
    first = small(adversarial_weight=0.0, perceptual_weight=0.0)
    assert first.codes is not None
    save_module(first, tmp_path / "first.ckpt")
    (tmp_path / "codebook.ckpt").unlink()
    arguments = {**first.hparams, "codebook": None, "lr": 0.0, "transformer_lr": 0.0}
    tuned = LipFormer(**{**arguments, "init_from": str(tmp_path / "first.ckpt")})
    trainer_for(tmp_path, max_steps=1).fit(tuned, loader(tuned.example_batch(1)))
    assert tuned.codebook_sha256 == first.codebook_sha256
    assert torch.equal(tuned.codes.encoder.layers[0].weight, first.codes.encoder.layers[0].weight)
    assert torch.equal(tuned.generator.transformer.positions, first.generator.transformer.positions)


def test_a_saved_module_loads_with_its_codes(small: Small, tmp_path: Path) -> None:
    module = small().eval()
    images: Tensor = torch.rand(2, 3, module.image_size, module.image_size)
    wanted = module.generate(FaceInputs.of(torch.zeros(2, 1, 80, 16), images, images)).frames
    save_module(module, tmp_path / "whole.ckpt")
    loaded = load_module(tmp_path / "whole.ckpt", [LipFormer])
    assert torch.equal(loaded.generate(FaceInputs.of(torch.zeros(2, 1, 80, 16), images, images)).frames, wanted)


def test_faces_must_fit_the_encoders_stride() -> None:
    with pytest.raises(ValueError, match=r"image_size is 100\. Expected a multiple of 64"):
        LipFormerGenerator(image_size=100)
