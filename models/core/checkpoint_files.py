# SPDX-License-Identifier: Apache-2.0
"""Checkpoint files that are whole or absent, wherever they lie and however full the disk is."""

import os
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from torch import Tensor

from lipsync_bench.datamodules.errors import DescribedOSError
from lipsync_bench.datamodules.files.disk import atomic_path, remove_leftovers

RECORD = "lipsync_bench"  # our entry in a Lightning checkpoint
OURS = "lipsync_bench.models."

__all__ = [
    "OURS",
    "RECORD",
    "AtomicCheckpointIO",
    "class_path",
    "install_atomic_saving",
    "not_finite",
    "package_version",
    "refuse_not_finite",
    "write_checkpoint",
]


def class_path(kind: type) -> str:
    """What records call a class: for those of this package, wherever their files lie, lipsync_bench.models.NAME."""
    home = OURS if kind.__module__.startswith(OURS) else f"{kind.__module__}."
    return home + kind.__qualname__


def package_version() -> str:
    """Of this package, for records."""
    try:
        return metadata.version("lipsync_bench")
    except metadata.PackageNotFoundError:
        return "not installed"


def not_finite(state: Mapping[str, Any]) -> str | None:
    """The name of the first tensor with a value that is not finite; None if there is none."""
    floats = {name: x for name, x in state.items() if isinstance(x, Tensor) and x.is_floating_point() and x.numel()}
    if not floats:
        return None
    # One look for all: each waits for the device.
    finite = torch.stack(
        [x.isfinite().all().cpu() if x.device.type == "cpu" else x.isfinite().all() for x in floats.values()]
    )
    return None if finite.all() else list(floats)[int(finite.int().argmin())]


def refuse_not_finite(path: object, state: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of a training that had diverged.

    Raises:
        ValueError: a tensor has a value that is not finite; the message names file and tensor.
    """
    name = not_finite(state)
    if name is not None:
        raise ValueError(
            f"{path}: {name} has values that are not finite. Expected finite weights. Use a checkpoint from before the "
            "training diverged, or train again with: lightning fit -c FILE"
        )


def write_checkpoint(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write a whole checkpoint or none; one that is there stays until the new one is whole.

    Raises:
        OSError: it cannot be written; the message names the file and what to do.
    """
    try:
        if path.parent.is_dir():
            remove_leftovers(path.parent, of=path)  # as large as a checkpoint, of a training that was killed
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            torch.save(dict(checkpoint), file)
    except (OSError, RuntimeError) as error:  # torch's writer turns an OSError into a RuntimeError
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        raise DescribedOSError(
            cause.errno,
            f"{path}: the checkpoint could not be written ({os.strerror(cause.errno or 0)}). Expected room and "
            "permission for it. The checkpoints before it are whole: make room, then resume from one with --ckpt_path",
        ) from error


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's, but for local files: those it writes to the folder for temporary files and moves, which is a copy
    where that is another file system, and leaves half a file when it is interrupted or the disk is full.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
        else:
            write_checkpoint(checkpoint, Path(path))


def install_atomic_saving(trainer: pl.Trainer) -> None:
    """Have a trainer write checkpoints whole or not at all, unless it was given a way of its own."""
    strategy = trainer.strategy
    if type(strategy.checkpoint_io) is TorchCheckpointIO:
        strategy.checkpoint_io = AtomicCheckpointIO()
