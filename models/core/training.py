# SPDX-License-Identifier: Apache-2.0
"""What the trainings of all methods do alike: steps of one network or of two by turns, their loss, their optimisers."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial, reduce
from operator import add
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from lipsync_bench.datamodules.recipes.options import RecipeOptions
from lipsync_bench.datamodules.recipes.recipe import Recipe
from lipsync_bench.datamodules.recipes.values import Paste
from lipsync_bench.models.core.checkpoint_files import RECORD, class_path, package_version
from lipsync_bench.models.core.frozen import FrozenParts
from lipsync_bench.models.core.weight_files import RANDOM

Stage = Literal["train", "val", "test"]

_log = logging.getLogger(__name__)

__all__ = ["BenchModule", "Stage", "Terms"]


@cache
def _warn_once(name: str, recipe: str) -> None:
    _log.warning(
        "%s: the checkpoint was written by the first edition, which did not record how faces were cut out. It is fed "
        "as that edition fed every method: %s",
        name,
        recipe,
    )


class Terms(NamedTuple):
    """What `loss_terms` returns for a batch."""

    loss: dict[str, Tensor]
    """Terms of the loss by name, to be weighted."""
    watched: Mapping[str, Tensor] = {}
    """Further values to log, which are not part of the loss."""
    real: Tensor | None = None
    """True images as the discriminator takes them."""
    fake: Tensor | None = None
    """Generated images as the discriminator takes them."""


class BenchModule(FrozenParts):
    """A LightningModule of this package: one way to train, one kind of checkpoint, colours flipped in one place.

    A module sets `weights` and defines `loss_terms`; one that trains against a discriminator sets `discriminator` and
    defines `discriminator_terms`. Then there are two optimisers, which step by turns with each batch, and
    `trainer.global_step` counts the steps of both. Checkpoints hold plain types and tensors only, so that they load
    with `weights_only=True`.

    A module passes its further keyword arguments (`**steps`) to this constructor, so that every module accepts
    `accumulate_batches` and `clip_gradient`.

    Args:
        accumulate_batches: number of batches over which gradients are averaged before an optimiser steps, with a
            discriminator and without. `max_steps` counts optimiser steps, `val_check_interval` counts batches.
        clip_gradient: largest norm of the gradient with which an optimiser may step; with a discriminator each
            optimiser's gradient is clipped by its own norm. None: no clipping.
        recipe: parts of the published recipe that are replaced, by the names of `RecipeOptions`: {crop: mesh}.
    """

    channel_order: ClassVar[Literal["rgb", "bgr"]] = "rgb"
    """Colour order inside the networks; everything outside is RGB."""
    experiment: ClassVar[str] = ""
    """The file in experiments/ that trains this class."""
    parameters_without_gradient: ClassVar[tuple[str, ...]] = ()
    """First parts of the names of parameters that require a gradient but never receive one (dead weights)."""
    perceptual_terms: ClassVar[tuple[str, ...]] = ()
    """Terms of networks that have `perceptual_weights`; with random ones they are logged as NAME_random_weights."""

    discriminator: nn.Module | None
    weights: Mapping[str, float]
    """Weights of terms by name; a term without one has the weight 1."""
    perceptual_weights: str = ""

    def __init__(
        self,
        accumulate_batches: int = 1,
        clip_gradient: float | None = None,
        recipe: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.recipe_changes = RecipeOptions(**(recipe or {}))
        self._recipe: Recipe | None = None
        self.discriminator = None
        self.weights = {}
        self.set_adam(lr=1e-4)
        self.accumulate_batches, self.clip_gradient = accumulate_batches, clip_gradient
        if self.accumulate_batches < 1 or not (self.clip_gradient is None or self.clip_gradient > 0):
            raise ValueError(
                f"{type(self).__name__}: accumulate_batches is {self.accumulate_batches}, clip_gradient is "
                f"{self.clip_gradient}. Expected 1 or more batches, and a norm above 0 or null. Set "
                "--model.init_args.accumulate_batches and --model.init_args.clip_gradient"
            )

    @classmethod
    def smoke_arguments(cls, folder: Path) -> dict[str, Any]:
        """Constructor arguments of a model small enough for tests and demonstrations on a CPU.

        Files that the arguments name, a frozen network's random weights say, are written into `folder`.
        """
        return {}

    def published(self) -> Recipe | None:
        """How the faces that it was published with are cut out and fed; None for a module that sees no faces."""
        return None

    @property
    def recipe(self) -> Recipe | None:
        """How it is fed: what its checkpoint says, else the published recipe with the argument's changes."""
        if self._recipe is None:
            published = self.published()
            self._recipe = None if published is None else self.recipe_changes.applied(published)
        return self._recipe

    @property  # type: ignore[misc]  # in Lightning this property has a setter
    def automatic_optimization(self) -> bool:
        """Whether the trainer steps the one optimiser; with a discriminator, two step by turns."""
        return self.discriminator is None

    def to_network(self, images: Tensor) -> Tensor:
        """RGB images (..., 3, H, W) in the colour order of the networks."""
        return images.flip(-3) if self.channel_order == "bgr" else images

    def from_network(self, images: Tensor) -> Tensor:
        """Images (..., 3, H, W) of a network as RGB."""
        return self.to_network(images)  # the flip is its own inverse

    def loss_terms(self, batch: Mapping[str, Tensor], stage: Stage) -> Terms:
        """The terms of the loss (the generator's, where there is a discriminator)."""
        raise NotImplementedError(f"{type(self).__name__} does not define loss_terms")

    def discriminator_terms(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """The terms of the discriminator's loss for true images and for generated ones, which are detached."""
        raise NotImplementedError(f"{type(self).__name__} does not define discriminator_terms")

    def weighted_sum(self, terms: Mapping[str, Tensor]) -> Tensor:
        """The sum of the terms, each multiplied by its weight in `weights` (1 where it has none)."""
        return reduce(add, (self.weights.get(name, 1.0) * term for name, term in terms.items()))

    def training_step(self, batch: Mapping[str, Tensor], batch_index: int) -> Tensor | None:
        if self.discriminator is None:
            return self._logged_loss(batch, "train")
        with self.turn(0, batch_index) as step:
            terms = self.loss_terms(batch, "train")
            loss = self.weighted_sum(terms.loss)
            step(loss)
        assert terms.real is not None
        assert terms.fake is not None
        with self.turn(1, batch_index) as step:
            disc_terms = self.discriminator_terms(self.discriminator, terms.real, terms.fake.detach())
            step(self.weighted_sum(disc_terms))
        self.log_terms("train", {**terms.loss, **terms.watched, "loss": loss, **disc_terms}, batch)
        return None

    def validation_step(self, batch: Mapping[str, Tensor], batch_index: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: Mapping[str, Tensor], batch_index: int) -> None:
        self._evaluate(batch, "test")

    def trained_parameters(self) -> Any:
        """What the first optimiser steps: all parameters but the discriminator's, or groups of them."""
        return [x for name, x in self.named_parameters() if not name.startswith("discriminator.")]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        adam = partial(torch.optim.Adam, betas=self.betas)
        generator = adam(self.trained_parameters(), lr=self.lr)
        if self.discriminator is None:
            return generator
        return [generator, adam(self.discriminator.parameters(), lr=self.discriminator_lr)]

    def set_adam(
        self, lr: float, betas: tuple[float, float] = (0.9, 0.999), discriminator_lr: float | None = None
    ) -> None:
        """Settings of the optimisers; the discriminator's rate is the other's unless it is given."""
        self.lr, self.discriminator_lr = lr, lr if discriminator_lr is None else discriminator_lr
        self.betas = (betas[0], betas[1])  # a YAML has lists

    @contextmanager
    def turn(self, optimizer_index: int, batch_index: int) -> Iterator[Callable[[Tensor], None]]:
        """The turn of one of two optimisers; the other's parameters collect no gradients meanwhile.

        with self.turn(0, batch_index) as step:
            step(loss_of_the_generator())
        """
        optimizer = cast(list[LightningOptimizer], self.optimizers())[optimizer_index]

        def step(loss: Tensor) -> None:
            if batch_index % self.accumulate_batches == 0:
                optimizer.zero_grad()
            self.manual_backward(loss / self.accumulate_batches)
            if not self._is_accumulating:
                optimizer.step()

        with self.toggled_optimizer(optimizer):
            yield step

    def log_terms(self, stage: Stage, terms: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> None:
        """Log named terms of a loss as `stage/name`.

        In training those of this process's batch; else means over the windows of all processes.
        """
        random = self.perceptual_terms if self.perceptual_weights == RANDOM else ()
        names = {name: f"{stage}/{name}{'_random_weights' if name in random else ''}" for name in terms}
        size = float(len(next(iter(batch.values()))))  # Lightning divides whole numbers and drops the rest
        values: dict[str, Any] = {names[name]: value.detach() for name, value in terms.items()}
        self.log_dict(values, batch_size=size, sync_dist=stage != "train", prog_bar=True)  # type: ignore[arg-type]

    def setup(self, stage: str) -> None:
        super().setup(stage)
        trainer = self._trainer
        if trainer is None or stage != "fit" or not self.automatic_optimization or self.accumulate_batches == 1:
            return
        if trainer.accumulate_grad_batches != 1:
            raise ValueError(
                f"--trainer.accumulate_grad_batches is {trainer.accumulate_grad_batches} and "
                f"--model.init_args.accumulate_batches is {self.accumulate_batches}. Expected one of them. Leave out "
                "--trainer.accumulate_grad_batches"
            )
        trainer.accumulate_grad_batches = self.accumulate_batches

    def teardown(self, stage: str) -> None:
        super().teardown(stage)
        if stage == "fit" and self.automatic_optimization and self.accumulate_batches != 1:
            self.trainer.accumulate_grad_batches = 1  # a trainer may fit another module next

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.trainer.ckpt_path is not None:
            return
        self.begin()
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, getattr(pl.callbacks, "WeightAveraging", ())):
                callback.setup(self.trainer, self, "fit")  # type: ignore[union-attr]  # it copied the module before `begin`

    def begin(self) -> None:
        """Called when a new training begins, not when one is resumed.

        Reads every frozen part once more: `setup` ignores an unreadable file of a part that a checkpoint may contain;
        a new training has no checkpoint, so that the error appears here.
        """
        for name in self.frozen_parts():
            getattr(self, name)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        if self.clip_gradient is not None:
            self.clip_gradients(optimizer, self.clip_gradient, "norm")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        fed = {} if self.recipe is None else {"recipe": self.recipe.plain()}
        checkpoint[RECORD] = {"class_path": class_path(type(self)), "version": package_version(), **fed}
        super().on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        record = checkpoint.get(RECORD)
        published = self.published()
        if published is None or not isinstance(record, Mapping):
            return
        if "recipe" in record:
            self._recipe = Recipe.of(record["recipe"])
        else:
            paste: Paste | None = "box" if published.paste == "quad" else None
            first = RecipeOptions(crop="mesh", references="first", mel_padding="reflect", paste=paste)
            self._recipe = first.applied(published)
            _warn_once(type(self).__name__, self._recipe.text())

    def _logged_loss(self, batch: Mapping[str, Tensor], stage: Stage) -> Tensor:
        terms = self.loss_terms(batch, stage)
        loss = self.weighted_sum(terms.loss)
        self.log_terms(stage, {**terms.loss, **terms.watched, "loss": loss}, batch)
        return loss

    def _evaluate(self, batch: Mapping[str, Tensor], stage: Stage) -> None:
        # A module that defines no `loss_terms` has a training step of its own and nothing to validate here.
        if type(self).loss_terms is not BenchModule.loss_terms:
            self._logged_loss(batch, stage)
