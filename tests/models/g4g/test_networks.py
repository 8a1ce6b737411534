# SPDX-License-Identifier: Apache-2.0
"""G4G's networks: shapes of the sheets, and what must hold of deformation, alignment, fusion and discriminators."""

import math

import pytest
import torch
from torch import Tensor

from lipsync_bench.models.g4g.contrast import ContrastHeads, Places, contrast, near
from lipsync_bench.models.g4g.deformation import Deformation, affine_offsets
from lipsync_bench.models.g4g.discriminators import G4GDiscriminators, PatchDiscriminator, least_squares
from lipsync_bench.models.g4g.fusion import BlendNet, composite
from lipsync_bench.models.g4g.layers import AdaINBlock, AlignmentConvs, adaptive_instance_norm
from lipsync_bench.models.g4g.network import G4GGenerator
from lipsync_bench.models.g4g.regions import hidden_part, square
from lipsync_bench.models.parts.sampling import sample_bilinear

SMALL_HW = (104, 80)


def sampled(maps: Tensor, scale: float, angle: float, move: tuple[float, float], isotropic: bool = True) -> Tensor:
    n, c, height, width = maps.shape
    values = (torch.full((n, c), value, dtype=maps.dtype) for value in (scale, angle))
    moved = torch.tensor(move, dtype=maps.dtype).expand(n, c, 2)
    offsets = affine_offsets(*values, moved, (height, width), isotropic)
    return sample_bilinear(maps.flatten(0, 1)[:, None], offsets.flatten(0, 1)).view_as(maps)


@pytest.mark.parametrize("isotropic", [True, False])
@pytest.mark.parametrize("size_hw", [(26, 20), (13, 7), (104, 80)])
def test_the_identity_is_exact(size_hw: tuple[int, int], isotropic: bool) -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 8, *size_hw)
    assert torch.equal(sampled(maps, 1.0, 0.0, (0, 0), isotropic), maps)
    module = Deformation(8, 6, isotropic)
    assert torch.equal(module(maps, torch.randn(2, 6)), maps)  # whatever the code
    assert not torch.equal(Deformation(8, 6, isotropic, identity_init=False)(maps, torch.randn(2, 6)), maps)


def test_a_channel_moves_by_one_cell_and_no_other_does() -> None:
    torch.manual_seed(0)
    module, maps = Deformation(4, 6), torch.randn(1, 4, 26, 20)
    with torch.no_grad():  # channel 2, x: tanh(b) half maps
        module.translation.bias[4] = math.atanh(2 / 19)
    moved = module(maps, torch.zeros(1, 6))
    torch.testing.assert_close(moved[:, 2, :, :-1], maps[:, 2, :, 1:], atol=1e-5, rtol=0)
    torch.testing.assert_close(moved[:, 2, :, -1], maps[:, 2, :, -1], atol=1e-5, rtol=0)  # the border goes on
    others = [0, 1, 3]
    assert torch.equal(moved[:, others], maps[:, others])
    down = sampled(maps, 1.0, 0.0, (0, 2 / 25))
    torch.testing.assert_close(down[..., :-1, :], maps[..., 1:, :], atol=1e-5, rtol=0)


def test_a_quarter_turn_is_one_in_cells_and_a_shear_in_the_literal_form() -> None:
    torch.manual_seed(0)
    maps = torch.randn(1, 1, 9, 5, dtype=torch.float64)
    turned = sampled(maps, 1.0, math.pi / 2, (0, 0))
    # (x, y) samples (-y, x): the middle 5 x 5 of the map turns onto itself
    torch.testing.assert_close(turned[0, 0, 2:7], torch.rot90(maps[0, 0, 2:7]), atol=1e-9, rtol=0)
    literal = sampled(maps, 1.0, math.pi / 2, (0, 0), isotropic=False)
    corner = literal[0, 0, 0, 0], maps[0, 0, 0, 4]  # corners go to corners, though the map is not square
    torch.testing.assert_close(*corner, atol=1e-9, rtol=0)
    square_map = torch.randn(1, 1, 7, 7, dtype=torch.float64)
    both = [sampled(square_map, 0.7, 0.4, (0.1, -0.2), isotropic) for isotropic in (True, False)]
    torch.testing.assert_close(*both, atol=1e-12, rtol=0)


def test_doubling_the_scale_shows_the_double_distance() -> None:
    maps = torch.arange(11.0).expand(1, 1, 11, 11)
    torch.testing.assert_close(sampled(maps, 2.0, 0.0, (0, 0))[0, 0, 5, 3:8], torch.tensor([1.0, 3, 5, 7, 9]))


def test_the_norm_takes_the_landmarks_scale_and_shift() -> None:
    torch.manual_seed(0)
    x, scale, shift = torch.randn(2, 3, 8, 8) * 5 + 4, torch.rand(2, 3), torch.randn(2, 3)
    y = adaptive_instance_norm(x, scale, shift)
    torch.testing.assert_close(y.mean(dim=(2, 3)), shift, atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std(dim=(2, 3), correction=0), scale, atol=1e-4, rtol=1e-4)
    block = AdaINBlock(3, 4)
    means = [block(z, torch.ones(2, 4)).mean(dim=(2, 3)) - z.mean(dim=(2, 3)) for z in (x, x.flip(0).square())]
    assert not torch.allclose(*means)  # the mean over the map depends on the convolutions, not the shift alone


def generator(**changes: object) -> G4GGenerator:
    torch.manual_seed(0)
    return G4GGenerator(width=0.0625, **changes)  # type: ignore[arg-type]


def example(frames: int = 4, size_hw: tuple[int, int] = SMALL_HW) -> dict[str, Tensor]:
    torch.manual_seed(1)
    image = (frames, 3, *size_hw)
    return {
        "mels": torch.randn(frames, 1, 80, 16),
        "source": torch.rand(image),
        "references": torch.rand(frames // 2, 15, *size_hw),
        "landmarks": torch.rand(frames // 2, 1, *size_hw),
        "mask": torch.rand(frames, 1, *size_hw),
    }


@pytest.mark.parametrize("changes", [{}, {"alignment": False}, {"fusion": False}, {"momentum": 0.9}])
def test_a_face_of_any_of_the_three_sizes_is_drawn(changes: dict[str, object]) -> None:
    network = generator(**changes).eval()
    for size_hw in (SMALL_HW, (208, 160)):
        with torch.no_grad():
            image, seen = network(**example(2, size_hw))
        assert image.shape == (2, 3, *size_hw)
        assert 0 <= image.min() <= image.max() <= 1
        assert seen.source.shape[-2:] == (size_hw[0] // 4, size_hw[1] // 4)
        assert (seen.landmarks is None) == (changes == {"alignment": False})


def test_the_published_width_has_the_sheets_channels() -> None:
    with torch.device("meta"):
        network = G4GGenerator()
    assert network.deformation.scale.out_features == 256
    assert network.deformation.common[0].in_features == 256  # 128 visual and 128 audio
    assert network.decoder.layers[0].conv_block[0].in_channels == 512
    assert network.reference_encoder[0].conv_block[0].in_channels == 15
    assert len(network.before) == len(network.after) == 4
    assert [block[0].conv_block[0].out_channels for block in network.blend.down] == [32, 64, 128, 256, 512]
    with torch.device("meta"):
        convs = AlignmentConvs(256, 1.0)
        maps = torch.zeros(1, 256, 104, 80)
        assert convs(maps, maps).shape == (1, 128)


def test_no_gradient_reaches_the_landmark_encoder_from_its_own_loss() -> None:
    network = generator()
    _, seen = network(**example())
    network.landmark_distance(seen).backward()
    assert all(p.grad is None for p in network.landmark_encoder.parameters())
    assert all(p.grad is not None for p in network.alignment.parameters())
    assert all(p.grad is not None for p in network.source_encoder.parameters())
    image, _ = network(**example())
    image.sum().backward()  # the image's losses train it
    assert all(p.grad is not None for p in network.landmark_encoder.parameters())


def test_each_reference_serves_the_frames_of_its_clip() -> None:
    network, batch = generator().eval(), example(4)
    with torch.no_grad():
        together = network(**batch)[0]
        repeated = {**batch, **{key: batch[key].repeat_interleave(2, dim=0) for key in ("references", "landmarks")}}
        torch.testing.assert_close(network(**repeated)[0], together, atol=1e-5, rtol=0)
        other = {**batch, "references": torch.cat([batch["references"][:1], 1 - batch["references"][1:]])}
        changed = network(**other)[0]
    torch.testing.assert_close(changed[:2], together[:2], atol=1e-7, rtol=0)
    assert (changed[2:] - together[2:]).abs().max() > 1e-6


def test_the_squares_are_the_sheets() -> None:
    assert square((416, 320), 256) == (slice(128, 384), slice(32, 288))
    assert square((416, 320), 192) == (slice(160, 352), slice(64, 256))
    assert square((416, 320), 320) == (slice(96, 416), slice(0, 320))
    assert square((104, 80), 256) == (slice(32, 96), slice(8, 72))
    assert hidden_part((416, 320), "square").sum() == 256**2
    assert hidden_part((416, 320), "lower_half")[0, 208:].all()
    assert not hidden_part((416, 320), "lower_half")[0, :208].any()


def test_the_composite_is_the_generated_face_inside_and_the_source_outside() -> None:
    generated, source = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 4:] = 1
    made = composite(generated, source, mask)
    torch.testing.assert_close(made[..., 4:], generated[..., 4:])
    assert torch.equal(made[..., :4], source[..., :4])


def test_the_blend_net_draws_the_image_itself() -> None:
    torch.manual_seed(0)
    net = BlendNet(width=0.25).eval()
    with torch.no_grad():
        for head in (net.last,):
            head.weight.zero_()
            head.bias.zero_()
        assert torch.equal(net(torch.rand(1, 3, 52, 36), torch.ones(1, 1, 52, 36)), torch.full((1, 3, 52, 36), 0.5))


def test_only_the_five_frame_discriminator_sees_time() -> None:
    torch.manual_seed(0)
    both = G4GDiscriminators(5, width=0.0625)
    shades = torch.linspace(0, 1, 5)[None, :, None, None, None] + torch.rand(2, 1, 1, 1, 1)
    forwards = shades.expand(-1, -1, 3, 56, 56)
    order = torch.tensor([2, 0, 4, 1, 3])
    mixed = forwards[:, order]  # the same frames, in another order
    adam = torch.optim.Adam(both.parameters(), lr=3e-3)
    for _ in range(20):
        real, fake = both(forwards), both(mixed)
        loss = sum(least_squares(real[name], 1) + least_squares(fake[name], 0) for name in real)
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        real, fake = both(forwards), both(mixed)
    apart = {name: float(real[name].mean() - fake[name].mean()) for name in real}
    assert apart["clip"] > 0.3
    assert abs(apart["frame"]) < 1e-5
    assert set(G4GDiscriminators(1, width=0.0625)(forwards[:, :1])) == {"frame"}


def test_discriminators_have_the_sheets_layers() -> None:
    with torch.device("meta"):
        assert PatchDiscriminator(15)(torch.zeros(1, 15, 416, 320)).shape == (1, 1, 46, 34)
        channels = [conv.out_channels for conv in PatchDiscriminator(3).convs]
    assert channels == [128, 256, 256, 256]
    assert least_squares(torch.tensor([0.0, 3.0]), 1.0) == pytest.approx(2.5)


def test_neighbours_of_one_clip_are_neither_positive_nor_negative() -> None:
    places = Places(torch.tensor([7, 7, 7, 8]), torch.tensor([0, 2, 3, 0]))
    wanted = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]], dtype=torch.bool)
    assert torch.equal(near(places, places, 3), wanted)
    apart = Places(torch.tensor([7, 9]), torch.tensor([9, 0]))
    logits, far = torch.zeros(4, 4), torch.zeros(4, 2)
    found = contrast(logits, logits, places, far, apart, 3)
    # row 0 counts itself, frame 3, clip 8 and two far ones; columns lack the far ones
    sizes, without = torch.tensor([5.0, 4, 5, 6]), torch.tensor([3.0, 2, 3, 4])
    torch.testing.assert_close(found.loss, (sizes.log().mean() + without.log().mean()) / 2)
    torch.testing.assert_close(found.chance, (1 / sizes).mean())
    logits[0, 1] = 100  # a neighbour that looks alike costs nothing
    assert torch.equal(contrast(logits, logits.T, places, far, apart, 3).loss, found.loss)
    far[3, 1] = 100  # a further negative does
    assert contrast(logits, logits.T, places, far, apart, 3).loss > 10 * found.loss


def test_the_temperature_is_learnt_within_its_limit_and_copies_follow() -> None:
    torch.manual_seed(0)
    heads = ContrastHeads(6, 4, 8)
    assert heads.scale.item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        heads.log_scale.fill_(9.0)
    assert heads.scale.item() == 100
    assert not ContrastHeads(6, 4, 8, learn_tau=False).log_scale.requires_grad
    slow = ContrastHeads(6, 4, 8, momentum=0.75)
    before = slow.visual.weight.detach().clone()
    with torch.no_grad():
        slow.visual.weight.add_(1)
    v, a, slow_v, slow_a = slow.vectors(torch.randn(3, 6), torch.randn(3, 4))
    torch.testing.assert_close(slow.slow["visual"].weight, before + 0.25)
    assert not slow_v.requires_grad
    assert not torch.equal(v, slow_v)
    torch.testing.assert_close(a, slow_a)
