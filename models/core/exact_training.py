# SPDX-License-Identifier: Apache-2.0
"""Trainings that can be resumed exactly, and that stop at the first number that is not finite."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.datamodules.files.texts import few
from lipsync_bench.datamodules.files.weights import is_state
from lipsync_bench.datamodules.windows.loading import FaceDataModule
from lipsync_bench.models.core.checkpoint_files import RECORD, install_atomic_saving, not_finite, refuse_not_finite

_NAMED = 8  # files or values in a message
_log = logging.getLogger(__name__)

__all__ = ["ExactTraining", "plain"]


def plain(value: Any) -> Any:
    """An argument as a YAML has it: tuples as lists."""
    return list(value) if isinstance(value, list | tuple) else value


def _few(items: Iterable[object]) -> str:
    return few(dict.fromkeys(map(str, items)), _NAMED)


class ExactTraining(pl.LightningModule):
    """Base of `BenchModule`. A subclass that overrides one of these hooks calls it as well.

    Random numbers of a training step depend on (seed, epoch, batch, process) alone, as the windows do, so that a
    resumed training draws what an unbroken one draws, and processes draw differently. The seed is that of torch when
    the first training begins; checkpoints keep it. What has to be equal on all processes is broadcast where it is
    drawn.

    A loss or a gradient that is not finite stops a training before it reaches the weights, and weights that are not
    finite are not written. Where a `GradScaler` looks for infinite gradients itself only the loss is looked at.

    Arguments of a resumed training that differ from the checkpoint's take effect, those of optimisers too.

    A checkpoint that is written where gradients are still being added up (`accumulate_batches`) holds them.
    """

    accumulate_batches = 1

    def __init__(self) -> None:
        super().__init__()
        self._noise_seed: int | None = None
        self._batch: tuple[Mapping[str, Tensor], int] | None = None
        self._loss: Tensor | None = None
        self._gradients: Mapping[str, Tensor] = {}
        self._changed: dict[str, tuple[Any, Any]] = {}
        self._configured: list[list[dict[str, Any]]] = []

    def smallest_batch(self, training: bool) -> int:
        """The fewest windows of a batch that the module can take, in training or in validation."""
        return 1

    def setup(self, stage: str) -> None:
        if self._trainer is not None:
            install_atomic_saving(self.trainer)

    def on_fit_start(self) -> None:
        seed = torch.initial_seed() if self._noise_seed is None else self._noise_seed
        self._noise_seed = self.trainer.strategy.broadcast(seed)
        self._configured = [
            [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
            for optimizer in self.trainer.optimizers
        ]

    def on_train_start(self) -> None:
        for name, parameter in self.named_parameters():
            if name in self._gradients:
                parameter.grad = self._gradients[name].to(parameter)
        self._gradients = {}
        if not self._changed or self.trainer.lr_scheduler_configs:
            return
        for optimizer, groups in zip(self.trainer.optimizers, self._configured, strict=True):
            for group, configured in zip(optimizer.param_groups, groups, strict=True):
                group.update(configured)  # the checkpoint's have just been restored

    def on_train_batch_start(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        self._batch = batch, batch_idx
        if self._noise_seed is not None:
            key = [self._noise_seed, self._epoch, batch_idx, self.trainer.global_rank]
            torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))

    def on_train_batch_end(self, outputs: Any, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        self._batch = self._loss = None

    def on_before_backward(self, loss: Tensor) -> None:
        self._loss = loss.detach()
        if self._has_scaler and not torch.isfinite(self._loss).all():
            raise self._stop(f"the loss is {float(self._loss):g}")

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self._has_scaler:
            return
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        # In one piece, since each look at a value waits for the device.
        norms = torch.stack(torch._foreach_norm(gradients)).sum() if gradients else torch.zeros(())
        loss = norms.new_zeros(()) if self._loss is None else self._loss.to(norms)
        if torch.isfinite(norms + loss.sum()):
            return
        if torch.isfinite(loss).all():
            names = [name for name, p in self.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
            raise self._stop(
                f"the gradient of {_few(names) or 'all weights together'} is not finite (the loss is {float(loss):g})"
            )
        raise self._stop(f"the loss is {float(loss):g}")

    def on_validation_model_zero_grad(self) -> None:
        if not self._is_accumulating:
            super().on_validation_model_zero_grad()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        name = not_finite(checkpoint["state_dict"])
        if name is not None:
            raise FloatingPointError(
                f"{type(self).__name__}: {name} is not finite. Expected finite weights in a checkpoint. Nothing is "
                "written; the checkpoints before it are whole: resume from one with --ckpt_path"
            )
        if self._noise_seed is not None:
            checkpoint[RECORD]["seed"] = self._noise_seed
        if self._is_accumulating and (self.trainer.world_size == 1 or not self.automatic_optimization):
            gradients = {name: x.grad for name, x in self.named_parameters() if x.grad is not None}
            checkpoint[RECORD]["gradients"] = gradients

    def checkpoint_state(self) -> dict[str, Tensor]:
        """The weights that a checkpoint holds, by name."""
        return self.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A subclass attaches parts that the checkpoint holds, then calls this."""
        record = checkpoint.get(RECORD, {})
        self._noise_seed = record["seed"] if isinstance(record.get("seed"), int) else self._noise_seed
        if self._trainer is None:
            return
        self._gradients = record.get("gradients", {})
        if is_state(checkpoint["state_dict"]):  # else it does not fit either, and a look at its values may be large
            refuse_not_finite(self.trainer.ckpt_path, checkpoint["state_dict"])
        stored = checkpoint.get(self.CHECKPOINT_HYPER_PARAMS_KEY, {})
        self._changed = {
            name: (stored[name], value)
            for name, value in self.hparams.items()
            if name in stored and not name.startswith("_") and plain(stored[name]) != plain(value)
        }
        self._check_fits(checkpoint)
        if self._changed and self.trainer.is_global_zero:
            _log.info("%s: resumes with %s", type(self).__name__, self._differences())

    def refuse_another(self, argument: str, path: str | None, digest: str | None) -> None:
        """Refuse a file that a resumed training is told to use in another's place, whose content the checkpoint holds.

        Args:
            argument: that names the file.
            path: what it says.
            digest: SHA-256 of the file whose content is in the checkpoint.
        """
        if argument in self._changed and path is not None and Path(path).is_file() and sha256(Path(path)) != digest:
            raise ValueError(
                f"--model.init_args.{argument} names {path}, and {self.trainer.ckpt_path} holds the content of another "
                f"file, {self._changed[argument][0]}. Expected the file that the training began with, or none. Leave "
                f"out --model.init_args.{argument}, or begin a new training"
            )

    @property
    def _epoch(self) -> int:
        """Of the batch at hand; `current_epoch` lags behind in a resumed training."""
        progress: Any = self.trainer.fit_loop.epoch_progress.current
        return int(progress.processed)

    @property
    def _batches_a_step(self) -> int:
        return max(self.accumulate_batches, self.trainer.accumulate_grad_batches)

    @property
    def _is_accumulating(self) -> bool:
        """Whether the optimisers do not step with the batch at hand, or did not with the last."""
        if self._trainer is None:
            return False
        ready = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        is_last = self.trainer.is_last_batch or ready == self.trainer.num_training_batches
        return ready % self._batches_a_step != 0 and not is_last

    @property
    def _has_scaler(self) -> bool:
        return getattr(self.trainer.precision_plugin, "scaler", None) is not None

    def _differences(self) -> str:
        return _few(f"{name} {new} (checkpoint: {old})" for name, (old, new) in self._changed.items())

    def _check_fits(self, checkpoint: Mapping[str, Any]) -> None:
        path, name = self.trainer.ckpt_path, type(self).__name__
        if self.trainer.state.fn == TrainerFn.FITTING and "optimizer_states" not in checkpoint:
            raise ValueError(
                f"{path}: holds weights without the state of a training. Expected a checkpoint of lightning fit to "
                "resume from. To begin a new training with its weights: --model.init_args.init_from"
            )
        own, stored = self.checkpoint_state(), checkpoint["state_dict"]
        wrong = [key for key in own if key in stored and own[key].shape != stored[key].shape]
        missing, unknown = [key for key in own if key not in stored], [key for key in stored if key not in own]
        if wrong or missing or unknown:
            shapes = (f"{key} {tuple(stored[key].shape)} instead of {tuple(own[key].shape)}" for key in wrong[:1])
            found = [
                f"{len(keys)} {what} ({text})"
                for keys, what, text in (
                    (wrong, "of another shape", next(shapes, "")),
                    (missing, "missing", missing[0] if missing else ""),
                    (unknown, "unknown", unknown[0] if unknown else ""),
                )
                if keys
            ]
            kind = checkpoint.get(RECORD, {}).get("class_path", name)
            because = f"It was made with other arguments: {self._differences()}. " if self._changed else ""
            raise ValueError(
                f"{path}: holds a {kind} whose tensors are not those of this {name}: {', '.join(found)}. {because}"
                "Expected a checkpoint of the same network. Name another --ckpt_path, or give the arguments of "
                "--model.init_args that it was made with"
            )

    def _stop(self, found: str) -> FloatingPointError:
        batch, number = self._batch or ({}, 0)
        files = self._files(batch, number)
        return FloatingPointError(
            f"{type(self).__name__}: {found} in epoch {self._epoch}, batch {number}, step {self.trainer.global_step}, "
            f"process {self.trainer.global_rank}{f', whose windows are from {_few(files)}' if files else ''}. Expected "
            "finite numbers. The checkpoints before it are whole: resume from one with --ckpt_path, without these "
            "files, or with a lower --model.init_args.lr"
        )

    def _files(self, batch: Mapping[str, Tensor], number: int) -> list[Path]:
        """Files of the windows that are not finite themselves, or of all if it is the network's fault."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, FaceDataModule):
            return []
        first = max(0, number - self._batches_a_step + 1)
        files = [file for index in range(first, number + 1) for file in data.files_of_batch(self._epoch, index)]
        own = files[-len(next(iter(batch.values()), [])) :] if files else []
        bad = [
            file
            for place, file in enumerate(own)
            if any(value.is_floating_point() and not value[place].isfinite().all() for value in batch.values())
        ]
        return bad or files
