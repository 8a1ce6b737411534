# SPDX-License-Identifier: Apache-2.0
"""The YAML files that the `lightning` command is given are read within bounds, which jsonargparse does not do."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lipsync_bench.experiment_files import run_file

__all__ = ["bound_configs", "config_files", "with_paths"]


def _is_text(word: str) -> bool:
    """Whether a word is the text of a configuration itself, which jsonargparse takes instead of a file."""
    return word.startswith("{") or "\n" in word


def with_paths(words: Sequence[str]) -> list[str]:
    """Typed words with the paths of the YAMLs that are named, as `-c wav2lip`, where they are not paths already.

    Raises:
        FileNotFoundError: There is no such YAML.
    """
    new = []
    for before, word in zip(["", *words], words, strict=False):
        option, _, value = word.partition("=")
        if before in ("-c", "--config") and not word.startswith("-") and not _is_text(word):
            new.append(str(run_file(word)))
        elif option == "--config" and value and not _is_text(value):
            new.append(f"{option}={run_file(value)}")
        else:
            new.append(word)
    return new


def config_files(words: Sequence[str]) -> list[str]:
    """The files of arguments among typed words: those of `--config`, and whatever is called a YAML."""
    files = []
    for option, word in zip(["", *words], words, strict=False):
        path = word.partition("=")[2] if word.startswith("-") else word
        named = option in ("-c", "--config") or word.startswith("--config=") or path.endswith((".yaml", ".yml"))
        if named and os.path.exists(path):  # noqa: PTH110 (which raises for long words)
            files.append(path)
    return files


def bound_configs(words: Sequence[str]) -> None:
    """Refuse files of arguments that are no text, too large or a bomb.

    Those that are named here end with a line of their own; those that they name in turn, as wrong arguments.
    """
    files = config_files(words)
    if not files:  # nothing is imported for it
        return
    from jsonargparse import get_loader, set_loader
    from yaml import YAMLError

    from lipsync_bench.datamodules.files.texts import check_yaml, read_yaml
    from lipsync_bench.old_names import renamed

    for path in files:
        read_yaml(Path(path), "a YAML of arguments, as in experiments/", "Correct the file")
    load = get_loader("yaml")

    def bounded(text: str) -> Any:
        check_yaml(text)
        return renamed(load(text))

    set_loader("yaml", bounded, (YAMLError,))
