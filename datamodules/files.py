# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or absent, and what identifies a file."""

import csv
import hashlib
import io
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_STALE_S = 3600.0  # a process id may have been given anew by then

__all__ = ["atomic_path", "printable", "remove_leftovers", "sha256", "write_atomic", "write_csv", "write_tensors"]


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; on a clean exit it is flushed to the disk and renamed to `path`.

    An exception inside removes the temporary file and leaves `path` as it was. The temporary name is hidden and has no
    known suffix, so that a listing of the folder does not take it for a result.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        yield temporary
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a whole file or none; text as UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a whole table of texts or none, with a line of column names; UTF-8."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_atomic(path, text.getvalue())


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def write_tensors(path: Path, tensors: "Mapping[str, np.ndarray]", metadata: Mapping[str, str]) -> None:
    """Write a whole safetensors file or none, straight from the arrays: as bytes they would be in memory twice more.

    Args:
        path: The file.
        tensors: Contiguous arrays by name.
        metadata: Texts of the file's head.
    """
    from safetensors.numpy import save_file

    with atomic_path(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(dict(tensors), temporary, dict(metadata))
        temporary.chmod(mode)  # the library lets nobody else read it; others of a group may have to


def remove_leftovers(out: Path) -> None:
    """Temporary files of processes that are gone."""
    for path in out.rglob(".*.tmp-*"):
        pid = path.name.rpartition("-")[2]
        alive = pid.isdigit() and Path("/proc", pid).exists() and int(pid) != os.getpid()
        with suppress(FileNotFoundError):
            if not alive or time.time() - path.stat().st_mtime > _STALE_S:
                path.unlink()


def printable(text: str) -> str:
    """Text that can be written as UTF-8; bytes of a file name that are none become \\udcXX."""
    return text.encode(errors="backslashreplace").decode()
