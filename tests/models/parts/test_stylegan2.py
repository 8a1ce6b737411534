# SPDX-License-Identifier: Apache-2.0
"""StyleGAN2's discriminator: the published table, its blur, what the minibatch tells it, R1 against differences."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_bench.models.parts.stylegan2 import (
    StyleGAN2Discriminator,
    _Blur,
    logistic_terms,
    minibatch_deviation,
    non_saturating_loss,
    r1_penalty,
)


def small(size: int = 16, seed: int = 0) -> StyleGAN2Discriminator:
    torch.manual_seed(seed)
    return StyleGAN2Discriminator(size, width=1 / 64)


def images(count: int, size: int = 16, seed: int = 1) -> Tensor:
    return torch.rand((count, 3, size, size), generator=torch.Generator().manual_seed(seed)) * 2 - 1


# The network


def test_channels_and_parameters_are_the_published_ones() -> None:
    with torch.device("meta"):
        network = StyleGAN2Discriminator(1024)
    assert sum(parameter.numel() for parameter in network.parameters()) == 29_012_513  # of config F at 1024 pixels
    assert network.from_rgb.weight.shape == (32, 3, 1, 1)
    table = [block.shortcut[1].weight.shape[0] for block in network.blocks]
    assert table == [64, 128, 256, 512, 512, 512, 512, 512]  # at 512, 256, ..., 4 pixels
    assert network.last_conv.weight.shape == (512, 513, 3, 3)


@pytest.mark.parametrize("size", [16, 32, 128])
def test_any_power_of_two_gives_one_logit_an_image(size: int) -> None:
    network = small(size)
    logits = network(images(2, size))
    assert logits.shape == (2, 1)
    assert torch.isfinite(logits).all()
    assert len(network.blocks) == math.log2(size) - 2


@pytest.mark.parametrize("size", [8, 48, 0])
def test_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(
        ValueError, match=rf"image_size is {size}\. Expected a power of two from 16 on.*--model\.init_args\.image_size"
    ):
        StyleGAN2Discriminator(size)


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"images are \(2, 3, 32, 32\)\. Expected \(N, 3, 16, 16\).*image_size"):
        small()(images(2, 32))


def test_layers_keep_the_signals_power() -> None:
    """Weights of N(0, 1) times He's constant: maps neither grow nor fade at any depth."""
    torch.manual_seed(0)
    network = StyleGAN2Discriminator(64, width=0.25)
    assert float(network.blocks[0].main[0].weight.detach().std()) == pytest.approx(1, abs=0.05)
    x = network.from_rgb(torch.randn(4, 3, 64, 64))
    for block in network.blocks:
        before = x.square().mean().sqrt()
        x = block(x)
        assert 0.4 < float(x.square().mean().sqrt() / before) < 1.5  # the blur takes some power from noise


def test_head_is_float32_under_autocast_and_gradients_reach_every_parameter() -> None:
    network = small()
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(images(4))
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, network(images(4)), atol=0.05, rtol=0.05)
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


# Blur


def test_blur_sums_to_one_and_keeps_a_constant_inside() -> None:
    blur = _Blur(stride=1, padding=2)
    assert float(blur.kernel.sum()) == pytest.approx(1, abs=1e-7)
    out = blur(torch.full((2, 3, 8, 8), 0.7))
    assert out.shape == (2, 3, 9, 9)
    torch.testing.assert_close(out[..., 2:-2, 2:-2], torch.full((2, 3, 5, 5), 0.7))
    channel_by_channel = F.conv2d(images(2), blur.kernel.expand(3, 1, 4, 4), padding=2, groups=3)
    torch.testing.assert_close(blur(images(2)), channel_by_channel)


def test_blur_removes_the_highest_frequency_that_halving_would_fold() -> None:
    checks = torch.ones(1, 1, 16, 16)
    checks[..., ::2] = -1
    halved = _Blur(stride=2, padding=1)(checks)
    assert halved.shape == (1, 1, 8, 8)
    assert halved[..., 1:-1, 1:-1].abs().max() < 1e-6


def test_both_ways_of_a_block_look_at_the_same_place() -> None:
    """A ramp comes out of both with the same positions: the means of an output's four middle pixels."""
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    middle = 2 * torch.arange(8.0) + 0.5
    through_shortcut = _Blur(stride=2, padding=1)(ramp)[0, 0, 4]
    torch.testing.assert_close(through_shortcut[1:-1], middle[1:-1])
    blurred = _Blur(stride=1, padding=2)(ramp)
    through_main = F.conv2d(blurred, torch.full((1, 1, 3, 3), 1 / 9), stride=2)[0, 0, 4]
    torch.testing.assert_close(through_main[2:-2], middle[2:-2])


# Minibatch deviation


def test_minibatch_deviation_sees_identical_images() -> None:
    same = torch.randn(1, 8, 4, 4).expand(4, 8, 4, 4)
    out = minibatch_deviation(same)
    assert out.shape == (4, 9, 4, 4)
    assert torch.equal(out[:, :8], same)
    torch.testing.assert_close(out[:, 8], torch.full((4, 4, 4), 1e-4))  # the root of its epsilon
    different = minibatch_deviation(torch.randn(4, 8, 4, 4))[:, 8]
    assert float(different.min()) > 0.5
    assert float(different.max() - different.min()) == 0  # one number a group


def test_minibatch_deviation_is_that_of_groups_of_at_most_four() -> None:
    x = torch.randn(8, 2, 4, 4).double()
    added = minibatch_deviation(x)[:, 2, 0, 0]
    expected = [x[start : start + 4].std(dim=0, correction=0).mean() for start in (0, 4)]
    torch.testing.assert_close(added, torch.stack(expected).repeat_interleave(4), rtol=1e-6, atol=0)
    for count, group in ((1, 1), (2, 2), (3, 3), (5, 1), (6, 3)):
        assert minibatch_deviation(x[:count])[:, 2, 0, 0].unique().numel() == (count // group if group > 1 else 1)


# Losses


def test_losses_are_logistic_and_finite_far_out() -> None:
    real, fake = torch.tensor([[0.3], [-2.0]]), torch.tensor([[1.5], [0.0]])
    terms = logistic_terms(real, fake)
    assert list(terms) == ["disc_real", "disc_fake"]
    bce = F.binary_cross_entropy_with_logits
    torch.testing.assert_close(terms["disc_real"], bce(real, torch.ones_like(real)))
    torch.testing.assert_close(terms["disc_fake"], bce(fake, torch.zeros_like(fake)))
    torch.testing.assert_close(non_saturating_loss(fake), bce(fake, torch.ones_like(fake)))
    assert float(non_saturating_loss(torch.zeros(3, 1))) == pytest.approx(math.log(2))
    far = torch.tensor([[-200.0]], dtype=torch.float16, requires_grad=True)
    loss = non_saturating_loss(far)
    assert float(loss) == 200
    loss.backward()
    assert float(far.grad) == -1  # not saturated


def test_r1_equals_numerical_gradients() -> None:
    network, real = small().double(), images(2).double()
    steps = torch.zeros_like(real).flatten()
    size = 1e-6
    with torch.no_grad():
        for index in range(steps.numel()):
            ends = []
            for sign in (1, -1):
                moved = real.clone().flatten()
                moved[index] += sign * size
                ends.append(network(moved.view_as(real)).sum())
            steps[index] = (ends[0] - ends[1]) / (2 * size)
    expected = 0.5 * 10 * steps.view(2, -1).square().sum(dim=1).mean()
    penalty = r1_penalty(network, real)
    assert float(penalty) == pytest.approx(float(expected), rel=1e-6)
    assert float(r1_penalty(network, real, gamma=1.0)) == pytest.approx(float(expected) / 10, rel=1e-6)


def test_r1_moves_the_discriminators_weights_as_differences_say() -> None:
    network, real = small().double(), images(2).double()
    weight = network.blocks[0].main[0].weight
    (gradient,) = torch.autograd.grad(r1_penalty(network, real), weight)
    size = 1e-6
    for index in ((0, 0, 1, 1), (3, 5, 0, 2)):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[index] += sign * size
            ends.append(float(r1_penalty(network, real)))
            with torch.no_grad():
                weight[index] -= sign * size
        assert float(gradient[index]) == pytest.approx((ends[0] - ends[1]) / (2 * size), rel=1e-4, abs=1e-9)


def test_r1_leaves_autocast_and_the_images_alone() -> None:
    network, real = small(), images(2)
    plain = r1_penalty(network, real)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        penalty = r1_penalty(network, real)
    assert torch.equal(penalty, plain)
    assert penalty.requires_grad
    assert not real.requires_grad
    assert float(r1_penalty(nn.Sequential(nn.Flatten(), nn.Linear(768, 1)), real)) > 0


def test_a_discriminator_learns_to_tell_two_kinds_apart() -> None:
    network = small()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2, betas=(0.0, 0.99))
    losses = []
    for step in range(60):
        noise, flat = images(8, seed=step), images(8, 1, seed=step).expand(8, 3, 16, 16)
        loss = torch.stack(list(logistic_terms(network(noise), network(flat)).values())).sum()
        optimizer.zero_grad()
        (loss + r1_penalty(network, noise, gamma=0.1)).backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[0] > 1
    assert sorted(losses[-10:])[5] < 0.3  # now and then one batch is misjudged
