# SPDX-License-Identifier: Apache-2.0
"""Three hundred steps of every method with a discriminator: its logits stay finite, its term keeps its gradient."""

import inspect
import logging
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from lipsync_bench.models import LipFormerCodebook
from lipsync_bench.models.core.training import BenchModule
from tests.models.training import MODULES, loader, trainer_for, without_perceptual

STEPS, WATCHED = 300, 10
SIZES = {"hyperlips_base": 96, "hyperlips_hr": 64}  # instead of 128, for time
LARGEST_LOGIT = 50.0
LEAST_GRADIENT = 1e-5  # on the frames of a batch; as printed it is 0
ADVERSARIAL = [
    name for name, kind in MODULES.items() if kind.discriminator_terms is not BenchModule.discriminator_terms
]

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*no `val_dataloader`.*")


class Seen(NamedTuple):
    logits: Tensor
    gradient: float


class Watch(pl.Callback):
    """The discriminator's logits, and the norm of the adversarial term's gradient on the generated images."""

    def __init__(self, batch: dict[str, Tensor]) -> None:
        self.batch, self.seen = batch, list[Seen]()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        if trainer.global_step // 2 % WATCHED:
            return
        terms = pl_module.loss_terms(self.batch, "train")
        (gradient,) = torch.autograd.grad(terms.loss["adversarial"], terms.fake)
        logit = getattr(pl_module.discriminator, "logit", pl_module.discriminator)
        with torch.no_grad():
            logits = torch.cat([logit(terms.real), logit(terms.fake)])
        self.seen.append(Seen(logits, float(gradient.norm())))


def blots(name: str, module: Any, seed: int) -> dict[str, Tensor]:
    """An example batch of few frames, whose images are smooth, so that a generator can learn them."""

    def changed(key: str, x: Tensor) -> Tensor:
        if key != "mel" and x.shape[1] == 5:
            x = x[:, : 2 if name == "lipformer" else 1]  # which leaves one out
        if x.ndim < 4 or x.shape[-1] != x.shape[-2]:  # a mel, a box
            return x
        images, size = x.flatten(0, -4), SIZES.get(name, x.shape[-1])
        few = 0.5 + 4 * (F.adaptive_avg_pool2d(images, 6) - 0.5) if x.shape[-3] == 3 else images
        return F.interpolate(few.clamp(0, 1), (size, size)).view(*x.shape[:-2], size, size)

    batch = {key: changed(key, x) for key, x in module.example_batch(2, seed).items()}
    if "lip_box" in batch:
        batch["lip_box"] = batch["lip_box"] * SIZES[name] // 128
    return batch


def train(name: str, folder: Path, steps: int, **arguments: Any) -> list[Seen]:
    kind = MODULES[name]
    known = inspect.signature(kind).parameters
    smallest = {"gan": True, "sync_expert": None, "sync_weight": 0.0, **arguments}
    given = without_perceptual(kind, kind.smoke_arguments(folder))
    torch.manual_seed(0)
    module = kind(**{**given, **{key: value for key, value in smallest.items() if key in known}})
    batches = [blots(name, module, seed) for seed in range(4)]
    watch = Watch(batches[0])
    trainer_for(folder, max_epochs=-1, max_steps=2 * steps, callbacks=[watch]).fit(module, loader(*batches))
    assert len(watch.seen) == steps // WATCHED
    return watch.seen


@pytest.fixture
def tiny_codebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 16 pixels: StyleGAN2's discriminator takes minutes at the 64 of other tests."""
    usual = LipFormerCodebook.smoke_arguments
    monkeypatch.setattr(
        LipFormerCodebook, "smoke_arguments", lambda folder: {**usual(folder), "image_size": 16, "width": 0.125}
    )


@pytest.mark.usefixtures("tiny_codebook")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "hyperlips_hr" else pytest.mark.slow) for name in ADVERSARIAL]
)
def test_the_term_lives_after_300_steps(name: str, tmp_path: Path) -> None:
    seen = train(name, tmp_path, STEPS)
    for logits, _ in seen:
        assert torch.isfinite(logits).all()
        assert float(logits.abs().max()) < LARGEST_LOGIT
    assert max(gradient for _, gradient in seen[-10:]) > LEAST_GRADIENT


def test_as_printed_dies_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    seen = train("hyperlips_hr", tmp_path, 150, adversarial="as_printed")
    assert float(seen[-1].logits.abs().min()) > LARGEST_LOGIT
    assert [gradient for _, gradient in seen[-3:]] == [0, 0, 0]
    assert [record.levelno for record in caplog.records if "no gradient any more" in record.getMessage()] == [
        logging.WARNING
    ]
