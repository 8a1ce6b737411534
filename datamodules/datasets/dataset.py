# SPDX-License-Identifier: Apache-2.0
"""Which data sets there are, and where their videos lie, as the classes in the files of this folder say it.

A data set is one file, `NAME.py` or `NAME/datamodule.py`, with a subclass of `ClipDataModule` that says all of it:
`name`, `videos`, `audio` and `lists` as literals, splits in `split_ids`, sizes in `official_counts`, licence and origin
in the docstring. Preparing clips needs the literals alone, and reads them from the text: importing the class would
import Lightning, which takes seconds and hundreds of megabytes.
"""

import ast
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lipsync_bench.datamodules.datasets import __path__ as FOLDERS

__all__ = ["Dataset", "dataset_names", "find_dataset"]


@dataclass(frozen=True)
class Dataset:
    """Where the videos of a data set lie; the attributes of that name of its class, where they are explained."""

    name: str
    videos: str
    audio: str = ""
    lists: bool = False

    def __post_init__(self) -> None:
        *folders, last = self.videos.split("/")
        if self.videos and (last != "{clip}" or folders.count("{speaker}") != 1 or (self.lists and "*" in folders)):
            raise ValueError(
                f"data set {self.name}: videos is {self.videos!r}. Expected a path of folders, one of them "
                "{speaker}, with {clip} at its end; * for any folder where no lists name the clips. Correct its class."
            )

    @property
    def first_folder(self) -> str:
        """The folder that all its videos are in; empty if there is none of a certain name."""
        first = self.videos.partition("/")[0]
        return "" if first in ("{speaker}", "*") else first


def _literals(path: Path, node: ast.ClassDef) -> dict[str, Any]:
    found = {}
    for statement in node.body:
        if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
            continue
        name = ast.unparse(statement.targets[0] if isinstance(statement, ast.Assign) else statement.target)
        if name in {field.name for field in fields(Dataset)}:
            try:
                found[name] = ast.literal_eval(statement.value)
            except ValueError as error:
                raise ValueError(
                    f"{path}: {node.name}.{name} is {ast.unparse(statement.value)}. Expected a literal, because it is "
                    "read without running the file. Write it out."
                ) from error
    return found


def _all() -> dict[str, Dataset]:
    paths = [path for folder in FOLDERS for kind in ("*.py", "*/datamodule.py") for path in Path(folder).glob(kind)]
    found: dict[str, Dataset] = {}
    for path in sorted(paths):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            literals = _literals(path, node) if isinstance(node, ast.ClassDef) else {}
            if {"name", "videos"} <= literals.keys():
                dataset = Dataset(**literals)
                if dataset.name in found:
                    raise ValueError(
                        f"{path}: another data set is called {dataset.name!r} too. Expected one. Rename it."
                    )
                found[dataset.name] = dataset
    return dict(sorted(found.items()))


def dataset_names() -> list[str]:
    """Names of the data sets that can be prepared, sorted; found without importing them."""
    return list(_all())


def find_dataset(name: str) -> Dataset:
    """The data set of that name.

    Raises:
        ValueError: There is none; lists those there are.
    """
    found = _all()
    if name not in found:
        raise ValueError(f"dataset {name!r}, expected one of {', '.join(found)} (--dataset)")
    return found[name]
