# SPDX-License-Identifier: Apache-2.0
"""G4G and DINet as methods: terms and their weights, stages, processes, alignment that is learnt, sessions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lipsync_bench.callbacks import WatchAdversarial
from lipsync_bench.datamodules.recipes.options import RecipeOptions
from lipsync_bench.datamodules.weights.store import Store
from lipsync_bench.inference.dub import dub_frames
from lipsync_bench.inference.pasting import make_paste
from lipsync_bench.models import G4G, DINet
from lipsync_bench.models.core.checkpoints import save_module
from lipsync_bench.models.core.session import Video
from lipsync_bench.models.g4g.contrast import Places, contrast
from lipsync_bench.models.g4g.losses import VGGTwoSizesLoss, masked_l1
from lipsync_bench.models.g4g.network import G4GGenerator
from lipsync_bench.models.g4g.windows import G4GFrames, G4GWindows
from lipsync_bench.models.parts.perceptual import RANDOM
from tests.models.training import loader, trainer_for
from tests.talking_points import FRAME_HW, drawn_frames, face_points, geometry_of_points

TINY: dict[str, Any] = {
    "image_scale": 0.25,
    "width": 0.0625,
    "perceptual_weight": 0.0,
    "sync_weight": 0.0,
    "identity_init": False,
}


def module_of(kind: type[G4G] = G4G, **changes: Any) -> G4G:
    torch.manual_seed(0)
    return kind(**{**TINY, **changes})


def test_the_published_weights_and_recipe_are_the_defaults() -> None:
    with torch.device("meta"):
        module = G4G()
    assert module.weights == {
        "landmark": 1, "perceptual": 2, "adversarial": 3, "masked_l1": 4, "contrastive": 5, "sync_contrastive": 5,
    }  # fmt: skip
    assert (module.lr, module.betas, module.size_hw) == (1e-4, (0.9, 0.999), (416, 320))
    wanted = "g4g*1.05 320x416 / random 5, seed 0 / reflect / mask / reference_landmarks / reference_mask"
    assert module.recipe.text() == wanted
    assert module.recipe.fed_crop.text() == "g4g*1.1"
    with torch.device("meta"):
        assert DINet().recipe.text() == "g4g*1.05 320x416 / random 5, seed 0 / reflect / box"
        assert DINet().weights["perceptual"] == 10
        assert G4G(frames=1).window is G4GFrames
        assert not G4G(frames=1).needs_sync_expert


@pytest.mark.parametrize(
    ("argument", "value"),
    [("image_scale", 0.3), ("frames", 4), ("mask", "mouth"), ("landmarks", "target"), ("expert_form", "l1"),
     ("hard_negatives", 9), ("landmark_weight", -1.0)],
)  # fmt: skip
def test_values_that_there_are_not_are_refused_by_name(argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=argument):
        module_of(**{argument: value})


@pytest.mark.parametrize(
    ("changes", "terms"),
    [
        ({}, {"masked_l1", "landmark", "adversarial", "contrastive"}),
        ({"alignment": False}, {"masked_l1", "adversarial"}),
        ({"fusion": False, "frames": 1}, {"masked_l1", "landmark", "adversarial", "contrastive"}),
        ({"adversarial_weight": 0.0, "contrastive_weight": 0.0, "mask": "lower_half"}, {"masked_l1", "landmark"}),
        ({"landmarks": "source_without_mouth", "landmark_weight": 0.0, "hard_negatives": 0, "momentum": 0.9},
         {"masked_l1", "adversarial", "contrastive"}),
    ],
)  # fmt: skip
def test_switches_leave_out_their_terms(changes: dict[str, Any], terms: set[str]) -> None:
    module = module_of(**changes)
    found = module.loss_terms(module.example_batch(2), "train")
    assert set(found.loss) == terms
    assert all(torch.isfinite(value) for value in found.loss.values())
    clips = module.discriminator is not None and module.window is G4GWindows
    if module.discriminator is not None:
        named = module.discriminator_terms(module.discriminator, found.real, found.fake.detach())
        seen = WatchAdversarial().look(module, module.example_batch(2))
        assert seen["adversarial_gradient"] > 0
        assert set(named) == ({"disc", "disc_clip"} if clips else {"disc"})


@pytest.mark.parametrize("form", ["contrastive", "bce"])
def test_the_expert_hears_the_clip_and_sees_the_generated_lips(form: str, tmp_path: Path) -> None:
    path = G4G.smoke_arguments(tmp_path)["sync_expert"]
    module = module_of(sync_weight=1.0, sync_expert=path, expert_form=form, adversarial_weight=0.0)
    batch = module.example_batch(2)
    term = {"contrastive": "sync_contrastive", "bce": "sync"}[form]
    found = module.loss_terms(batch, "train").loss
    assert module.weights[term] == 5
    grads = torch.autograd.grad(found[term], list(module.generator.decoder.parameters()))
    assert any(g.abs().max() > 0 for g in grads)
    other = module.loss_terms({**batch, "mel": -batch["mel"]}, "train").loss
    assert other[term] != found[term]


def test_errors_count_inside_one_of_several_squares_in_training_and_the_middle_one_else() -> None:
    module = module_of()
    masks = module._supervised(40, "train")
    areas = set(masks.sum(dim=(1, 2, 3)).tolist())
    assert areas == {48 * 48.0, 64 * 64.0, 80 * 80.0}
    assert set(module._supervised(3, "val").sum(dim=(1, 2, 3)).tolist()) == {64 * 64.0}
    assert module_of(supervision=False)._supervised(2, "train").all()
    image = torch.zeros(1, 3, 104, 80)
    mask = module._supervised(1, "val")
    wrong = image + torch.where(mask > 0, 0.25, 1.0)
    assert masked_l1(image, wrong, mask) == pytest.approx(0.25)


def test_the_perceptual_loss_is_the_mean_over_layers_and_two_sizes(imagenet_weights: Path) -> None:
    loss = VGGTwoSizesLoss(str(imagenet_weights))
    torch.manual_seed(0)
    made, real = torch.rand(2, 1, 3, 32, 32)
    mean, std = loss.mean, loss.std
    small = torch.nn.AvgPool2d(3, 2, 1, count_include_pad=False)(made), torch.nn.AvgPool2d(2)(real)
    pairs = [(made, real), small]
    distances = [
        (a - b).abs().mean()
        for x, y in pairs
        for a, b in zip(loss._maps((x - mean) / std), loss._maps((y - mean) / std), strict=True)
    ]
    assert len(distances) == 10
    torch.testing.assert_close(loss(made, real), torch.stack(distances).mean(), rtol=1e-4, atol=0)
    assert VGGTwoSizesLoss(RANDOM).source_sha256 == RANDOM


def test_a_stage_starts_from_the_one_before_whatever_its_size(tmp_path: Path) -> None:
    first = module_of(frames=1)
    save_module(first, tmp_path / "first.ckpt")
    second = module_of(image_scale=0.5, init_from=str(tmp_path / "first.ckpt"))
    for parameter in second.parameters():
        torch.nn.init.constant_(parameter, 0.25)
    trainer_for(tmp_path, limit_train_batches=0).fit(second, loader(second.example_batch(1)))
    for name, value in first.generator.state_dict().items():
        assert torch.equal(second.generator.state_dict()[name], value), name
    for name, value in first.discriminator.frame.state_dict().items():
        assert torch.equal(second.discriminator.frame.state_dict()[name], value), name
    assert all((value == 0.25).all() for value in second.discriminator.clip.parameters())


def test_frames_of_all_processes_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of two halves, of which each process has one, is that of the whole batch; so is its gradient."""
    module = module_of()
    torch.manual_seed(1)
    batch, count = module.example_batch(2), 10
    seen = [torch.randn(count, length, requires_grad=True) for length in (16, 8)]
    aligned, audio = seen

    def features_of(rows: slice) -> Any:
        return type("Seen", (), {"aligned": aligned[rows], "audio": audio[rows]})

    module.eval()  # batch norms of the audio encoder would see halves
    whole = module._contrast(batch, features_of(slice(count)), "val").loss
    gathered: list[list[Tensor]] = [[], []]
    halves = [{name: value[k : k + 1] for name, value in batch.items()} for k in range(2)]

    for k in range(2):
        monkeypatch.setattr(module, "_of_all", lambda x, stage, k=k: gathered[k].append(x) or x)
        module._contrast(halves[k], features_of(slice(5 * k, 5 * k + 5)), "train")
    order = iter(zip(*gathered, strict=True))
    monkeypatch.setattr(module, "_of_all", lambda x, stage: torch.cat(next(order)))
    joined = module._contrast(halves[0], features_of(slice(5)), "train").loss
    torch.testing.assert_close(joined, whole)
    for x in seen:
        torch.testing.assert_close(
            *(torch.autograd.grad(loss, x, retain_graph=True)[0] for loss in (joined, whole)), atol=1e-6, rtol=1e-4
        )


def clips_in_sync(count: int, seed: int, shuffled: bool) -> tuple[Tensor, Tensor, Tensor, Places]:
    """Made-up frames whose upper face says, by two shades, what is said in their mel windows."""
    random = torch.Generator().manual_seed(seed)
    said = torch.rand(count, 2, generator=random) * 2 - 1
    source = torch.rand(count, 3, 32, 24, generator=random) * 0.2 + 0.4
    source[:, 0, :8] += said[:, :1, None] / 3
    source[:, 1, :8] += said[:, 1:, None] / 3
    mels = torch.randn(count, 1, 80, 16, generator=random) * 0.2
    audible = said[torch.randperm(count, generator=random)] if shuffled else said
    mels[:, 0, :40] += 2 * audible[:, :1, None]
    mels[:, 0, 40:] += 2 * audible[:, 1:, None]
    return mels, source, torch.full((count, 15, 32, 24), 0.5), Places(torch.arange(count), torch.zeros(count).long())


@pytest.mark.parametrize("shuffled", [False, True])
def test_alignment_is_learnt_from_clips_in_sync_and_from_no_others(shuffled: bool) -> None:
    torch.manual_seed(0)
    network, count = G4GGenerator(width=0.0625, fusion=False), 16
    used = [p for name, p in network.named_parameters() if "decoder" not in name]
    adam = torch.optim.Adam(used, lr=3e-3)

    def compared(seed: int) -> Any:
        mels, source, references, places = clips_in_sync(count, seed, shuffled)
        seen = network.features(mels, source, references, torch.zeros(count, 1, 32, 24))
        v, a, slow_v, slow_a = network.contrast.vectors(seen.aligned, seen.audio)
        scale = network.contrast.scale
        none = Places(places.clip[:0], places.frame[:0])
        return contrast(scale * v @ slow_a.T, scale * a @ slow_v.T, places, v @ slow_a[:0].T, none, 3)

    for step in range(32):
        adam.zero_grad()
        compared(step).loss.backward()
        adam.step()
    with torch.no_grad():
        accuracy = np.mean([float(compared(1000 + k).accuracy) for k in range(5)])
    assert accuracy < 0.16 if shuffled else accuracy > 0.25  # chance is 1 / 16


def test_a_session_shows_five_fixed_frames_and_goes_to_and_fro() -> None:
    count = 9
    rng = np.random.default_rng(0)
    points = face_points(rng.uniform(0, 12, count), rng.normal(0, 1, (count, 2)))
    frames, geometry = drawn_frames(points), geometry_of_points(points)
    module = module_of().eval()
    given: list[Any] = []
    inner = module.generate_chunk
    module.generate_chunk = lambda inputs: given.append(inputs) or inner(inputs)  # type: ignore[method-assign]
    video = Video(geometry, lambda first, n: np.zeros((n, 1, 80, 16), np.float32), lambda: iter(frames))
    paste = make_paste(module.recipe, Store())
    session = module.session(video, module.recipe, paste)
    assert session.ping_pong
    order = [*range(9), *reversed(range(9)), *range(3)]
    out = list(dub_frames(session, (frames[place] for place in order), batch_frames=4))
    assert len(out) == 21
    references, landmarks = (
        torch.cat([x.references if name is None else x.extras[name] for x in given])
        for name in (None, "reference_landmarks")
    )
    assert references.shape == (21, 5, 3, 104, 80)
    assert torch.equal(references, references[:1].expand_as(references))
    assert len(references[0].flatten(1).unique(dim=0)) == 5
    assert torch.equal(landmarks, landmarks[:1].expand_as(landmarks))
    faces = torch.cat([x.faces for x in given])
    assert torch.equal(faces[9:18], faces[:9].flip(0))
    changed = np.any(out[0] != frames[0], axis=-1)
    (x1, y1, x2, y2), rows, columns = module.recipe.crop.cuts(geometry)[0].box, *np.nonzero(changed)  # type: ignore[union-attr]
    assert y1 <= rows.min() <= rows.max() < y2
    assert x1 <= columns.min() <= columns.max() < x2
    assert out[0].shape == (*FRAME_HW, 3)

    for options in (RecipeOptions(references="first"), RecipeOptions(crop="mesh"), RecipeOptions(references="same")):
        fed = options.applied(module.recipe)
        other = module.session(video, fed, make_paste(fed, Store()))
        assert len(list(other.frames(0, frames[:2]))) == 2
