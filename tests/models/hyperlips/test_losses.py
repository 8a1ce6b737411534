# SPDX-License-Identifier: Apache-2.0
"""HyperLips' own losses, by hand and at their edges; stored training steps go through them in test_hyperlips.py."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lipsync_bench.models.hyperlips.losses import AsPrinted, LipLoss, NonSaturating, Relativistic, make_adversarial
from lipsync_bench.models.parts.losses import check_weights
from lipsync_bench.models.parts.perceptual import RANDOM, LPIPSLoss

SIZE = 64


def logits(*probabilities: float) -> Tensor:
    return torch.logit(torch.tensor(probabilities, dtype=torch.float64))[:, None].requires_grad_()


def gradient(x: Tensor) -> list[Any]:
    assert x.grad is not None
    return [pytest.approx(value, rel=1e-5) for value in x.grad.flatten().tolist()]


# Adversarial losses


def test_as_printed_is_what_is_printed() -> None:
    real, fake = logits(0.9, 0.2), logits(0.5, 0.25, 0.1)
    judged = AsPrinted().discriminator_loss(real, fake)
    assert set(judged) == {"disc_real", "disc_fake"}
    assert judged["disc_real"].item() == pytest.approx((math.log(0.1) + math.log(0.8)) / 2, rel=1e-6)  # Eq. 3
    assert judged["disc_fake"].item() == pytest.approx((math.log(0.5) + math.log(0.25) + math.log(0.1)) / 3, rel=1e-6)
    assert AsPrinted().generator_loss(real, fake).item() == pytest.approx(
        (math.log(0.5) + math.log(0.75) + math.log(0.9)) / 3, rel=1e-6
    )  # Eq. 4
    # Minimising them makes D call true faces real and generated ones not, and the generator work against that.
    sum(judged.values()).backward()  # type: ignore[union-attr]
    assert gradient(real) == [-0.9 / 2, -0.2 / 2]
    assert gradient(fake) == [0.5 / 3, 0.75 / 3, 0.9 / 3]
    fake.grad = None
    AsPrinted().generator_loss(real, fake).backward()
    assert gradient(fake) == [-0.5 / 3, -0.25 / 3, -0.1 / 3]


@pytest.mark.parametrize("name", ["as_printed", "non_saturating", "relativistic"])
@pytest.mark.parametrize("logit", [-1000.0, -50.0, 50.0, 1000.0])
def test_adversarial_losses_and_their_gradients_are_finite_at_certainty(name: str, logit: float) -> None:
    kind = make_adversarial(name)  # type: ignore[arg-type]
    for loss in (kind.generator_loss, lambda *x: torch.stack(list(kind.discriminator_loss(*x).values())).sum()):
        real, fake = torch.tensor([[logit], [0.0]], requires_grad=True), torch.tensor([[0.0], [logit]])
        value = loss(real, fake.requires_grad_())
        value.backward()
        assert torch.isfinite(value)
        for x in (real, fake):
            assert x.grad is None or torch.isfinite(x.grad).all()


def test_the_default_corrects_what_is_misjudged() -> None:
    """Where BCE of a float32 probability has no slope any more."""
    fake = torch.tensor([[-300.0]], requires_grad=True)
    NonSaturating().generator_loss(fake, fake).backward()
    assert float(fake.grad) == -1  # type: ignore[arg-type]


def test_as_printed_is_cut_at_87() -> None:
    far = torch.tensor([[300.0]])
    assert AsPrinted().generator_loss(far, far).item() == -87
    assert [value.item() for value in AsPrinted().discriminator_loss(far, -far).values()] == [-87, -87]


@pytest.mark.parametrize("sides", [(-300.0, -100.0), (300.0, 100.0), (-100.0, 100.0)])
def test_as_printed_says_once_that_it_has_died(sides: tuple[float, float], caplog: pytest.LogCaptureFixture) -> None:
    kind, dead, alive = AsPrinted(), torch.tensor(sides)[:, None], torch.tensor([[-300.0], [80.0]])
    kind.generator_loss(alive, alive)
    assert not caplog.records
    for _ in range(3):
        logit = dead.clone().requires_grad_()
        kind.generator_loss(dead, logit).backward()
        assert float(logit.grad.abs().max()) < 1e-37  # type: ignore[union-attr]
    (record,) = caplog.records
    assert f"between {min(sides):.0f} and {max(sides):.0f}" in record.getMessage()
    assert "--model.init_args.adversarial non_saturating" in record.getMessage()


def test_the_older_name_is_taken_with_a_note(caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(make_adversarial("minimax"), AsPrinted)
    assert "minimax is called as_printed now" in caplog.text


def test_16_bit_logits() -> None:
    """1 - 2^-10 is 1 in bfloat16."""
    small = torch.full((1, 1), -6.9375, dtype=torch.bfloat16)
    expected = pytest.approx(-math.log1p(math.exp(-6.9375)), rel=1e-4)
    assert float(AsPrinted().generator_loss(small, small)) == expected
    assert float(AsPrinted().discriminator_loss(small, small)["disc_real"]) == expected


def test_non_saturating_by_hand() -> None:
    real, fake = logits(0.9, 0.2), logits(0.5, 0.1)
    assert NonSaturating().generator_loss(real, fake).item() == pytest.approx(-(math.log(0.5) + math.log(0.1)) / 2)
    judged = {name: value.item() for name, value in NonSaturating().discriminator_loss(real, fake).items()}
    assert judged == {
        "disc_real": pytest.approx(-(math.log(0.9) + math.log(0.2)) / 2),
        "disc_fake": pytest.approx(-(math.log(0.5) + math.log(0.9)) / 2),
    }


def relativistic(real: np.ndarray, fake: np.ndarray, label: float) -> float:
    def bce_with_logits(x: np.ndarray, y: float) -> float:
        p = 1 / (1 + np.exp(-x))
        return float(np.mean(-y * np.log(p) - (1 - y) * np.log(1 - p)))

    real, fake = (1 / (1 + np.exp(-x)) for x in (real, fake))
    return (bce_with_logits(real - fake.mean(), label) + bce_with_logits(fake - real.mean(), 1 - label)) / 2


def test_relativistic_by_hand() -> None:
    random = np.random.default_rng(0)
    real, fake = random.normal(size=(10, 1)), random.normal(size=(10, 1))
    tensors = [torch.from_numpy(x).requires_grad_() for x in (real, fake)]
    kind = Relativistic()
    assert kind.compares
    own = kind.generator_loss(*tensors)
    assert own.item() == pytest.approx(relativistic(real, fake, 0.0), rel=1e-6)
    (judged,) = kind.discriminator_loss(*tensors).values()
    assert judged.item() == pytest.approx(relativistic(real, fake, 1.0), rel=1e-6)
    assert own.item() != pytest.approx(judged.item(), rel=1e-3)
    # The means carry gradients: derivatives in one logit of either kind, by differences.
    for loss, label in ((own, 0.0), (judged, 1.0)):
        for x in tensors:
            x.grad = None
        loss.backward()
        for kind, x in enumerate(tensors):
            values = []
            for step in (1e-5, -1e-5):
                moved = [real.copy(), fake.copy()]
                moved[kind][3] += step
                values.append(relativistic(moved[0], moved[1], label))
            assert x.grad is not None
            assert x.grad[3].item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-3)


def test_only_the_relativistic_loss_reads_the_true_faces() -> None:
    assert not AsPrinted.compares
    assert not NonSaturating.compares
    images = torch.full((2, 3, 4, 4), 7.0)  # anything
    for kind in (AsPrinted(), NonSaturating()):
        assert torch.isfinite(kind.generator_loss(images, logits(0.3)))


def test_other_kinds_and_weights_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"adversarial is 'wgan'\. .*relativistic\. Set --model\.init_args\.adversarial"
    ):
        make_adversarial("wgan")  # type: ignore[arg-type]
    check_weights({"l1": 0.0, "sync": 3.0})
    for value in (-0.1, math.nan):
        with pytest.raises(ValueError, match=rf"sync_weight is {value}\. .*Set --model\.init_args\.sync_weight\."):
            check_weights({"l1": 1.0, "sync": value})


# The lips


@pytest.fixture(scope="module")
def lpips() -> LPIPSLoss:
    torch.manual_seed(0)
    return LPIPSLoss(RANDOM)


def images(seed: int, count: int = 2) -> Tensor:
    return torch.rand((count, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(seed))


def rectangle(*boxes: tuple[int, int, int, int]) -> tuple[Tensor, Tensor]:
    """Masks and boxes as the windows have them: the box's ends are white rows and columns."""
    masks = torch.zeros(len(boxes), 1, SIZE, SIZE)
    for mask, (top, bottom, left, right) in zip(masks, boxes, strict=True):
        mask[:, top : bottom + 1, left : right + 1] = 1
    return masks, torch.tensor(boxes)


def test_masked_difference_counts_the_mask_and_nothing_else(lpips: LPIPSLoss) -> None:
    generated, target = images(1), images(2)
    masks, boxes = rectangle((10, 45, 8, 52), (20, 60, 4, 60))
    loss = LipLoss(lpips)
    distance, difference = loss(generated, target, masks, boxes)
    by_hand = np.mean(np.abs(generated.numpy() - target.numpy()) * masks.numpy())  # over all pixels of the image
    assert float(difference) == pytest.approx(float(by_hand), rel=1e-5)
    assert distance is not None
    crops = [
        float(lpips(generated[:1, :, 10:45, 8:52], target[:1, :, 10:45, 8:52])),
        float(lpips(generated[1:, :, 20:60, 4:60], target[1:, :, 20:60, 4:60])),
    ]
    assert float(distance) == pytest.approx(sum(crops) / 2, rel=1e-5)
    elsewhere = torch.where(masks == 1, generated, 0.0)
    assert torch.equal(loss(elsewhere, target, masks, boxes)[1], difference)
    inside = generated.clone()
    inside[0, 0, 30, 30] += 0.5
    assert not torch.equal(loss(inside, target, masks, boxes)[1], difference)


def test_released_lips_are_the_half_open_rectangle_without_the_mask(lpips: LPIPSLoss) -> None:
    generated, target = images(3), images(4)
    masks, boxes = rectangle((10, 45, 8, 52), (20, 60, 4, 60))
    loss = LipLoss(lpips, masked=False)
    distance, difference = loss(generated, target, masks, boxes)
    crops = [
        (generated[:1, :, 10:45, 8:52], target[:1, :, 10:45, 8:52]),
        (generated[1:, :, 20:60, 4:60], target[1:, :, 20:60, 4:60]),
    ]
    means = [float((a - b).abs().mean()) for a, b in crops]
    assert float(difference) == pytest.approx(sum(means) / 2, rel=1e-5)  # each image counts alike
    assert distance is not None
    assert float(distance) == pytest.approx(sum(float(lpips(*crop)) for crop in crops) / 2, rel=1e-5)
    assert torch.equal(loss(generated, target, torch.zeros_like(masks), boxes)[1], difference)
    generated[0, :, 45], generated[1, :, :, 60] = 9.0, 9.0  # the last row and column of the lips fall off
    assert torch.equal(loss(generated, target, masks, boxes)[1], difference)
    generated[0, :, 44] = 9.0
    assert not torch.equal(loss(generated, target, masks, boxes)[1], difference)


@pytest.mark.parametrize(
    ("box", "masked", "widened"),
    [
        ((30, 40, 20, 44), True, (19, 51, 16, 48)),  # around the middle
        ((2, 10, 50, 63), True, (0, 32, 32, 64)),  # inside the image
        ((5, 60, 3, 35), True, (5, 60, 3, 35)),  # large enough
        ((30, 40, 20, 44), False, (27, 43, 20, 44)),
        ((30, 30, 0, 0), False, (22, 38, 0, 16)),  # empty
        ((48, 63, 47, 63), False, (48, 64, 47, 63)),
    ],
)
def test_small_rectangles_are_widened_to_what_lpips_takes(
    lpips: LPIPSLoss, box: tuple[int, int, int, int], masked: bool, widened: tuple[int, int, int, int]
) -> None:
    generated, target = images(5, 1), images(6, 1)
    masks, boxes = rectangle(box)
    distance, difference = LipLoss(lpips, masked)(generated, target, masks, boxes)
    top, bottom, left, right = widened
    crops = generated[..., top:bottom, left:right], target[..., top:bottom, left:right]
    assert distance is not None
    assert float(distance) == pytest.approx(float(lpips(*crops)), rel=1e-5)
    if not masked:
        assert float(difference) == pytest.approx(float((crops[0] - crops[1]).abs().mean()), rel=1e-5)


def test_lpips_fails_below_16_pixels(lpips: LPIPSLoss) -> None:
    """Why rectangles are widened with the released form too."""
    lpips(images(5, 1)[..., :16, :16], images(6, 1)[..., :16, :16])
    with pytest.raises(RuntimeError, match="too small"):
        lpips(images(5, 1)[..., :15, :40], images(6, 1)[..., :15, :40])


def test_lips_without_lpips_and_their_gradients(lpips: LPIPSLoss) -> None:
    generated, target = images(7).requires_grad_(), images(8)
    places = rectangle((10, 45, 8, 52), (20, 60, 4, 60))
    for masked in (True, False):
        nothing, alone = LipLoss(None, masked)(generated, target, *places)
        assert nothing is None
        distance, difference = LipLoss(lpips, masked)(generated, target, *places)
        assert torch.equal(alone, difference)
        assert distance is not None
        generated.grad = None
        distance.backward()
        assert generated.grad is not None
        assert generated.grad[0, :, 10:45, 8:52].abs().max() > 0
        assert generated.grad[0, :, :, 52:].abs().max() == 0
    assert not any(parameter.requires_grad for parameter in lpips.parameters())
