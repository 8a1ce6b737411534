# SPDX-License-Identifier: Apache-2.0
"""Names of the first edition, whose packages were installed beside each other: `models.Wav2Lip` and the like.

They are taken in YAMLs and arguments, with a line that names the new spelling; but where a package of the user's is
called `models` and has a class of that name, it is meant.
"""

import logging
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["renamed", "renamed_words"]

PACKAGES = ("models", "datamodules")

_log = logging.getLogger(__name__)


def _is_theirs(package: str, path: str) -> bool:
    """Whether another package of that name has what `path` names."""
    spec = find_spec(package)
    ours = {Path(folder).resolve() for folder in import_module(f"lipsync_bench.{package}").__path__}
    if spec is None or ours & {Path(folder).resolve() for folder in spec.submodule_search_locations or ()}:
        return False
    module, _, name = path.rpartition(".")
    try:
        return hasattr(import_module(module), name)
    except ImportError:
        return False


def _new(path: str) -> str:
    package, _, rest = path.partition(".")
    name = rest.rpartition(".")[2]
    if package not in PACKAGES or not rest.replace(".", "").isidentifier():
        return path
    ours = getattr(import_module(f"lipsync_bench.{package}"), name, None)
    if not isinstance(ours, type) or _is_theirs(package, path):
        return path
    _log.warning("%s is spelled lipsync_bench.%s.%s now; please write it so.", path, package, name)
    return f"lipsync_bench.{package}.{name}"


def renamed(config: Any) -> Any:
    """A configuration with each `class_path` of the first edition in its new spelling."""
    if isinstance(config, Mapping):
        return {
            key: _new(value) if key == "class_path" and isinstance(value, str) else renamed(value)
            for key, value in config.items()
        }
    return [renamed(item) for item in config] if isinstance(config, list) else config


def renamed_words(words: list[str]) -> list[str]:
    """Words of a command line with each class of the first edition in its new spelling: of --model, --data or a
    `class_path`.
    """
    new = []
    for before, word in zip(["", *words], words, strict=False):
        option, mark, value = word.partition("=") if word.startswith("-") else (before, "", word)
        named = option in ("--model", "--data") or option.endswith("class_path")
        new.append(
            (f"{option}=" if mark else "") + _new(value) if named and value and not value.startswith("-") else word
        )
    return new
