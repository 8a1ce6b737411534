# SPDX-License-Identifier: Apache-2.0
"""Steps of every method with a discriminator: its logits stay finite, its adversarial term keeps its gradient.

300 steps of HyperLips, whose equations as printed die within 100, and 70 of the others, for time.
"""

import inspect
import math
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from lipsync_bench.callbacks import WatchAdversarial
from lipsync_bench.models import LipFormerCodebook
from lipsync_bench.models.core.training import BenchModule
from tests.models.training import MODULES, loader, trainer_for, without_perceptual

SIZES = {"hyperlips_base": 72, "hyperlips_hr": 64}  # instead of 128, for time
LARGEST_LOGIT = 50.0
LEAST_GRADIENT = 1e-5  # on the frames of a batch; as printed it is 0
ADVERSARIAL = [
    name
    for name, kind in MODULES.items()
    if kind.discriminator_terms is not BenchModule.discriminator_terms
    and name not in ("g4g", "dinet")  # least squares, which do not saturate; their frames are no squares
    and not getattr(kind, "parts", {})  # a system, whose training is that of a part
]

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*no `val_dataloader`.*")


class Watch(WatchAdversarial):
    """Looks at one batch again and again, and keeps what it sees."""

    def __init__(self, batch: dict[str, Tensor]) -> None:
        super().__init__()
        self.batch, self.seen = batch, list[dict[str, float]]()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        if trainer.global_step // 2 % self.every == 0:
            self.seen.append({name: float(value) for name, value in self.look(pl_module, self.batch).items()})


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


def train(name: str, folder: Path, steps: int, **arguments: Any) -> list[dict[str, float]]:
    kind = MODULES[name]
    known = inspect.signature(kind).parameters
    smallest = {"gan": True, "sync_expert": None, "sync_weight": 0.0, **arguments}
    given = without_perceptual(kind, kind.smoke_arguments(folder))
    torch.manual_seed(0)
    module = kind(**{**given, **{key: value for key, value in smallest.items() if key in known}})
    batches = [blots(name, module, seed) for seed in range(4)]
    watch = Watch(batches[0])
    trainer_for(folder, max_epochs=-1, max_steps=2 * steps, callbacks=[watch]).fit(module, loader(*batches))
    assert len(watch.seen) == steps // watch.every
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
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "hyperlips_base")) for name in ADVERSARIAL]
)
def test_the_term_lives(name: str, tmp_path: Path) -> None:
    seen = train(name, tmp_path, 300 if name.startswith("hyperlips") else 70)
    for values in seen:
        assert all(map(math.isfinite, values.values()))
        assert values["logit_largest"] < LARGEST_LOGIT
    assert max(values["adversarial_gradient"] for values in seen[-(len(seen) // 3) :]) > LEAST_GRADIENT


@pytest.mark.slow
def test_as_printed_dies_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    seen = train("hyperlips_hr", tmp_path, 150, adversarial="as_printed")
    assert seen[-1]["logit_real"] < -LARGEST_LOGIT
    assert seen[-1]["logit_fake"] < -LARGEST_LOGIT
    assert [values["adversarial_gradient"] for values in seen[-3:]] == [0, 0, 0]
    assert caplog.text.count("no gradient any more") == 1


def test_a_run_logs_what_is_watched(tmp_path: Path) -> None:
    kind = MODULES["hyperlips_hr"]
    module = kind(**without_perceptual(kind, kind.smoke_arguments(tmp_path)))
    trainer = trainer_for(tmp_path, callbacks=[WatchAdversarial(every=1)])
    before = module.training
    trainer.fit(module, loader(blots("hyperlips_hr", module, 0)))
    assert module.training is before
    logged = {name.removeprefix("train/") for name in trainer.callback_metrics}
    assert {"logit_real", "logit_fake", "logit_largest", "adversarial_gradient", "adversarial"} <= logged
