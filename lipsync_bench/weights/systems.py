# SPDX-License-Identifier: Apache-2.0
"""Systems: methods that are put together of several trained networks, as a YAML in experiments/systems/ says.

    class_path: lipsync_bench.models.VideoReTalking
    init_args:
      enet: runs/videoretalking_enet      # what the class calls its parts: each a checkpoint, a run's folder, or the
      dnet: official                      # word official (official:ID) for an official file in the store
      template: smile                     # further arguments of the class

Such a YAML is taken wherever a checkpoint is.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.datamodules.files.texts import read_yaml
from lipsync_bench.datamodules.weights.store import Store
from lipsync_bench.experiment_files import experiment_file, experiment_names, plain_name
from lipsync_bench.models import TalkingFaceModule, list_methods
from lipsync_bench.models.core.checkpoint_files import class_path
from lipsync_bench.runs import run_checkpoint

FOLDER = "systems"
OFFICIAL = "official"
_SUFFIXES = (".yaml", ".yml")
_LONGEST = 200  # name of a file, which a file system may refuse to look up

__all__ = ["OFFICIAL", "System", "is_system", "is_word", "read_system", "system_file"]


def is_word(given: Path | str) -> bool:
    """Whether `official` or `official:ID` is meant, and no path."""
    return str(given).partition(":")[0] == OFFICIAL and not Path(given).exists()


def is_system(path: Path) -> bool:
    """Whether a file describes a system, by its name."""
    return path.suffix in _SUFFIXES


def system_file(given: Path | str) -> Path | None:
    """The YAML of a system: a path, or the name of one, with or without `experiments/`, the folder and the suffix."""
    path, name = Path(given), plain_name(str(given)).removeprefix(f"{FOLDER}/")
    if path.exists():
        return path if is_system(path) else None
    return experiment_file(FOLDER, name) if 0 < len(name) < _LONGEST else None


@dataclass(frozen=True)
class System:
    """What a YAML says.

    Args:
        path: The YAML.
        kind: Class of the method.
        parts: Checkpoint of each of its parts, or the word official.
        options: Further arguments of the class.
    """

    path: Path
    kind: type[TalkingFaceModule]
    parts: Mapping[str, str]
    options: Mapping[str, Any]

    def files(self, store: Store) -> dict[str, Path]:
        """The file of each part.

        Raises:
            FileNotFoundError: One is not here.
        """
        found = {}
        for name, given in self.parts.items():
            kind, id = self.kind.parts[name]
            if is_word(given):
                found[name] = store.need(given.partition(":")[2] or id).path
                continue
            found[name] = run_checkpoint(Path(given))
            if not found[name].is_file():
                raise FileNotFoundError(
                    f"{self.path}: no {name} at {given}. Expected a {kind.__name__} checkpoint. Train one with: "
                    f"lightning fit -c {kind.experiment}; or name another, or official, in a copy of the YAML"
                )
        return found

    def sha256(self, store: Store) -> str:
        """Of all that its frames depend on: its parts, options, and the networks of others that it looks for."""
        options = {name: sha256(Path(x)) if _is_file(x) else x for name, x in self.options.items()}
        looked_for = self.kind.networks_of(self.options)
        networks = {id: found.sha256 for id in looked_for if (found := store.find(id)) is not None}
        parts = {name: sha256(path) for name, path in self.files(store).items()}
        whole = {"class": class_path(self.kind), "options": options, "parts": parts, "networks": networks}
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def _is_file(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) < 4096 and "\0" not in value and Path(value).is_file()


def read_system(path: Path) -> System:
    """What the YAML of a system says.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else.
    """
    known = ", ".join(experiment_names(FOLDER))
    repair = f"See experiments/{FOLDER}/ ({known})"
    node = read_yaml(path, "a system", repair)
    kinds = {class_path(kind): kind for kind in list_methods().values() if kind.parts}
    kind = kinds.get(str(node.get("class_path"))) if isinstance(node, dict) else None
    if kind is None or not set(node) <= {"class_path", "init_args"}:
        found = ", ".join(map(str, node)) if isinstance(node, dict) else f"a {type(node).__name__}"
        raise ValueError(
            f"{path}: no system: {found[:200]}. Expected class_path ({', '.join(kinds)}) and init_args. {repair}"
        )
    arguments = node.get("init_args")
    parts = {name: arguments.get(name) for name in kind.parts} if isinstance(arguments, dict) else {}
    if not parts or not all(isinstance(value, str) and value for value in parts.values()):
        raise ValueError(
            f"{path}: init_args are {arguments!r:.200}. Expected {', '.join(kind.parts)}, each a checkpoint, a run's "
            f"folder or the word {OFFICIAL}. {repair}"
        )
    options = {name: value for name, value in arguments.items() if name not in parts}
    return System(path, kind, {name: str(value) for name, value in parts.items()}, options)
