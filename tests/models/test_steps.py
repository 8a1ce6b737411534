# SPDX-License-Identifier: Apache-2.0
"""Accumulation of batches and clipping of gradients, which mean the same with one optimiser and with two by turns."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonargparse
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lipsync_bench.models.core.checkpoints import RECORD, load_checkpoint, load_module, save_module
from lipsync_bench.models.core.training import BenchModule, Stage, Terms
from tests.models.training import MODULES, ExampleData, SaveAfter, fit, loader, trainer_for, without_perceptual

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*no `val_dataloader`.*")
TURNS = pytest.mark.parametrize("adversarial", [False, True], ids=["one optimiser", "two"])


class Line(BenchModule):
    """A linear generator, and a linear discriminator if asked for; steps are the gradients."""

    def __init__(self, adversarial: bool = False, **steps: Any) -> None:
        super().__init__(**steps)
        self.save_hyperparameters()
        self.network = nn.Linear(3, 3)
        self.discriminator = nn.Linear(3, 1) if adversarial else None

    def example_batch(self, batch_size: int = 2, seed: int = 0) -> dict[str, Tensor]:
        return {"x": torch.rand((batch_size, 3), generator=torch.Generator().manual_seed(seed))}

    def loss_terms(self, batch: Mapping[str, Tensor], stage: Stage) -> Terms:
        made = self.network(batch["x"])
        terms = {"l2": (made - batch["x"]).square().mean()}
        if self.discriminator is not None:
            terms["adversarial"] = self.discriminator(made).square().mean()
        return Terms(terms, real=batch["x"], fake=made)

    def discriminator_terms(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        return {"disc": (discriminator(real) - discriminator(fake) - 1).square().mean()}

    def configure_optimizers(self) -> Any:
        parts = [self.network] if self.discriminator is None else [self.network, self.discriminator]
        return [torch.optim.SGD(part.parameters(), lr=1.0) for part in parts]


class Gradients(pl.Callback):
    """What each optimiser is about to step with, before it is clipped."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        named = ((name, x) for name, x in pl_module.named_parameters() if id(x) in held and x.grad is not None)
        self.steps.append({name: x.grad.clone() for name, x in named})  # type: ignore[union-attr]


def joined(*batches: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def state_of(module: BenchModule) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


# Accumulation


@pytest.mark.parametrize("name", sorted(MODULES))
def test_two_half_batches_step_like_the_whole(name: str, tmp_path: Path) -> None:
    """In evaluation mode and float64, without what looks at a batch as a whole: batch norms, StyleGAN2's deviation."""
    kind = MODULES[name]
    arguments = without_perceptual(kind, kind.smoke_arguments(tmp_path))
    arguments |= {"adversarial_weight": 0.0} if "lipformer" in name else {}
    arguments |= {"gan": True, "expert_mode": "eval"} if name == "wav2lip" else {}
    # What compares a batch's frames, and squares that are drawn for each batch.
    arguments |= {"contrastive_weight": 0.0, "supervision": False} if name == "g4g" else {}
    gradients = []
    for size in (4, 2):
        torch.manual_seed(0)
        module = kind(**arguments, accumulate_batches=4 // size).eval()
        module.load_state_dict(state := gradients[0][1] if gradients else state_of(module))
        windows = [module.example_batch(2, seed) for seed in range(2)]
        batches = [joined(*windows)] if size == 4 else windows
        trainer = trainer_for(tmp_path, callbacks=[recorder := Gradients()], precision="64-true")
        trainer.fit(module, loader(*batches))
        assert trainer.global_step == len(recorder.steps) == (1 if module.discriminator is None else 2)
        gradients.append((recorder.steps, state))
    (whole, _), (halves, _) = gradients
    for index, step in enumerate(whole[:1]):  # the discriminator's comes after the generator has moved
        assert step
        for key, value in step.items():
            torch.testing.assert_close(halves[index][key], value, rtol=1e-6, atol=1e-9 * float(value.abs().max() + 1))


@TURNS
def test_the_last_batches_of_an_epoch_step_too(adversarial: bool, tmp_path: Path) -> None:
    module, recorder = Line(adversarial, accumulate_batches=2), Gradients()
    trainer = trainer_for(tmp_path, callbacks=[recorder], max_epochs=2)
    trainer.fit(module, loader(*(module.example_batch(2, seed) for seed in range(3))))
    assert trainer.global_step == len(recorder.steps) == 4 * len(trainer.optimizers)
    assert all(any(value.abs().max() > 0 for value in step.values()) for step in recorder.steps)
    assert trainer.accumulate_grad_batches == 1  # as it was given


@TURNS
@pytest.mark.parametrize("validations", [False, True])
def test_a_training_resumed_inside_an_accumulation_ends_like_an_unbroken_one(
    adversarial: bool, validations: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    whole, part = Line(adversarial, accumulate_batches=3), Line(adversarial, accumulate_batches=3)
    changes: dict[str, Any] = {"val_check_interval": 1} if validations else {}

    def data(module: BenchModule) -> ExampleData:
        return ExampleData(module, 2, 8, 2 if validations else 0)

    start = state_of(whole)
    end = fit(whole, tmp_path, SaveAfter(tmp_path / "mid.ckpt", 6), data=data(whole), **changes)
    resumed = fit(part, tmp_path, ckpt=tmp_path / "mid.ckpt", data=data(part), **changes)
    assert resumed.global_step == end.global_step == 4 * len(end.optimizers)  # three batches, and the one that is left
    assert set(load_checkpoint(tmp_path / "mid.ckpt")[RECORD]["gradients"]) == set(dict(whole.named_parameters()))
    for key, value in whole.state_dict().items():
        assert torch.equal(part.state_dict()[key], value), key
    if validations:  # they leave the gradients alone
        other = Line(adversarial, accumulate_batches=3)
        other.load_state_dict(start)
        fit(other, tmp_path, data=ExampleData(other, 2, 8))
        assert all(torch.equal(value, whole.state_dict()[key]) for key, value in other.state_dict().items())


def test_a_checkpoint_between_accumulations_holds_no_gradients(tmp_path: Path) -> None:
    module = Line(accumulate_batches=2)
    fit(module, tmp_path, SaveAfter(tmp_path / "two.ckpt", 2))
    assert "gradients" not in load_checkpoint(tmp_path / "two.ckpt")[RECORD]
    save_module(module, tmp_path / "alone.ckpt")
    assert "gradients" not in load_checkpoint(tmp_path / "alone.ckpt")[RECORD]


@TURNS
def test_the_trainers_own_accumulation_is_exact_too_or_refused(adversarial: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole, part = Line(adversarial), Line(adversarial)
    if adversarial:
        with pytest.raises(MisconfigurationException, match="not supported for manual optimization"):
            fit(whole, tmp_path, accumulate_grad_batches=2)
        return
    fit(whole, tmp_path, SaveAfter(tmp_path / "mid.ckpt", 1), accumulate_grad_batches=2)
    fit(part, tmp_path, ckpt=tmp_path / "mid.ckpt", accumulate_grad_batches=2)
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in part.state_dict().items())
    with pytest.raises(ValueError, match=r"accumulate_grad_batches is 3 and .*accumulate_batches is 2\. Expected one"):
        fit(Line(accumulate_batches=2), tmp_path, accumulate_grad_batches=3)


# Clipping


@TURNS
def test_no_optimiser_steps_with_a_gradient_of_a_larger_norm(adversarial: bool, tmp_path: Path) -> None:
    for limit in (0.01, 1e6):
        torch.manual_seed(0)
        module = Line(adversarial, clip_gradient=limit)
        before, recorder = state_of(module), Gradients()
        trainer_for(tmp_path, callbacks=[recorder]).fit(module, loader(module.example_batch()))
        parts = ("network", "discriminator") if adversarial else ("network",)
        for part, gradients in zip(parts, recorder.steps, strict=True):
            moved = torch.cat([(x - before[k]).flatten() for k, x in module.state_dict().items() if k.startswith(part)])
            norm = torch.cat([x.flatten() for x in gradients.values()]).norm()
            assert float(norm) > 0.02
            assert float(moved.norm()) == pytest.approx(min(limit, float(norm)), rel=1e-3)


# As arguments


@pytest.mark.parametrize("wrong", [{"accumulate_batches": 0}, {"clip_gradient": 0.0}, {"clip_gradient": float("nan")}])
def test_wrong_values_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Line: accumulate_batches is .*Expected 1 or more.*init_args\.clip_gradient"):
        Line(**wrong)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_they_are_arguments_of_everything_that_is_trained(name: str, tmp_path: Path) -> None:
    kind = MODULES[name]
    parser = jsonargparse.ArgumentParser()
    parser.add_class_arguments(kind, "model")
    settings = parser.parse_args(["--model.accumulate_batches", "3"]).model
    assert (settings.accumulate_batches, settings.clip_gradient) == (3, None)
    assert "batches over which gradients are averaged before an optimiser steps" in " ".join(
        parser.format_help().split()
    )
    module = kind(**kind.smoke_arguments(tmp_path), accumulate_batches=3, clip_gradient=0.5)
    save_module(module, tmp_path / "module.ckpt")
    loaded = load_module(tmp_path / "module.ckpt", [kind])
    assert (loaded.accumulate_batches, loaded.clip_gradient) == (3, 0.5)
