# SPDX-License-Identifier: Apache-2.0
"""A method from whatever holds its weights: a checkpoint of this package, an official file, or a word.

The word `official` means the official file of the method's name; `pretrained` the weights that come with the package.
"""

import logging
from pathlib import Path

import torch
from torch import Tensor

from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.datamodules.weights.official_weights import OfficialWeights
from lipsync_bench.datamodules.weights.registry import official_file, official_files
from lipsync_bench.datamodules.weights.store import Found, Store
from lipsync_bench.models import TalkingFaceModule, list_methods, load_method
from lipsync_bench.models.core.checkpoints import is_checkpoint, read_about
from lipsync_bench.runs import run_checkpoint
from lipsync_bench.weights import KINDS, import_official, official_network, official_state

OFFICIAL = "official"
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
]


def is_word(given: Path | str) -> bool:
    """Whether `official` or `official:ID` is meant, and no path."""
    return str(given).partition(":")[0] == OFFICIAL and not Path(given).exists()


def official_id(name: str, given: Path | str) -> str:
    """The id of the official file that a word means for a method."""
    return str(given).partition(":")[2] or name


def method_file(name: str, given: Path | str, store: Store) -> Path:
    """The file of a method's weights.

    Args:
        name: What the method is called.
        given: A file, or the folder of a run; `official` for the official file that has the method's name as its id; or
            `official:ID`; or `pretrained` for the Wav2Lip that comes with the package.
        store: Where official files are looked for.

    Raises:
        FileNotFoundError: The official file is not here; says how to come by it.
        ValueError: There is no official file of that id, or it holds no method.
    """
    if str(given) == PRETRAINED and not Path(given).exists():
        return PRETRAINED_FILE
    if not is_word(given):
        return run_checkpoint(Path(given))
    id, methods = official_id(name, given), list_methods()
    known = [file.id for file in official_files().values() if file.kind in methods]
    if id not in known:
        raise ValueError(
            f"{name}: no official weights of a method called {id!r}. Expected {OFFICIAL}:ID with one of "
            f"{', '.join(known)}, or a path. Correct --methods.{name}"
        )
    return store.need(id).path


def file_here(name: str, given: Path | str, store: Store) -> Path | None:
    """As `method_file`; None if the file is not here."""
    if is_word(given):
        found = store.find(official_id(name, given))
        return None if found is None else found.path
    path = method_file(name, given, store)
    return path if path.is_file() else None


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
    """The method in a file, in evaluation mode: a checkpoint of this package, or official weights at full width.

    Args:
        name: What the method is called, from which an official file's kind is guessed first.
        path: The file.
        device: Where it runs.
        store: Where the official file of a first stage is looked for.

    Raises:
        FileNotFoundError: There is no such file, or none of its first stage.
        ValueError: The file is damaged, or holds no method.
    """
    if is_checkpoint(path):
        about = read_about(path).get("about")
        if about:
            _log.info("%s: %s", path.name, about)
        return load_method(path, device)
    kind, state = _read(name, path)
    module = kind.module(official_network(kind, path, state), None)  # type: ignore[misc]
    _log.info("%s: official weights of %s, taken as they are", path, kind.name)
    if kind.needs_first_stage(state):
        base = _base(kind, path, store)
        _log.info("%s: with the first stage of %s", path, base.path)
        first = import_official(official_file(base.id).kind, base.path)
        module.attach_base(first, base.sha256)
    return module.eval().to(device)
