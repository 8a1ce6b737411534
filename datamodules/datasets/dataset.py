# SPDX-License-Identifier: Apache-2.0
"""Which data sets there are, and where their videos lie, as the classes in the files of this folder say it.

A data set is one file, `NAME.py` or `NAME/datamodule.py`, with a subclass of `ClipDataModule` that says all of it:
`name`, `videos`, `audio`, `lists` and `stamps` as literals, splits in `split_ids`, sizes in `official_counts`, licence
and origin in the docstring. Other packages add theirs by entry points (`lipsync_bench.datasets`). Preparing clips needs
the literals alone, and reads them from the text: importing the class would import Lightning, which takes seconds and
hundreds of megabytes.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from lipsync_bench.datamodules.datasets import __path__ as FOLDERS
from lipsync_bench.datamodules.foreign import Foreign, foreign, joined, unshadowed

_PACKAGE = "lipsync_bench.datamodules"

__all__ = ["Dataset", "dataset_class", "dataset_names", "find_dataset"]


@dataclass(frozen=True)
class Dataset:
    """Where the videos of a data set lie; the attributes of that name of its class, where they are explained."""

    name: str
    videos: str
    audio: str = ""
    lists: bool = False
    stamps: Literal["", "whole", "squares"] = ""

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


def _datasets(path: Path, node: ast.ClassDef) -> Iterator[Dataset]:
    literals = _literals(path, node)
    if {"name", "videos"} <= literals.keys():
        yield Dataset(**literals)


def _classes(path: Path) -> list[ast.ClassDef]:
    return [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]


def _ours() -> dict[str, Dataset]:
    paths = [path for folder in FOLDERS for kind in ("*.py", "*/datamodule.py") for path in Path(folder).glob(kind)]
    found: dict[str, Dataset] = {}
    for path in sorted(paths):
        for dataset in (dataset for node in _classes(path) for dataset in _datasets(path, node)):
            if dataset.name in found:
                raise ValueError(f"{path}: another data set is called {dataset.name!r} too. Expected one. Rename it.")
            found[dataset.name] = dataset
    return dict(sorted(found.items()))


def _foreign() -> Iterator[tuple[str, Foreign, Dataset]]:
    for entry in foreign(_PACKAGE):
        with entry.warned():
            classes = ((path, node) for path in entry.modules.values() for node in _classes(path))
            found = [d for path, node in classes if node.name == entry.attribute for d in _datasets(path, node)]
            if len(found) != 1 or found[0].name != entry.name:
                raise ValueError(
                    f"expected module:Class with a class that says name = {entry.name!r} and videos as literals"
                )
            yield entry.name, entry, found[0]


def dataset_names() -> list[str]:
    """Names of the data sets that can be prepared, sorted; found without importing them."""
    ours = _ours()
    return sorted({*ours, *(name for name, _, _ in unshadowed("data set", ours, _foreign()))})


def dataset_class(name: str) -> str:
    """The import path of a data set of another package; empty if there is none of that name."""
    theirs = joined("data set", {}, ((found, entry, entry) for found, entry, _ in _foreign()))
    return theirs[name].value.replace(":", ".") if name in theirs else ""


def find_dataset(name: str) -> Dataset:
    """The data set of that name.

    Raises:
        ValueError: There is none, and the message lists those there are; or two packages have one.
    """
    found = _ours()
    if name not in found:  # packages that disagree do not matter to ours
        found = joined("data set", found, _foreign())
    if name not in found:
        raise ValueError(f"dataset {name!r}, expected one of {', '.join(sorted(found))} (--dataset)")
    return found[name]
