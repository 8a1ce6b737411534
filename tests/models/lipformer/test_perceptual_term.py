# SPDX-License-Identifier: Apache-2.0
"""The perceptual loss of both stages of LipFormer: LPIPS, or the pyramid by name; checkpoints older than the choice."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lipsync_bench.models.core.checkpoints import load_checkpoint, load_module, save_module
from lipsync_bench.models.core.training import BenchModule
from lipsync_bench.models.lipformer import LipFormer, LipFormerCodebook
from lipsync_bench.models.parts.perceptual import RANDOM, LPIPSLoss, VGGPyramidLoss

STAGES: list[type[BenchModule]] = [LipFormerCodebook, LipFormer]


def module_of(kind: type[BenchModule], folder: Path, **arguments: Any) -> BenchModule:
    torch.manual_seed(0)
    return kind(**{**kind.smoke_arguments(folder), "adversarial_weight": 0.0, **arguments}).eval()


@pytest.mark.parametrize("kind", STAGES)
@pytest.mark.parametrize(
    ("chosen", "term", "loss"),
    [
        ({}, "lpips", LPIPSLoss),
        ({"perceptual": "lpips"}, "lpips", LPIPSLoss),
        ({"perceptual": "pyramid"}, "perceptual", VGGPyramidLoss),
    ],
)
def test_the_term_is_the_chosen_loss_of_the_images_in_their_range(
    kind: type[BenchModule], chosen: dict[str, str], term: str, loss: Any, imagenet_weights: Path, tmp_path: Path
) -> None:
    module = module_of(kind, tmp_path, **chosen, perceptual_weights=str(imagenet_weights))
    with torch.no_grad():
        found = module.loss_terms(module.example_batch(1), "val")
        images = (image / 2 + 0.5 for image in (found.fake, found.real))  # Terms has them in [-1, 1]
        wanted = loss(str(imagenet_weights))(*images).mean()
    assert {"lpips", "perceptual"} & set(found.loss) == {term}
    assert float(wanted) > 0
    torch.testing.assert_close(found.loss[term], wanted, rtol=1e-4, atol=0)
    assert module.weights[term] == 0.1


@pytest.mark.parametrize("kind", STAGES)
def test_a_checkpoint_older_than_the_choice_loads(kind: type[BenchModule], tmp_path: Path) -> None:
    module = module_of(kind, tmp_path)
    if isinstance(module, LipFormer):
        _ = module.codes
    save_module(module, tmp_path / "new.ckpt")
    old = load_checkpoint(tmp_path / "new.ckpt")
    del old["hyper_parameters"]["perceptual"], old["lipsync_bench"]["perceptual_sha256"]
    old["lipsync_bench"]["vgg19"] = RANDOM
    torch.save(old, tmp_path / "old.ckpt")
    loaded = load_module(tmp_path / "old.ckpt", [kind])
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in module.state_dict().items())
