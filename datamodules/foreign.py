# SPDX-License-Identifier: Apache-2.0
"""Methods, metrics and data sets of other installed packages, announced by entry points.

They are listed, and the files of their modules found, without importing anything; see docs/other_methods.md.
"""

import importlib.metadata
import importlib.util
import logging
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from lipsync_bench.datamodules.files.disk import printable

GROUPS = {
    "lipsync_bench.models": "lipsync_bench.methods",
    "lipsync_bench.metrics": "lipsync_bench.metrics",
    "lipsync_bench.datamodules": "lipsync_bench.datasets",
}
"""Our package of each kind, and the group of entry points that adds to it."""
_VALUE = re.compile(r"(?P<module>\w+(?:\.\w+)*)(?::(?P<attribute>\w+))?")
_T = TypeVar("_T")

_log = logging.getLogger(__name__)

__all__ = ["GROUPS", "Foreign", "foreign", "imported", "joined", "packages", "unshadowed"]


@dataclass(frozen=True)
class Foreign:
    """An entry point.

    Args:
        name: As it is announced.
        value: `module:Class`, or `module` alone.
        package: Name and version of the package.
        modules: The file of each module that it names: of the module, or of all modules in a package.
    """

    name: str
    value: str
    package: str
    modules: Mapping[str, Path] = field(default_factory=dict, compare=False)

    @property
    def attribute(self) -> str:
        """The class; empty if there is only a module."""
        return self.value.partition(":")[2]

    @contextmanager
    def warned(self) -> Iterator[None]:
        """Any error inside becomes a warning that names the package, once for each error."""
        try:
            yield
        except (Exception, SystemExit) as error:  # anything can go wrong in code of others
            _warn(f"{self.package}: {self.name} = {self.value} is left out ({type(error).__name__}: {error})")

    def load(self) -> Any:
        """What it names; imports the package, so that anything may be raised."""
        module = import_module(self.value.partition(":")[0])
        return getattr(module, self.attribute) if self.attribute else module


@cache
def _warn(text: str) -> None:
    import multiprocessing  # takes time, which help need not spend

    if multiprocessing.parent_process() is None:  # else a worker, whose parent has said so
        _log.warning("%s", printable(" ".join(text.split())))


def _modules(module: str) -> dict[str, Path]:
    top, *below = module.split(".")
    spec = importlib.util.find_spec(top)  # imports nothing, as it has no parent
    if spec is not None and spec.submodule_search_locations is None and spec.origin and not below:
        return {top: Path(spec.origin)}
    for place in (spec and spec.submodule_search_locations) or ():
        folder = Path(place, *below)
        if below and (file := folder.with_suffix(".py")).is_file():
            return {module: file}
        if (folder / "__init__.py").is_file():
            files = sorted(folder.rglob("*.py"))
            parts = ((path, path.relative_to(folder).with_suffix("").parts) for path in files)
            return {".".join((module, *names)).removesuffix(".__init__"): path for path, names in parts}
    raise ModuleNotFoundError(f"there is no file of a module {module}")


def _entries(distribution: importlib.metadata.Distribution) -> Iterator[tuple[str, Foreign]]:
    package = f"{distribution.metadata['Name']} {distribution.version}"
    try:
        announced = [entry for entry in distribution.entry_points if entry.group in GROUPS.values()]
    except Exception as error:  # anything may stand in the file
        _warn(f"{package}: its entry points cannot be read ({type(error).__name__}: {error}), so that it is left out")
        return
    for entry in announced:
        found = Foreign(entry.name, entry.value.replace(" ", ""), package)
        with found.warned():
            match = _VALUE.fullmatch(found.value)
            if match is None:
                raise ValueError("expected module:Class, or module for a metric")
            yield entry.group, Foreign(found.name, found.value, package, _modules(match["module"]))


@cache
def _all() -> dict[str, tuple[Foreign, ...]]:
    found: dict[str, list[Foreign]] = {}
    seen = set()
    for distribution in importlib.metadata.distributions():
        if "[lipsync_bench." not in (distribution.read_text("entry_points.txt") or ""):
            continue
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
        if name not in seen:  # the same package further down the path is shadowed
            seen.add(name)
            for group, entry in _entries(distribution):
                found.setdefault(group, []).append(entry)
    return {group: tuple(sorted(entries, key=lambda e: (e.name, e.package))) for group, entries in found.items()}


def foreign(package: str) -> tuple[Foreign, ...]:
    """What other packages add to one of ours.

    Args:
        package: A key of `GROUPS`.
    """
    return _all().get(GROUPS.get(package, ""), ())


def packages() -> dict[str, str]:
    """Versions of the packages that add something, by name."""
    named = sorted({entry.package for entries in _all().values() for entry in entries})
    return {name: version for name, _, version in (package.rpartition(" ") for package in named)}


def imported(modules: Iterable[str]) -> Iterator[tuple[Any, Foreign | None]]:
    """The modules of these names, those of other packages with their entry point; of these, one that cannot be imported
    is left out with a warning.
    """
    owners = {module: entry for package in GROUPS for entry in foreign(package) for module in entry.modules}
    for name in modules:
        entry = owners.get(name)
        if entry is None:
            yield import_module(name), None
            continue
        module = None
        with entry.warned():
            module = import_module(name)
        if module is not None:
            yield module, entry


def unshadowed(
    kind: str, ours: Container[str], theirs: Iterable[tuple[str, Foreign, _T]]
) -> Iterator[tuple[str, Foreign, _T]]:
    """Those of other packages, without any that has a name of ours, which a warning tells.

    Args:
        kind: What they are, for messages.
        ours: Our names.
        theirs: Each with its name and entry point.
    """
    for name, entry, value in theirs:
        if name in ours:
            _warn(f"{entry.package}: its {kind} {name!r} is left out, because lipsync_bench has one of that name")
        else:
            yield name, entry, value


def joined(kind: str, ours: Mapping[str, _T], theirs: Iterable[tuple[str, Foreign, _T]]) -> dict[str, _T]:
    """Ours by name, and those of other packages as in `unshadowed`.

    Raises:
        ValueError: Two packages use one name.
    """
    found, owners = dict(ours), dict[str, Foreign]()
    for name, entry, value in unshadowed(kind, ours, theirs):
        if name in owners:
            raise ValueError(
                f"two packages have a {kind} called {name!r}: {owners[name].package} ({owners[name].value}) and "
                f"{entry.package} ({entry.value}). Expected a name of its own for each. Uninstall one of them."
            )
        found[name], owners[name] = value, entry
    return found
