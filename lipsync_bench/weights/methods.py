# SPDX-License-Identifier: Apache-2.0
"""A method from whatever holds its weights: a checkpoint of this package, an official file, a system, or a word.

The word `official` means the official file of the method's name; `pretrained` the weights that come with the package.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.datamodules.files.texts import flat
from lipsync_bench.datamodules.weights.official_weights import OfficialWeights
from lipsync_bench.datamodules.weights.registry import official_file, official_files
from lipsync_bench.datamodules.weights.store import Found, Store
from lipsync_bench.models import TalkingFaceModule, list_methods, load_method
from lipsync_bench.models.core.checkpoints import is_checkpoint, load_module, read_about
from lipsync_bench.runs import run_checkpoint
from lipsync_bench.weights import KINDS, import_official, official_network, official_state
from lipsync_bench.weights.systems import OFFICIAL, System, is_system, is_word, read_system, system_file

PRETRAINED = "pretrained"
PRETRAINED_FILE = Path(__file__).with_name("pretrained") / "wav2lip.safetensors"
"""The Wav2Lip that comes with the package, trained on its synthetic corpus (docs/results/pretrained.md)."""

_log = logging.getLogger(__name__)

__all__ = [
    "OFFICIAL",
    "PRETRAINED",
    "PRETRAINED_FILE",
    "file_here",
    "is_word",
    "load_any",
    "method_file",
    "official_id",
    "weights_files",
    "weights_sha256",
]


def official_id(name: str, given: Path | str) -> str:
    """The id of the official file that a word means for a method."""
    return str(given).partition(":")[2] or name


def method_file(name: str, given: Path | str, store: Store) -> Path:
    """The file of a method's weights.

    Args:
        name: What the method is called.
        given: A file, or the folder of a run; the name of a system (experiments/systems/); `official` for the official
            file that has the method's name as its id, or for the system of such files; or `official:ID`; or
            `pretrained` for the Wav2Lip that comes with the package.
        store: Where official files are looked for.

    Raises:
        FileNotFoundError: The official file is not here; says how to come by it.
        ValueError: There is no official file of that id, or it holds no method.
    """
    if str(given) == PRETRAINED and not Path(given).exists():
        return PRETRAINED_FILE
    if not is_word(given):
        return system_file(given) or run_checkpoint(Path(given))
    id, methods = official_id(name, given), list_methods()
    system = system_file(f"{id}_{OFFICIAL}")
    if system is not None:
        return system
    known = [file.id for file in official_files().values() if file.kind in methods]
    if id not in known:
        raise ValueError(
            f"{name}: no official weights of a method called {id!r}. Expected {OFFICIAL}:ID with one of "
            f"{', '.join(known)}, or a path. Correct --methods.{name}"
        )
    return store.need(id).path


def file_here(name: str, given: Path | str, store: Store) -> Path | None:
    """As `method_file`; None if the file is not here."""
    if is_word(given) and system_file(f"{official_id(name, given)}_{OFFICIAL}") is None:
        found = store.find(official_id(name, given))
        return None if found is None else found.path
    path = method_file(name, given, store)
    try:
        return path if all(file.is_file() for file in weights_files(path, store)) else None
    except FileNotFoundError:  # a part of a system
        return None


def weights_files(path: Path, store: Store) -> list[Path]:
    """The files that a method's weights are in: itself, or the parts of a system.

    Raises:
        FileNotFoundError, ValueError: As `read_system`, `System.files`.
    """
    return list(read_system(path).files(store).values()) if is_system(path) else [path]


def weights_sha256(path: Path, store: Store) -> str:
    """SHA-256 of what a method's frames depend on: its file, or the parts and options of a system.

    Raises:
        FileNotFoundError, ValueError: As `weights_files`.
    """
    return read_system(path).sha256(store) if is_system(path) else sha256(path)


def _read(name: str, path: Path) -> tuple[OfficialWeights, dict[str, Tensor]]:
    """The method that an official file holds, told by its names and shapes, and its state; the likeliest if by none."""
    kinds = [KINDS[method] for method in list_methods() if method in KINDS]
    kinds.sort(key=lambda kind: not name.startswith(kind.name))
    for kind in kinds:
        state = official_state(kind, path)
        with torch.device("meta"):
            if not kind.differences(kind.build(state), state):
                return kind, state
    return kinds[0], official_state(kinds[0], path)


def _base(kind: OfficialWeights, path: Path, store: Store) -> Found:
    """The official file of the first stage that belongs to a second one."""
    digest = sha256(path)
    files = [file for file in official_files().values() if file.kind == kind.name and file.base]
    file = next((file for file in files if file.sha256 == digest or path.name.lower() in file.names), files[0])
    return store.need(file.base)


def load_any(name: str, path: Path, device: str, store: Store) -> TalkingFaceModule:
    """The method in a file, in evaluation mode: a checkpoint of this package, official weights at full width, or what a
    system's YAML puts together.

    Args:
        name: What the method is called, from which an official file's kind is guessed first.
        path: The file.
        device: Where it runs.
        store: Where the official file of a first stage is looked for.

    Raises:
        FileNotFoundError: There is no such file, or none of its first stage.
        ValueError: The file is damaged, or holds no method.
    """
    if is_system(path):
        return _assembled(read_system(path), store).to(device)
    if is_checkpoint(path):
        about = read_about(path).get("about")
        if about:
            _log.info("%s: %s", path.name, about)
        return load_method(path, device)
    return _official(*_read(name, path), path, store).to(device)


def _assembled(system: System, store: Store) -> TalkingFaceModule:
    """The method that a system's YAML describes."""
    files, modules = system.files(store), {}
    for name, path in files.items():
        kind, id = system.kind.parts[name]
        official = KINDS[official_file(id).kind]
        if is_checkpoint(path):
            modules[name] = load_module(path, [kind])
        else:
            modules[name] = _official(official, official_state(official, path), path, store)
    try:
        made = system.kind.assembled(modules, {name: sha256(path) for name, path in files.items()}, system.options)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{system.path}: {flat(error)}. Expected arguments of {system.kind.__name__}. Correct init_args"
        ) from error
    _log.info("%s: put together of %s", system.path, ", ".join(map(str, files.values())))
    return made.eval()


def _official(kind: OfficialWeights, state: dict[str, Tensor], path: Path, store: Store) -> Any:
    """The module of an official file's tensors, with its first stage from the store."""
    module = kind.module(official_network(kind, path, state), None)  # type: ignore[misc]
    _log.info("%s: official weights of %s, taken as they are", path, kind.name)
    if kind.needs_first_stage(state):
        base = _base(kind, path, store)
        _log.info("%s: with the first stage of %s", path, base.path)
        first = import_official(official_file(base.id).kind, base.path)
        module.attach_base(first, base.sha256)
    return module.eval()
