# SPDX-License-Identifier: Apache-2.0
"""SHA-256 of large files, kept between calls in the user's cache folder."""

import json
import os
from contextlib import suppress
from pathlib import Path

from platformdirs import user_cache_path

from lipsync_bench.datamodules.files.disk import sha256, write_atomic
from lipsync_bench.datamodules.files.texts import read_json

_Stamp = list[int]
_MOST = 2000  # files that are remembered

__all__ = ["Hashes"]


def _stamp(path: Path) -> _Stamp:
    """What changes with a file's content."""
    state = path.stat()
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]


class Hashes:
    """Hashes of files by path; one that has changed is hashed again.

    Where the cache cannot be read or written, every file is hashed. Of two processes that write at once one is
    forgotten, which costs time only.

    Args:
        path: The cache's file; in the user's cache folder if not given.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = user_cache_path("lipsync_bench", appauthor=False) / "sha256.json" if path is None else path
        self._known: dict[str, tuple[_Stamp, str]] | None = None

    def _read(self) -> dict[str, tuple[_Stamp, str]]:
        known: dict[str, tuple[_Stamp, str]] = {}
        with suppress(OSError, ValueError):
            for name, entry in read_json(self.path, "hashes of files", "Delete it").items():
                with suppress(TypeError, ValueError):
                    stamp, digest = entry
                    if isinstance(digest, str) and len(digest) == 64:
                        known[name] = stamp, digest
        return known

    def of(self, path: Path) -> str:
        """The SHA-256 of a file.

        Raises:
            OSError: It cannot be read.
        """
        if self._known is None:
            self._known = self._read()
        name, stamp = str(path.absolute()), _stamp(path)
        if name in self._known and self._known[name][0] == stamp:
            return self._known[name][1]
        digest = sha256(path)
        if _stamp(path) == stamp:  # else somebody is writing it
            self._known = {**self._read(), **self._known, name: (stamp, digest)}
            self._write()
        return digest

    def _write(self) -> None:
        assert self._known is not None
        if len(self._known) > _MOST:
            self._known = {name: entry for name, entry in self._known.items() if os.path.exists(name)}  # noqa: PTH110
        with suppress(OSError, ValueError):  # names that are no UTF-8 cannot be written
            write_atomic(self.path, json.dumps(dict(list(self._known.items())[-_MOST:])))
