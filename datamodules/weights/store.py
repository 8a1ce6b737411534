# SPDX-License-Identifier: Apache-2.0
"""Where official weight files lie on this machine; they are recognised by their content, not by their names."""

import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from lipsync_bench.datamodules.files.disk import is_leftover
from lipsync_bench.datamodules.weights.hashes import Hashes
from lipsync_bench.datamodules.weights.identify import identify, refuted
from lipsync_bench.datamodules.weights.registry import WeightFile, official_file, official_files

VARIABLE = "LIPSYNC_WEIGHTS"
HERE = Path("weights")
PART = ".part"
_PACKAGES = (("lpips", "weights"), ("face_recognition_models", "models"), ("facexlib", "weights"))

__all__ = ["HERE", "PART", "VARIABLE", "Found", "Seen", "Store", "caches"]


@dataclass(frozen=True)
class Found:
    """A weight file on this machine.

    Attributes:
        id: As in the registry.
        path: Where it is.
        sha256: Of its content.
        official: Whether that is the registry's.
    """

    id: str
    path: Path
    sha256: str
    official: bool


@dataclass(frozen=True)
class Seen:
    """What `Store.verify` says of a file.

    Attributes:
        path: Where it is.
        id: The file that it is, or that its name promises; "" for neither.
        status: "official" by its hash; "unchecked": has the name of a file whose hash is not public; "wrong": has the
            name of another file; "unknown".
        what: What it is, in a phrase.
    """

    path: Path
    id: str
    status: Literal["official", "unchecked", "wrong", "unknown"]
    what: str


def caches() -> list[Path]:
    """Folders in which other programs keep such files; those that exist."""
    home = Path.home()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    torch = sys.modules.get("torch")  # importing it takes seconds; it knows whether somebody has set another folder
    hub = Path(torch.hub.get_dir() if torch else Path(os.environ.get("TORCH_HOME") or cache / "torch") / "hub")
    hugging_face = Path(os.environ.get("HF_HOME") or cache / "huggingface")
    folders = [
        hub / "checkpoints",
        Path(os.environ.get("HF_HUB_CACHE") or hugging_face / "hub"),
        cache / "whisper",
        home / ".insightface" / "models",
    ]
    for package, below in _PACKAGES:
        spec = importlib.util.find_spec(package)
        folders += [Path(folder) / below for folder in (spec and spec.submodule_search_locations) or ()]
    return [folder.expanduser() for folder in folders if folder.expanduser().is_dir()]


def _files(folder: Path) -> Iterator[Path]:
    """All files of a folder at any depth, sorted, also behind links; none twice."""
    seen: set[tuple[int, int]] = set()
    for where, below, names in os.walk(folder, followlinks=True):
        below.sort()
        state = Path(where).stat()
        if (state.st_dev, state.st_ino) in seen:  # a link to a folder around it
            below.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        for name in sorted(names):
            path = Path(where, name)
            if path.is_file() and PART not in path.suffixes and not is_leftover(path):
                yield path


class Store:
    """The weight files of this machine. It sees the folders as they were when it first looked.

    Args:
        folders: Searched first, at any depth (`--weights DIR`); then those of the variable LIPSYNC_WEIGHTS, weights/
            in the working folder, and the caches of other programs.
        given: Paths by id, which count more than what is found.
        files: The registry, if not the package's.

    Raises:
        FileNotFoundError: One of `folders` or a path of `given` does not exist.
        ValueError: `given` names an unknown id.
    """

    def __init__(
        self,
        folders: Sequence[Path] = (),
        given: Mapping[str, Path] | None = None,
        files: Mapping[str, WeightFile] | None = None,
    ) -> None:
        self.files = official_files() if files is None else files
        self.given = {self._file(id).id: Path(path) for id, path in (given or {}).items()}
        for folder in folders:
            if not folder.is_dir():
                raise FileNotFoundError(f"--weights {folder}: no such folder. Expected weight files in it. Create it")
        for id, path in self.given.items():
            if not path.is_file():
                found = "is a folder" if path.is_dir() else "no such file"
                raise FileNotFoundError(
                    f"{path}: {found}. Expected {self.files[id].told}. Run: bench weights where {id}"
                )
        named = [Path(name) for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]
        self.folders = tuple(dict.fromkeys([*folders, *named, HERE]))
        self._hashes = Hashes()

    def _file(self, id: str) -> WeightFile:
        return self.files[id] if id in self.files else official_file(id)

    @cached_property
    def _own(self) -> list[Path]:
        return [path for folder in self.folders for path in _files(folder)]

    @cached_property
    def _listed(self) -> list[tuple[Path, int]]:
        return [(path, path.stat().st_size) for path in (*self._own, *(p for f in caches() for p in _files(f)))]

    def _digest(self, path: Path) -> str:
        """The hash of a file, "" if it cannot be read."""
        try:
            return self._hashes.of(path)
        except OSError:
            return ""

    def _may_be(self, file: WeightFile, path: Path, size: int) -> bool:
        """Whether a file is worth being hashed."""
        if not file.sha256:
            return path.name.lower() == file.file.lower()
        if file.size is not None:
            return size == file.size
        return path.name.lower() in {*file.names, file.sha256}  # Hugging Face's cache names files by their hashes

    def find(self, id: str) -> Found | None:
        """The file of an id: an explicit path, else the first official one; None if there is none.

        One whose hash is not public is found by its name, and is not called official.

        Raises:
            ValueError: An unknown id.
        """
        file = self._file(id)
        if id in self.given:
            digest = self._hashes.of(self.given[id])
            return Found(id, self.given[id], digest, bool(file.sha256) and digest == file.sha256)
        for path, size in self._listed:
            if self._may_be(file, path, size):
                digest = self._digest(path)
                if digest and (file.sha256 == digest or (not file.sha256 and not refuted(path, digest, self.files))):
                    return Found(id, path, digest, official=bool(file.sha256))
        return None

    def _identify(self, path: Path, digest: str, wanted: WeightFile | None) -> str:
        return identify(path, digest, wanted, self.files) if digest else "a file that cannot be read"

    def need(self, id: str) -> Found:
        """As `find`.

        Raises:
            FileNotFoundError: There is none; says where it was looked for, what has its name, and how to come by it.
            ValueError: An unknown id.
        """
        found = self.find(id)
        if found is not None:
            return found
        file = self._file(id)
        near = [f"{path} is {self._identify(path, self._digest(path), file)}" for path in self._named(file)]
        told = f" ({'; '.join(near)})" if near else ""
        places = ", ".join(str(folder) for folder in (*self.folders, *caches()))
        raise FileNotFoundError(
            f"weights {id}: not in {places}{told}. Expected {file.told}, under any "
            f"name. Run: {file.to_get}; or put it into {self.folders[0]}"
        )

    def _named(self, file: WeightFile) -> list[Path]:
        return [path for path, _ in self._listed if path.name.lower() in file.names]

    def verify(self) -> list[Seen]:
        """What each file is in the store's own folders; in the caches, those whose name tells their hash."""
        promised = {file.file.lower() for file in self.files.values() if file.sha256 and file.sha256[:8] in file.file}
        own = set(self._own)
        return [self._seen(path) for path, _ in self._listed if path in own or path.name.lower() in promised]

    def _seen(self, path: Path) -> Seen:
        digest = self._digest(path)
        named = [file for file in self.files.values() if path.name.lower() in file.names]
        what = self._identify(path, digest, named[0] if named else None)
        official = next((file for file in self.files.values() if digest and file.sha256 == digest), None)
        if official is not None:
            return Seen(path, official.id, "official" if official in named or not named else "wrong", what)
        unchecked = [file for file in named if not file.sha256 and file.file.lower() == path.name.lower()]
        if unchecked and digest and not refuted(path, digest, self.files):
            file = unchecked[0]
            return Seen(path, file.id, "unchecked", f"named as {file.id}, of which no SHA-256 is public; {digest[:12]}")
        return Seen(path, named[0].id, "wrong", what) if named else Seen(path, "", "unknown", what)
