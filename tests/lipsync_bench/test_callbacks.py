# SPDX-License-Identifier: Apache-2.0
"""The learning rate that falls."""

import math
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from lipsync_bench.callbacks import FallingLearningRate
from lipsync_bench.models import Wav2Lip
from tests.models.training import ExampleData, SaveAfter, fit

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*")


class Rates(pl.Callback):
    """The rates with which the optimisers step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        self.seen.append(optimizer.param_groups[0]["lr"])


def half_cosine(done: float) -> float:
    return (1 + math.cos(math.pi * done)) / 2


def test_rates_fall_along_half_a_cosine_and_are_the_same_after_a_resume(tmp_path: Path) -> None:
    expected = [1.0, 1.0, *(half_cosine(step / 4) for step in range(4))]
    whole, part = (Wav2Lip(width=0.125, sync_weight=0.0, lr=1e-3) for _ in range(2))
    rates, rest = Rates(), Rates()
    falling, save = FallingLearningRate(6, start=2), SaveAfter(tmp_path / "mid.ckpt", 4)
    fit(whole, tmp_path, falling, save, rates, data=ExampleData(whole))
    assert rates.seen == pytest.approx([1e-3 * factor for factor in expected])
    fit(part, tmp_path, FallingLearningRate(6, start=2), rest, ckpt=tmp_path / "mid.ckpt", data=ExampleData(part))
    assert rest.seen == rates.seen[4:]
    other = Wav2Lip(width=0.125, sync_weight=0.0, lr=5e-4)  # takes effect, as without the callback
    fit(other, tmp_path, falling, rest, ckpt=tmp_path / "mid.ckpt", data=ExampleData(other))
    assert rest.seen[2:] == pytest.approx([rate / 2 for rate in rates.seen[4:]])


def test_both_optimisers_fall_with_a_discriminator(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Wav2Lip(width=0.125, sync_weight=0.0, gan=True, lr=1e-5)
    rates = Rates()
    fit(module, tmp_path, FallingLearningRate(12), rates, data=ExampleData(module))  # two steps a batch
    assert rates.seen == pytest.approx([1e-5 * half_cosine(batch / 6) for batch in range(6) for _ in range(2)])


@pytest.mark.parametrize(("until", "start"), [(0, 0), (3, 3), (5, -1)])
def test_steps_that_make_no_way_down(until: int, start: int) -> None:
    with pytest.raises(ValueError, match=f"until is {until}, start is {start}. Expected steps with 0 <= start < until"):
        FallingLearningRate(until, start)
