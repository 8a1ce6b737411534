# SPDX-License-Identifier: Apache-2.0
"""LipFormer's first stage: nearest entries and their gradients, re-seeding, the auto-encoder, its training."""

import math
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from lipsync_bench.models.core.checkpoints import RECORD, load_module, save_module
from lipsync_bench.models.lipformer import LipFormerCodebook
from lipsync_bench.models.lipformer.codebook.network import FaceDecoder, FaceEncoder, FacialCodebook
from lipsync_bench.models.lipformer.codebook.quantiser import INITIAL_DEVIATION, Quantiser
from lipsync_bench.models.parts.perceptual import RANDOM
from tests.models.training import Gradients, loader, trainer_for

TINY: dict[str, Any] = {
    "image_size": 64,
    "width": 0.25,
    "multipliers": (1, 2, 2, 2),
    "entries": 32,
    "code_channels": 16,
}
ALONE: dict[str, Any] = {**TINY, "perceptual_weight": 0.0, "adversarial_weight": 0.0}


def quantiser(entries: int = 8, channels: int = 4, reseed_after: int = 3) -> Quantiser:
    torch.manual_seed(0)
    return Quantiser(entries, channels, reseed_after)


def as_map(rows: Tensor, height: int = 1) -> Tensor:
    """Rows (h w, d) as encodings (1,d,h,w)."""
    return rows.T.unflatten(1, (height, -1))[None].contiguous()


def small_network() -> FacialCodebook:
    torch.manual_seed(0)
    return FacialCodebook(0.25, 32, 16, multipliers=(1, 2, 2, 2))


def faces(count: int, size: int = 64) -> Tensor:
    """Smooth coloured images in [0, 1]."""
    random = torch.Generator().manual_seed(3)
    rates = 8 * torch.rand((count, 3, 3, 1, 1), generator=random)
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    return 0.5 + 0.5 * torch.sin(rates[:, :, 0] * x + rates[:, :, 1] * y + rates[:, :, 2])


# Quantiser


def test_an_encoding_equal_to_an_entry_returns_the_entry_and_its_index() -> None:
    book = quantiser(64, 16)
    order = torch.randperm(64)
    found = book(as_map(book.embedding.detach()[order], height=4))
    assert found.indices.dtype == torch.int64
    assert torch.equal(found.indices, order.view(1, 4, 16))
    wanted = as_map(book.embedding.detach()[order], height=4)
    assert torch.equal(found.entries, wanted)
    assert torch.equal(found.codes, wanted)
    assert torch.equal(book.lookup(found.indices), wanted)


def test_nearest_is_euclidean_and_independent_of_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    book = quantiser(100, 8)
    features = torch.randn(2, 8, 5, 6)
    rows = features.movedim(1, -1).reshape(-1, 8).double()
    expected = torch.cdist(rows, book.embedding.detach().double()).argmin(dim=1).view(2, 5, 6)
    assert torch.equal(book(features).indices, expected)
    monkeypatch.setattr("lipsync_bench.models.lipformer.codebook.quantiser._DISTANCES", 700)  # seven rows at a time
    assert torch.equal(book(features).indices, expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(book(features).indices, expected)


def test_straight_through_gradient_is_one_and_spares_the_entries() -> None:
    book = quantiser()
    features = torch.randn(2, 4, 3, 5, requires_grad=True)
    found = book(features)
    torch.testing.assert_close(found.codes, found.entries, rtol=0, atol=0)
    found.codes.sum().backward()
    assert torch.equal(features.grad, torch.ones_like(features))
    assert book.embedding.grad is None


def test_loss_moves_entries_fully_and_encodings_by_the_commitment() -> None:
    book = quantiser()
    features = torch.randn(1, 4, 2, 3, requires_grad=True)
    found = book(features)
    difference = (features - found.entries).detach()
    loss = book.loss(features, found, commitment=0.25)
    assert float(loss.detach()) == pytest.approx(1.25 * float(difference.square().mean()), rel=1e-6)
    loss.backward()
    torch.testing.assert_close(features.grad, 0.25 * 2 * difference / difference.numel())
    expected = torch.zeros_like(book.embedding)
    expected.index_add_(0, found.indices.flatten(), -2 * difference[0].flatten(1).T / difference.numel())
    torch.testing.assert_close(book.embedding.grad, expected)
    assert float(book.loss(features, found, commitment=0.0).detach()) == pytest.approx(
        float(difference.square().mean())
    )


@pytest.mark.parametrize(
    ("indices", "perplexity"), [([3] * 12, 1.0), (list(range(8)), 8.0), ([0, 0, 1, 1], 2.0), ([0, 0, 0, 1], 1.754765)]
)
def test_perplexity_of_known_histograms(indices: list[int], perplexity: float) -> None:
    health = quantiser().health(torch.tensor(indices).view(1, 2, -1))
    assert set(health) == {"perplexity", "used"}
    assert float(health["perplexity"]) == pytest.approx(perplexity, rel=1e-5)


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"0 entries, 4 channels.*Expected 1 or more.*--model\.init_args\.entries"):
        Quantiser(0, 4)


# Re-seeding


def record(book: Quantiser, rows: Tensor) -> None:
    features = as_map(rows)
    book.record(book(features).indices, features)


def test_an_untrained_codebook_is_filled_with_encodings_none_twice() -> None:
    book = quantiser(entries=8, reseed_after=5)
    assert float(book.embedding.detach().std()) == pytest.approx(INITIAL_DEVIATION, rel=0.4)
    untrained = book.embedding.detach().clone()
    first, second = 10 + torch.randn(5, 4), 20 + torch.randn(6, 4)
    chosen = book(as_map(first)).indices.unique()
    record(book, first)
    after = book.embedding.detach().clone()
    changed = (after != untrained).any(dim=1)
    assert not changed[chosen].any()  # they were in use
    assert {tuple(row) for row in after[changed].tolist()} == {tuple(row) for row in first.tolist()}
    assert int(changed.sum()) == 5  # as many as there are encodings; the others wait
    waiting = int((book.idle_steps >= 5).sum())
    assert waiting == 8 - 5 - len(chosen) > 0
    record(book, second)
    assert int((book.embedding.detach() != after).any(dim=1).sum()) == waiting
    assert int((book.idle_steps >= 5).sum()) == 0
    assert len(book.embedding.detach().unique(dim=0)) == 8


def test_a_dead_entry_is_replaced_after_so_many_steps_and_live_ones_are_not() -> None:
    book = quantiser(entries=4, reseed_after=3)
    with torch.no_grad():
        book.embedding.copy_(torch.eye(4) * 5)
    book.idle_steps.zero_()
    before = book.embedding.detach().clone()
    rows = before[[0, 1, 2]] + 0.01
    for step in range(1, 4):
        unused = float(book.health(book(as_map(rows)).indices)["used"])
        assert unused == (0 if step == 1 else 0.75)
        record(book, rows)
        assert torch.equal(book.embedding[:3], before[:3])
        assert torch.equal(book.embedding[3], before[3]) == (step < 3)
    assert any(torch.equal(book.embedding[3], row) for row in rows)
    assert book.idle_steps.tolist() == [0, 0, 0, 0]
    assert book.used.tolist() == [True, True, True, False]  # until an encoding chooses it
    record(book, rows)
    assert book.used.sum() == 4  # the encoding that it was made of did


def test_used_forgets_what_was_used_too_long_ago() -> None:
    book = quantiser(entries=4, reseed_after=2)
    with torch.no_grad():
        book.embedding.copy_(torch.eye(4) * 5)
    rows = 5 * torch.eye(4)
    shares = []
    for step_rows in (rows, rows[:1], rows[:1]):
        record(book, step_rows)
        shares.append(float(book.health(torch.zeros(1, dtype=torch.int64))["used"]))
    assert shares == [1.0, 1.0, 0.25]


def test_re_seeding_repeats_with_the_seed_and_is_saved() -> None:
    books = [quantiser(entries=16) for _ in range(2)]
    for book in books:
        torch.manual_seed(5)
        record(book, torch.randn(40, 4) + 3)
    assert torch.equal(books[0].embedding, books[1].embedding)
    loaded = quantiser(entries=16)
    loaded.load_state_dict(books[0].state_dict())
    assert torch.equal(loaded.idle_steps, books[0].idle_steps)
    assert torch.equal(loaded.used, books[0].used)


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    book = quantiser(entries=6, reseed_after=2)
    with torch.no_grad():
        book.embedding[:4] = 5 * torch.eye(4)
    book.idle_steps.zero_()
    torch.manual_seed(rank)  # ranks draw differently by themselves
    for _ in range(2):
        record(book, 5 * torch.eye(4)[[2 * rank, 2 * rank + 1, 2 * rank][: 2 + rank]] + 0.01 * rank)
    torch.save(book.state_dict(), f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_agree_on_uses_and_seeds(tmp_path: Path) -> None:
    multiprocessing.set_forkserver_preload([__name__])
    mp.start_processes(_rank, args=(str(tmp_path),), nprocs=2, start_method="forkserver")
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    for name in first:
        assert torch.equal(first[name], second[name])
    assert first["used"].tolist() == [True] * 4 + [False] * 2  # what either rank used
    assert torch.equal(first["embedding"][:4], 5 * torch.eye(4))
    seeds = first["embedding"][4:]
    assert torch.equal(seeds.sort(dim=0).values, (5 * torch.eye(4)[:2]).sort(dim=0).values)  # rank 0's two encodings


# Encoder, decoder, network


def test_published_size_turns_512_pixels_into_two_maps_of_8_by_16() -> None:
    with torch.device("meta"):
        network, images = FacialCodebook(), torch.zeros(2, 3, 512, 512)
    upper, bottom = network.encode(images)
    assert upper.shape == bottom.shape == (2, 256, 8, 16)
    assert network.decode(upper, bottom).shape == (2, 3, 512, 512)
    assert network.upper.embedding.shape == network.bottom.embedding.shape == (1024, 256)
    kinds = [type(layer).__name__ for layer in network.encoder.layers]
    levels = [*(["_Block", "_Block", "Conv2d"] * 5), *(["_Block", "_Attention"] * 2)]
    assert kinds == ["Conv2d", *levels, "_Block", "_Block", "GroupNorm", "SiLU", "Conv2d"]
    mirrored = {"Conv2d": "_Enlarge"}
    assert [type(layer).__name__ for layer in network.decoder.layers][1:-3] == [
        mirrored.get(kind, kind) for kind in kinds[1:-3][::-1]
    ]


@pytest.mark.parametrize("multipliers", [(1,), (1, 2), (1, 3, 2)])
@pytest.mark.parametrize("width", [0.25, 0.6])
def test_any_levels_and_widths_fit_each_other(multipliers: tuple[int, ...], width: float) -> None:
    encoder = FaceEncoder(width, 24, 20, multipliers, residual_blocks=1)
    decoder = FaceDecoder(width, 24, 20, multipliers, residual_blocks=1)
    factor = 2 ** (len(multipliers) - 1)
    codes = encoder(torch.rand(2, 3, 16, 32) * 2 - 1)
    assert codes.shape == (2, 24, 16 // factor, 32 // factor)
    assert decoder(codes).shape == (2, 3, 16, 32)


def test_halves_are_encoded_by_themselves_and_come_back_in_order() -> None:
    network, images = small_network().eval(), faces(2)
    upper, bottom = network.encode(images)
    assert upper.shape == (2, 16, 4, 8)
    other = images.clone()
    other[:, :, 32:] = 1 - other[:, :, 32:]
    same, different = network.encode(other)
    torch.testing.assert_close(same, upper, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(different, bottom)
    flipped = torch.cat([images[:, :, 32:], images[:, :, :32]], dim=2)
    torch.testing.assert_close(network.encode(flipped), (bottom, upper), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(bottom, network.encoder(2 * images[:, :, 32:] - 1), rtol=1e-5, atol=1e-6)
    reconstruction, found, _, f_upper, _ = network(images)
    assert torch.equal(f_upper, upper)
    torch.testing.assert_close(
        reconstruction, network.decode(found.entries, network.bottom(bottom).entries), rtol=1e-5, atol=1e-5
    )


def test_images_that_codes_do_not_tile_are_refused() -> None:
    with pytest.raises(ValueError, match=r"images of 72 x 64 pixels.*multiple of 16.*one of 8.*multipliers"):
        small_network().encode(torch.zeros(1, 3, 72, 64))
    with pytest.raises(ValueError, match=r"residual_blocks 0.*--model\.init_args\.residual_blocks"):
        FaceEncoder(residual_blocks=0)


# The training


def health(module: LipFormerCodebook, batch: dict[str, Tensor]) -> dict[str, float]:
    terms = module.eval().loss_terms(batch, "val")
    return {name: float(value) for name, value in {**terms.loss, **terms.watched}.items()}


def test_one_batch_fit_with_every_term_gives_every_parameter_a_gradient(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, gradients = LipFormerCodebook(**LipFormerCodebook.smoke_arguments(tmp_path)), Gradients()
    batches = loader(module.example_batch())
    trainer = trainer_for(tmp_path, callbacks=[gradients])
    trainer.fit(module, batches, batches)
    assert not module.automatic_optimization
    assert not gradients.not_finite
    assert gradients.names == {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[0] for name in gradients.names} == {"network", "discriminator"}
    terms = {"vq", "l2", "lpips_random_weights", "adversarial", "disc_real", "disc_fake", "loss"}
    terms |= {f"{name}_{half}" for name in ("perplexity", "used") for half in ("upper", "bottom")}
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert set(logged) == {f"{stage}/{name}" for stage in ("train", "val") for name in terms} | {"train/r1", "val/l1"}
    assert all(math.isfinite(value) for value in logged.values())
    loss = logged["train/vq"] + logged["train/l2"]
    loss += 0.1 * logged["train/lpips_random_weights"] + 0.1 * logged["train/adversarial"]
    assert logged["train/loss"] == pytest.approx(loss, rel=1e-5)


def test_r1_comes_every_so_many_batches_across_epochs_and_resumed_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def penalty(discriminator: Any, real: Tensor, gamma: float) -> Tensor:
        assert gamma == 10
        assert float(real.min()) < 0  # the range of the network
        calls.append(trainer.global_step // 2)
        return 0 * discriminator(real).sum()

    monkeypatch.setattr("lipsync_bench.models.parts.stylegan2.r1_penalty", penalty)
    module = LipFormerCodebook(**{**ALONE, "adversarial_weight": 0.1, "image_size": 32, "width": 0.0625}, r1_every=2)
    batch = module.example_batch()
    trainer = trainer_for(tmp_path, max_epochs=2)
    trainer.fit(module, loader(batch, batch, batch))
    assert calls == [0, 2, 4]
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    trainer = trainer_for(tmp_path, max_epochs=3)
    trainer.fit(module, loader(batch, batch, batch), ckpt_path=tmp_path / "run.ckpt", weights_only=True)
    assert calls == [0, 2, 4, 6, 8]


@pytest.mark.slow
def test_a_tiny_batch_is_over_fitted_without_collapse(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = LipFormerCodebook(**{**ALONE, "image_size": 32, "lr": 2e-3, "reseed_after": 20})
    batch = {"image": faces(4, 32)}
    assert module.automatic_optimization
    assert module.discriminator is None
    before = health(module, batch)
    trainer = trainer_for(tmp_path, max_steps=60, max_epochs=-1)
    trainer.fit(module.train(), loader(batch))
    after = health(module, batch)
    assert after["l2"] < 0.25 * before["l2"]
    assert min(after["used_upper"], after["used_bottom"]) > 0.3
    assert min(after["perplexity_upper"], after["perplexity_bottom"]) > 4
    assert before["used_upper"] == 0  # nothing was recorded outside training
    reconstruction = module.predict_step(batch, 0)
    assert 0 <= float(reconstruction.min()) <= float(reconstruction.max()) <= 1


def test_save_and_load_give_the_same_images_and_no_vgg(tmp_path: Path) -> None:
    module = LipFormerCodebook(**LipFormerCodebook.smoke_arguments(tmp_path))
    trainer = trainer_for(tmp_path)
    trainer.fit(module, loader(module.example_batch()))
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    checkpoint = torch.load(tmp_path / "run.ckpt", weights_only=True)
    assert {name.split(".")[0] for name in checkpoint["state_dict"]} == {"network", "discriminator"}
    assert checkpoint[RECORD]["perceptual_sha256"] == RANDOM
    loaded = load_module(tmp_path / "run.ckpt", [LipFormerCodebook])
    assert not loaded.training
    images = faces(2)
    with torch.no_grad():
        assert torch.equal(loaded(images), module.eval()(images))
    assert torch.equal(loaded.network.upper.idle_steps, module.network.upper.idle_steps)
    save_module(LipFormerCodebook(**ALONE), tmp_path / "plain.ckpt")
    assert load_module(tmp_path / "plain.ckpt", [LipFormerCodebook]).discriminator is None


def test_published_defaults_and_missing_vgg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        module = LipFormerCodebook()
    assert module.weights == {"l2": 1.0, "lpips": 0.1, "adversarial": 0.1, "r1": 16}
    assert (module.commitment, module.lr, module.betas) == (0.25, 1e-4, (0.9, 0.95))
    assert (module.image_size, module.r1_gamma, module.r1_every, module.discriminator_lr) == (512, 10.0, 16, 1e-4)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=r"vgg16-397923af\.pth.*bench weights fetch vgg16.*perceptual_weights random"
    ):
        LipFormerCodebook(**{**TINY, "adversarial_weight": 0.0}).setup("fit")
    LipFormerCodebook(**{**TINY, "adversarial_weight": 0.0}).setup("predict")
    assert LipFormerCodebook.smoke_arguments(tmp_path)["perceptual_weights"] == RANDOM


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 72}, r"image_size is 72\. Expected a multiple of 16.*--model\.init_args\.image_size"),
        ({"image_size": 96, "adversarial_weight": 0.1}, r"image_size is 96\. Expected a power of two"),
        ({"perceptual_weight": -0.1}, r"lpips -0\.1.*0 or more.*--model\.init_args\.reconstruction_weight"),
        ({"perceptual": "vgg"}, r"perceptual is 'vgg'\. Expected lpips or pyramid\. .*--model\.init_args\.perceptual"),
        ({"r1_every": 0}, r"r1_every 0\. Expected.*interval of 1 or more"),
    ],
)
def test_wrong_arguments_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LipFormerCodebook(**{**ALONE, **change})
