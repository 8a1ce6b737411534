# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that say which class made them, hold plain values only, and load without executing code.

They are files of `torch.save` as Lightning writes them, or packed ones: safetensors of the weights in half precision,
whose head has the rest.
"""

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from safetensors.torch import save
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lipsync_bench.datamodules.files.disk import sha256, write_atomic
from lipsync_bench.datamodules.files.texts import flat
from lipsync_bench.datamodules.files.weights import is_state, read_metadata, read_torch
from lipsync_bench.models.core.checkpoint_files import (
    OURS,
    RECORD,
    class_path,
    package_version,
    refuse_not_finite,
    write_checkpoint,
)
from lipsync_bench.models.core.training import BenchModule

_FIRST_EDITION = "models."
_SPARE_VALUES = 100_000_000  # of parts that are made and not stored
_FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.tensor, torch.arange}

_log = logging.getLogger(__name__)

_EXPECTED = "a .ckpt file of tensors and plain values, written by this package, or an official weight file"

__all__ = [
    "RECORD",
    "BenchModule",
    "class_path",
    "is_checkpoint",
    "load_checkpoint",
    "load_module",
    "pack_checkpoint",
    "read_about",
    "read_origin",
    "read_stage",
    "read_start",
    "save_module",
]


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
    return kind, f"written by version {record.get('version', 'unknown')!s:.20}, this is {package_version()}"


def _entries(path: Path, repair: str, *, mapped: bool = False) -> Any:
    """What a file holds; a packed checkpoint as the one that it was made from. Args are those of `read_torch`."""
    entries = read_torch(path, _EXPECTED, repair, mapped=mapped)
    head = read_metadata(path).get(RECORD)
    if head is None:
        return entries
    try:
        return {**json.loads(head), "state_dict": entries}
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: its entry '{RECORD}' is {head!r:.60}, which is no record. Expected {_EXPECTED}. {repair}"
        ) from error


def _record_of(path: Path) -> Mapping[str, Any]:
    entries = _entries(path, "Name another file", mapped=True)
    record = entries.get(RECORD) if isinstance(entries, Mapping) else None
    return record if isinstance(record, Mapping) else {}


def is_checkpoint(path: Path) -> bool:
    """Whether a file is a checkpoint of this package, rather than an official weight file.

    Raises:
        FileNotFoundError, ValueError: There is no such file; it is damaged, or asks for code to be called.
    """
    entries = _entries(path, "Name another file", mapped=True)
    return isinstance(entries, Mapping) and RECORD in entries


def pack_checkpoint(path: Path, out: Path, about: Mapping[str, str]) -> None:
    """Write the weights of a checkpoint in half precision, with its record, as safetensors, for handing on.

    It loads wherever the checkpoint does, but no training is resumed from it.

    Args:
        path: A checkpoint of this package.
        out: The file; replaced if it is there.
        about: What to say of it: what it was trained on, by which command, under which licence.

    Raises:
        FileNotFoundError, ValueError: As `load_checkpoint`; or a weight is too large for half precision.
    """
    checkpoint = load_checkpoint(path)
    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in checkpoint["state_dict"].items()
    }
    refuse_not_finite(path, state)
    record = {name: value for name, value in checkpoint[RECORD].items() if name != "gradients"}
    key = pl.LightningModule.CHECKPOINT_HYPER_PARAMS_KEY
    head = {
        RECORD: {**record, "checkpoint_sha256": sha256(path), "about": dict(about)},
        key: {name: value for name, value in checkpoint[key].items() if not name.startswith("_")},
        "global_step": checkpoint.get("global_step", 0),
    }
    write_atomic(out, save(state, {RECORD: json.dumps(head, sort_keys=True)}))


def read_about(path: Path) -> dict[str, str]:
    """What `pack_checkpoint` was told to say of a checkpoint, by name; nothing of any other file."""
    about = _record_of(path).get("about")
    return {str(key): str(value) for key, value in about.items()} if isinstance(about, Mapping) else {}


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint of this package onto the CPU, without executing code from it.

    Its record names a class; `state_dict` holds tensors by name, the hyper-parameters are plain values by name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or was not written by this package.
    """
    checkpoint = _entries(path, "Write it with: lightning fit -c FILE")
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


def read_origin(path: Path) -> dict[str, str]:
    """Where the weights of a checkpoint come from, as `save_module` stored it; empty if they were trained here, or if
    the file is no checkpoint of this package.

    Raises:
        FileNotFoundError, ValueError: as `read_torch`.
    """
    origin = _record_of(path).get("origin")
    return {str(key): str(value) for key, value in origin.items()} if isinstance(origin, Mapping) else {}


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
            state = {name: value.to("meta") for name, value in checkpoint["state_dict"].items()}
            kind(**arguments).on_load_checkpoint({**checkpoint, "state_dict": state})
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
    stored, made = _record(path, checkpoint)
    called = (stored, OURS + stored.rpartition(".")[2] if stored.startswith(_FIRST_EDITION) else stored)
    known: dict[str, type[_Module]] = {}
    for kind in classes:  # which may import a package for each
        known[class_path(kind)] = kind
        if class_path(kind) in called:
            break
    if stored not in known and stored != called[1]:
        _log.info("%s: holds a %s, which is called %s now.", path, stored, called[1])
        stored = called[1]
    if stored not in known:
        raise ValueError(
            f"{path}: holds a {stored} ({made}). Expected one of: {', '.join(sorted(known))}. Name another checkpoint."
        )
    kind, state = known[stored], dict(checkpoint["state_dict"])
    try:
        module = _build(path, kind, checkpoint)
        strange = [
            name
            for name, value in module.checkpoint_state().items()
            if name in state and state[name].is_floating_point() != value.is_floating_point()
        ]
        if strange:
            raise ValueError(f"{strange[0]} is {state[strange[0]].dtype}")
        module.load_state_dict(checkpoint["state_dict"], strict=True)  # what is left: frozen parts have theirs
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


def read_stage(module: BenchModule, argument: str, kind: type[_Module]) -> _Module:
    """The trained module whose checkpoint an argument of another names: its first stage, its lip-sync expert.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the argument is None; the file is damaged, not ours, or holds another class.
    """
    name, path = type(module).__name__, module.hparams[argument]
    repair = f"Train one with: lightning fit -c {kind.experiment}; then name it with --model.init_args.{argument} PATH"
    if path is None:
        raise ValueError(f"{name}: {argument} is None. Expected the path of a {kind.__name__} checkpoint. {repair}")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{name}: no {argument} at {path}. Expected a {kind.__name__} checkpoint. {repair}")
    return load_module(Path(path), [kind])


def read_start(module: _Module) -> _Module | None:
    """The trained module of the same class whose checkpoint the argument `init_from` names; None without one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, not ours, or holds another class.
    """
    if not module.hparams.get("init_from"):
        return None
    path = Path(module.hparams["init_from"])
    source = load_module(path, [type(module)])
    _log.info("%s: starts from %s, sha256 %s", type(module).__name__, path, sha256(path))
    return source
