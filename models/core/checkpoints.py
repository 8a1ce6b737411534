# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that say which class made them, hold plain values only, and load without executing code."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lipsync_bench.datamodules.texts import flat
from lipsync_bench.datamodules.weights import is_state, read_torch
from lipsync_bench.models.core.checkpoint_files import RECORD, refuse_not_finite, write_checkpoint
from lipsync_bench.models.core.exact_training import ExactTraining

_OURS = "lipsync_bench.models."
_FIRST_EDITION = "models."
_SPARE_VALUES = 100_000_000  # of parts that are made and not stored
_FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.tensor, torch.arange}

_log = logging.getLogger(__name__)

__all__ = ["RECORD", "BenchModule", "class_path", "load_checkpoint", "load_module", "save_module"]


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
        checkpoint[RECORD] = {"class_path": class_path(type(self)), "version": _package_version()}
        super().on_save_checkpoint(checkpoint)


def class_path(kind: type) -> str:
    """What records call a class: for those of this package, wherever their files lie, lipsync_bench.models.NAME."""
    home = _OURS if kind.__module__.startswith(_OURS) else f"{kind.__module__}."
    return home + kind.__qualname__


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


class _TooLarge(Exception):
    pass


class _Counted(TorchFunctionMode):
    """Counts the values of the tensors that are made, and ends a construction that would fill the memory."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._left = most

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        if function in _FACTORIES and isinstance(made, Tensor):
            self._left -= made.numel()
            if self._left < 0:
                raise _TooLarge
        return made


def _record(path: Path, checkpoint: Mapping[str, Any]) -> tuple[str, str]:
    """Class that a checkpoint is of, and which versions wrote and read it, in words."""
    record = checkpoint[RECORD]
    kind = record.get("class_path") if isinstance(record, dict) else None
    if not isinstance(kind, str):
        raise ValueError(
            f"{path}: its entry '{RECORD}' is {record!r:.60}, which names no class. Expected a checkpoint of this "
            "package. Write it again with: lightning fit -c FILE"
        )
    return kind, f"written by version {record.get('version', 'unknown')!s:.20}, this is {_package_version()}"


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint of this package onto the CPU, without executing code from it.

    Its record names a class; `state_dict` holds tensors by name, the hyper-parameters are plain values by name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or was not written by this package.
    """
    checkpoint = read_torch(
        path,
        "a .ckpt file of tensors and plain values, written by this package",
        "Write it with: lightning fit -c FILE",
    )
    if not isinstance(checkpoint, dict) or RECORD not in checkpoint:
        raise ValueError(
            f"{path}: has no entry '{RECORD}'. Expected a checkpoint of this package, written by: lightning fit -c "
            "FILE (an official weight file has to be converted first: bench import)"
        )
    made = _record(path, checkpoint)[1]
    arguments = checkpoint.setdefault(pl.LightningModule.CHECKPOINT_HYPER_PARAMS_KEY, {})
    if not isinstance(arguments, Mapping) or not all(isinstance(name, str) for name in arguments):
        raise ValueError(
            f"{path}: its hyper-parameters are {arguments!r:.60} ({made}). Expected values by name. Write it again "
            "with: lightning fit -c FILE"
        )
    if not is_state(checkpoint.get("state_dict")):
        raise ValueError(
            f"{path}: its state_dict is no mapping of names to dense tensors ({made}). Expected the weights. Write it "
            "again with: lightning fit -c FILE"
        )
    return checkpoint


_Module = TypeVar("_Module", bound=BenchModule)


def _build(path: Path, kind: type[_Module], checkpoint: dict[str, Any]) -> _Module:
    """The module of a checkpoint without its weights.

    It is made without memory first: hyper-parameters from a file may ask for any amount. A network has about as many
    values as its file; what fails there for another reason fails again, or not, when it is made in earnest.
    """
    arguments = checkpoint[pl.LightningModule.CHECKPOINT_HYPER_PARAMS_KEY]
    # Names with an underscore are LightningCLI's own.
    arguments = {name: value for name, value in arguments.items() if not name.startswith("_")}
    try:
        with torch.device("meta"), _Counted(path.stat().st_size + _SPARE_VALUES):
            kind(**arguments).on_load_checkpoint(checkpoint)
    except _TooLarge as error:
        raise ValueError(f"its hyper-parameters ask for a network much larger than the file: {arguments}") from error
    except Exception:
        pass
    module = kind(**arguments)
    module.on_load_checkpoint(checkpoint)
    return module


def load_module(path: Path, classes: Iterable[type[_Module]]) -> _Module:
    """The module stored at `path`, on the CPU in evaluation mode.

    Its class must be one of `classes`: a file cannot have other code imported.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, not ours, or holds another class.
    """
    checkpoint = load_checkpoint(path)
    known = {class_path(kind): kind for kind in classes}
    stored, made = _record(path, checkpoint)
    if stored not in known and stored.startswith(_FIRST_EDITION):
        new = _OURS + stored.rpartition(".")[2]
        _log.info("%s: holds a %s, which is called %s now.", path, stored, new)
        stored = new
    if stored not in known:
        raise ValueError(
            f"{path}: holds a {stored} ({made}). Expected one of: {', '.join(sorted(known))}. Name another checkpoint."
        )
    kind, state = known[stored], checkpoint["state_dict"]
    try:
        module = _build(path, kind, checkpoint)
        strange = [
            name
            for name, value in module.state_dict().items()
            if name in state and state[name].is_floating_point() != value.is_floating_point()
        ]
        if strange:
            raise ValueError(f"{strange[0]} is {state[strange[0]].dtype}")
        module.load_state_dict(state, strict=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # a record may hold anything, and constructors and networks fail in every way
        reason = flat(error).rstrip(".")[:500] or type(error).__name__
        raise ValueError(
            f"{path}: holds another {kind.__name__} than this version makes ({made}): {reason}. Expected the "
            "hyper-parameters and weights of this version. Install the one that wrote it, or train again"
        ) from error
    refuse_not_finite(path, state)  # now that their sizes are the network's
    return module.eval()
