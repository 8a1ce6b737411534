# SPDX-License-Identifier: Apache-2.0
"""Split lists: which clips of a data set are for training, for validation and for testing."""

import logging
from pathlib import Path
from typing import Literal, get_args

from lipsync_bench.datamodules.files.texts import read_text

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

_REPAIR = "Correct the list; those of prepared clips are written by: bench prepare"

logger = logging.getLogger(__name__)

__all__ = ["SPLITS", "Split", "read_split", "read_splits"]


def read_split(path: Path) -> list[str]:
    """Clip ids of a split list: the first blank-separated word of each line, in order, each once.

    Later words of a line, which LRS2's test list has, are not ids.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line is not `<speaker>/<clip>`, such as one that leads out of the folder.
    """
    ids: dict[str, int] = {}
    text = read_text(path, "a split list, one <speaker>/<clip> a line", _REPAIR)
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name = line.split()[0]
        parts = name.split("/")
        if len(parts) != 2 or any(part in ("", ".", "..") or "\\" in part for part in parts):
            raise ValueError(f"{path}:{number}: found {name!r}. Expected <speaker>/<clip>. Correct the list.")
        if ids.setdefault(name, number) != number:
            logger.warning("%s:%d: %s is also on line %d; it is used once", path, number, name, ids[name])
    return list(ids)


def read_splits(folder: Path, *, partial: bool = False) -> dict[Split, list[str]]:
    """Clip ids by split, of train.txt, val.txt and test.txt in a folder.

    Args:
        folder: Where the lists lie.
        partial: Lists that are not there are left out.

    Raises:
        FileNotFoundError, ValueError: As `read_split`.
    """
    paths: dict[Split, Path] = {split: folder / f"{split}.txt" for split in SPLITS}
    return {split: read_split(path) for split, path in paths.items() if not partial or path.is_file()}
