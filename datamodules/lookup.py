# SPDX-License-Identifier: Apache-2.0
"""What the files of a package define, found in their text, so that nothing lists it and nothing else is imported.

To our packages belong the files of other packages that add to them (`foreign`).
"""

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from lipsync_bench.datamodules.foreign import foreign

__all__ = ["find_class", "modules_with"]


def modules_with(package: str, folders: Iterable[str], line: str) -> list[str]:
    """Names of the modules in which a line begins so, sorted; then those of other packages.

    Args:
        package: The package's name.
        folders: Its `__path__`, whose folders are searched to any depth.
        line: How the line begins.
    """
    ours = sorted(
        ".".join((package, *path.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__")
        for folder in folders
        for path in Path(folder).rglob("*.py")
        if f"\n{line}" in path.read_text(encoding="utf-8")
    )
    theirs = {name: path for entry in foreign(package) for name, path in entry.modules.items()}
    return ours + [name for name, path in theirs.items() if f"\n{line}" in path.read_text("utf-8", "replace")]


def find_class(package: str, folders: Iterable[str], name: str) -> Any:
    """A class of a package by its name alone, wherever in its folders it is; for a package's `__getattr__`.

    Raises:
        AttributeError: There is none.
    """
    if name[:1].isupper():
        for module in modules_with(package, folders, f"class {name}("):
            return getattr(import_module(module), name)
    raise AttributeError(f"module {package!r} has no attribute {name!r}")
