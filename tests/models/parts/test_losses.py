# SPDX-License-Identifier: Apache-2.0
"""The losses against stored values of the official code, and at the edges where that code fails."""

import math
from functools import cache

import pytest
import torch

from lipsync_bench.models.parts.losses import (
    AdversarialLoss,
    CosineBCE,
    DiscriminatorLoss,
    ReconstructionLoss,
    SyncLoss,
)
from lipsync_bench.models.wav2lip.network import QualityDiscriminator
from lipsync_bench.models.wav2lip.sync_expert import SyncExpert
from tests import golden

REFERENCE = golden.arrays("wav2lip")
WINDOW = (4, 3, 5, 96, 96)


@cache
def expert() -> SyncExpert:
    network = SyncExpert()
    network.load_state_dict(golden.filled(golden.names_and_shapes("sync_expert")))
    return network.requires_grad_(False)


@pytest.fixture(scope="module")
def generated() -> torch.Tensor:
    return torch.from_numpy(golden.uniform("wav2lip/loss/g", WINDOW))


@pytest.fixture(scope="module")
def target() -> torch.Tensor:
    return torch.from_numpy(golden.uniform("wav2lip/loss/gt", WINDOW))


@pytest.fixture(scope="module")
def mel() -> torch.Tensor:
    return torch.from_numpy(golden.uniform("wav2lip/loss/mel", (4, 1, 80, 16), -4, 4))


def check_gradient(gradient: torch.Tensor, name: str) -> None:
    """`name` is the stored norm; the values themselves are compared where they are stored."""
    assert float(gradient.norm()) == pytest.approx(float(REFERENCE[f"{name}_norm"]), rel=1e-4)
    if f"{name}_s8" in REFERENCE:
        reference = torch.from_numpy(REFERENCE[f"{name}_s8"])
        assert (gradient[..., ::8, ::8] - reference).abs().max() <= 3e-5 * reference.std()


def test_reconstruction(generated: torch.Tensor, target: torch.Tensor) -> None:
    assert float(ReconstructionLoss()(generated, target)) == pytest.approx(float(REFERENCE["loss_l1"]), rel=1e-6)


def test_sync_with_the_expert_in_evaluation_mode(generated: torch.Tensor, mel: torch.Tensor) -> None:
    faces = generated.clone().requires_grad_()
    loss = SyncLoss()(expert().eval(), mel, faces.transpose(1, 2))
    assert loss.item() == pytest.approx(float(REFERENCE["loss_sync_expert_eval"]), rel=1e-5)
    loss.backward()
    assert faces.grad is not None
    check_gradient(faces.grad, "loss_grad_sync_eval")


def test_sync_with_the_expert_in_training_mode(generated: torch.Tensor, mel: torch.Tensor) -> None:
    with torch.no_grad():
        loss = SyncLoss()(expert().train(), mel, generated.transpose(1, 2))
    assert float(loss) == pytest.approx(float(REFERENCE["loss_sync_expert_train"]), rel=1e-4)
    expert.cache_clear()  # its running averages have moved


def test_adversarial_and_discriminator(generated: torch.Tensor, target: torch.Tensor) -> None:
    discriminator = QualityDiscriminator()
    discriminator.load_state_dict(golden.filled(golden.names_and_shapes("wav2lip_disc")))
    discriminator.requires_grad_(False)
    faces = generated.clone().requires_grad_()
    fake = discriminator(faces)
    loss = AdversarialLoss()(fake)
    assert loss.item() == pytest.approx(float(REFERENCE["loss_perceptual"]), rel=1e-5)
    loss.backward()
    assert faces.grad is not None
    check_gradient(faces.grad, "loss_grad_perceptual")
    terms = DiscriminatorLoss()(discriminator(target), fake.detach())
    assert float(terms["disc_real"]) == pytest.approx(float(REFERENCE["loss_disc_real"]), rel=1e-5)
    assert float(terms["disc_fake"]) == pytest.approx(float(REFERENCE["loss_disc_fake"]), rel=1e-5)


def test_cosine_above_one_by_rounding_is_clamped() -> None:
    # Found by search: float32 rounding puts the cosine of this vector with itself above 1.
    vector = next(
        v for seed in range(1000) if float(torch.nn.functional.cosine_similarity(v := _positive(seed), v, dim=1)) > 1
    )
    with pytest.raises(RuntimeError, match="between 0 and 1"):
        torch.nn.functional.binary_cross_entropy(
            torch.nn.functional.cosine_similarity(vector, vector, dim=1), torch.ones(1)
        )
    assert float(CosineBCE()(vector, vector, 1.0)) == 0
    assert float(CosineBCE()(vector, vector, 0.0)) == pytest.approx(100)  # the framework cuts logarithms there


def _positive(seed: int) -> torch.Tensor:
    return torch.rand(1, 512, generator=torch.Generator().manual_seed(seed))


def test_orthogonal_embeddings_give_a_finite_loss_and_gradient() -> None:
    audio = torch.tensor([[1.0, 0.0]], requires_grad=True)
    loss = CosineBCE()(audio, torch.tensor([[0.0, 1.0]]), 1.0)
    loss.backward()
    assert loss.item() == pytest.approx(100)
    assert audio.grad is not None
    assert torch.isfinite(audio.grad).all()


def test_constant_half_gives_chance_level() -> None:
    assert float(AdversarialLoss()(torch.full((10, 1), 0.5))) == pytest.approx(math.log(2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_works_under_autocast_in_float32(dtype: torch.dtype) -> None:
    with torch.autocast("cpu", dtype=dtype):
        loss = AdversarialLoss()(torch.full((10, 1), 0.5, dtype=dtype))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(math.log(2))
