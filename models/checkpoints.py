# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that say which class made them, hold plain values only, and load without executing code."""

import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from models.checkpoint_files import RECORD, refuse_not_finite, write_checkpoint
from models.exact_training import ExactTraining

__all__ = ["RECORD", "BenchModule", "load_checkpoint", "load_module", "save_module"]


def _package_version() -> str:
    try:
        return metadata.version("lipsync_bench")
    except metadata.PackageNotFoundError:
        return "not installed"


def _drop_frozen(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    parts = tuple(f"{prefix}{part}." for part in _unsaved(module))
    for name in [name for name in state if name.startswith(parts)]:
        del state[name]


def _forgive_frozen(module: nn.Module, incompatible: Any) -> None:
    missing, parts = incompatible.missing_keys, tuple(f"{part}." for part in _unsaved(module))
    missing[:] = [name for name in missing if not name.startswith(parts)]


def _unsaved(module: nn.Module) -> tuple[str, ...]:
    return module.unsaved if isinstance(module, BenchModule) else ()


class BenchModule(ExactTraining):
    """A LightningModule whose checkpoints say which class made them, and which flips colours in one place.

    Checkpoints hold plain types and tensors only, so that they load with `weights_only=True`.
    """

    channel_order: ClassVar[Literal["rgb", "bgr"]] = "rgb"
    """Colour order inside the networks; everything outside is RGB."""
    experiment: ClassVar[str] = ""
    """The file in experiments/ that trains this class."""
    window_frames: ClassVar[int] = 5
    parameters_without_gradient: ClassVar[tuple[str, ...]] = ()
    """Beginnings of the names of parameters that require a gradient and never get one (dead weights)."""
    unsaved: ClassVar[tuple[str, ...]] = ()
    """Frozen submodules that are read from their own files and stay out of checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.register_state_dict_post_hook(_drop_frozen)
        self.register_load_state_dict_post_hook(_forgive_frozen)

    @classmethod
    def smoke_arguments(cls, folder: Path) -> dict[str, Any]:
        """Constructor arguments of a model small enough for tests and demonstrations on a CPU.

        Files that the arguments name, a frozen network's random weights say, are written into `folder`.
        """
        return {}

    def to_network(self, images: Tensor) -> Tensor:
        """RGB images (..., 3, H, W) in the colour order of the networks."""
        return images.flip(-3) if self.channel_order == "bgr" else images

    def from_network(self, images: Tensor) -> Tensor:
        """Images (..., 3, H, W) of a network as RGB."""
        return self.to_network(images)  # the flip is its own inverse

    @contextmanager
    def turn(self, optimizer_index: int) -> Iterator[Callable[[Tensor], None]]:
        """The turn of one optimiser in manual optimisation; the others' parameters collect no gradients meanwhile.

        with self.turn(0) as step:
            step(loss_of_the_generator())
        """
        optimizer = cast(list[LightningOptimizer], self.optimizers())[optimizer_index]

        def step(loss: Tensor) -> None:
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

        with self.toggled_optimizer(optimizer):
            yield step

    def log_terms(self, stage: str, terms: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> None:
        """Log named terms of a loss as `stage/name`.

        In training those of this process's batch; else means over the windows of all processes.
        """
        values = {f"{stage}/{name}": value.detach() for name, value in terms.items()}
        size = float(len(next(iter(batch.values()))))  # Lightning divides a whole number among processes without a rest
        self.log_dict(values, batch_size=size, sync_dist=stage != "train", prog_bar=True)  # type: ignore[arg-type]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        kind = type(self)
        checkpoint[RECORD] = {"class_path": f"{kind.__module__}.{kind.__qualname__}", "version": _package_version()}
        super().on_save_checkpoint(checkpoint)


def save_module(module: BenchModule, path: Path, origin: Mapping[str, str] | None = None) -> None:
    """Writes a checkpoint without optimiser or trainer; it loads wherever one of `lightning fit` does.

    Args:
        module: To be stored.
        path: The file; replaced if it is there.
        origin: Where weights that were not trained here come from; stands in the checkpoint's record.
    """
    checkpoint: dict[str, Any] = {
        "state_dict": module.state_dict(),
        module.CHECKPOINT_HYPER_PARAMS_KEY: dict(module.hparams),
        "pytorch-lightning_version": pl.__version__,
        "epoch": 0,
        "global_step": 0,
    }
    module.on_save_checkpoint(checkpoint)
    if origin is not None:
        checkpoint[RECORD]["origin"] = dict(origin)
    write_checkpoint(checkpoint, path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint of this package onto the CPU, without executing code from it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or was not written by this package.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint. Expected a .ckpt file written by: lightning fit -c FILE")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(
            f"{path}: cannot be read as a checkpoint ({type(error).__name__}). Expected a whole .ckpt file of tensors "
            "and plain values. Write it again with: lightning fit -c FILE"
        ) from error
    if not isinstance(checkpoint, dict) or RECORD not in checkpoint:
        raise ValueError(
            f"{path}: has no entry '{RECORD}'. Expected a checkpoint of this package, written by: lightning fit -c "
            "FILE (an official weight file has to be converted first: bench import)"
        )
    return checkpoint


_Module = TypeVar("_Module", bound=BenchModule)


def load_module(path: Path, classes: Iterable[type[_Module]]) -> _Module:
    """The module stored at `path`, on the CPU in evaluation mode.

    Its class must be one of `classes`: a file cannot have other code imported.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, not ours, or holds another class.
    """
    checkpoint = load_checkpoint(path)
    known = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in classes}
    stored = checkpoint[RECORD]["class_path"]
    if stored not in known:
        raise ValueError(
            f"{path}: holds a {stored}. Expected one of: {', '.join(sorted(known))}. Name another checkpoint."
        )
    arguments = checkpoint.get(pl.LightningModule.CHECKPOINT_HYPER_PARAMS_KEY, {})
    # Names with an underscore are LightningCLI's own.
    module = known[stored](**{name: value for name, value in arguments.items() if not name.startswith("_")})
    refuse_not_finite(path, checkpoint["state_dict"])
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint["state_dict"], strict=True)
    return module.eval()
