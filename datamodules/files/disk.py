# SPDX-License-Identifier: Apache-2.0
"""Atomic writing of files, removal of leftovers, and hashes of files."""

import hashlib
import io
import itertools
import os
import re
import shutil
import socket
import time
import unicodedata
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from lipsync_bench.datamodules.errors import of_reading

if TYPE_CHECKING:
    import numpy as np

_FOREIGN_AGE_S = 7 * 86400.0  # on any host, a temporary file older than a week has no writer
_NAME_BYTES = 120  # of a file's name inside its temporary name: file systems allow 255 in all
_PROBE_BYTES = 1 << 16
_TEMPORARY = re.compile(
    r"\..+\.tmp-(?:(?P<place>[0-9a-f]{12})-(?P<pid>\d+)-(?P<started>\d+)-\d+|\d+)"  # the latter of version 0.1
    r"|\..+\.[0-9a-f]{32}\.tmp\.mp4"  # of version 0.1
)
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})
_count = itertools.count()

__all__ = [
    "atomic_path",
    "is_leftover",
    "printable",
    "read_arrays",
    "remove_leftovers",
    "sha256",
    "temporary_path",
    "write_arrays",
    "write_atomic",
    "write_tensors",
]


def _content(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text(errors="replace").strip()
    return ""


@cache
def _place() -> str:
    """Identifies this boot of the host and the namespace of process ids: containers of a host have their own."""
    space = ""
    with suppress(OSError):
        space = str(Path("/proc/self/ns/pid").readlink())
    facts = socket.gethostname(), _content("/proc/sys/kernel/random/boot_id"), space
    return hashlib.sha256("\n".join(facts).encode(errors="surrogateescape")).hexdigest()[:12]


def _started(pid: int) -> str:
    """When a process of this host was started, in ticks, because ids are reused; "0" if there is no such process."""
    words = _content(f"/proc/{pid}/stat").rpartition(")")[2].split()  # its name, in brackets, may hold anything
    return words[19] if len(words) > 19 else "0"


def temporary_path(path: Path) -> Path:
    """A hidden name beside `path` that is unique to this process and identifies it, so that leftovers can be found.

    It has no known suffix, so that it is not taken for a result.
    """
    name, pid = path.name, os.getpid()
    if len(os.fsencode(name)) > _NAME_BYTES:
        start = os.fsencode(name)[: _NAME_BYTES - 17].decode(errors="ignore")
        name = f"{start}~{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}"
    return path.with_name(f".{name}.tmp-{_place()}-{pid}-{_started(pid)}-{next(_count)}")


def is_leftover(path: Path) -> bool:
    """Whether this is a temporary file whose writer has ended: a process of this host, or any after a week."""
    match = _TEMPORARY.fullmatch(path.name)
    if match is None:
        return False
    if match["place"] == _place() and match["started"] != "0":
        return _started(int(match["pid"])) != match["started"]
    with suppress(OSError):
        return time.time() - path.stat().st_mtime > _FOREIGN_AGE_S
    return False


def remove_leftovers(folder: Path, of: Path | None = None) -> None:
    """Remove temporary files and folders whose writers have ended.

    Args:
        folder: Searched at any depth.
        of: Only temporary files of this path, which are beside it.
    """
    begin = "." if of is None else temporary_path(of).name.rpartition(".tmp-")[0] + ".tmp-"
    for path in folder.rglob(".*.tmp*") if of is None else folder.iterdir():
        if path.name.startswith(begin) and is_leftover(path):
            with suppress(OSError):  # another process may be removing it too
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _ask_the_disk(path: Path, size: int) -> None:
    """Raise the OSError, such as a full disk, that a library has reported as another error."""
    with path.open("ab") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, max(size, path.stat().st_size + _PROBE_BYTES))
        file.write(b"\0" * _PROBE_BYTES)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def atomic_path(path: Path, size: int = 0) -> Iterator[Path]:
    """A temporary name beside `path` to write to; on a clean exit it is flushed to the disk and renamed to `path`.

    An exception inside removes the temporary file and leaves `path` unchanged.

    Args:
        path: The file.
        size: Its final size in bytes, for libraries that allocate all of them at once.

    Raises:
        OSError: It cannot be written; the error names `path`, even if the writing library raised something else.
    """
    temporary = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
        except OSError:
            raise
        except Exception:
            if temporary.is_file():
                _ask_the_disk(temporary, size)
            raise
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary)):
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file atomically; text as UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_arrays(path: Path, **arrays: "np.ndarray | str") -> None:
    """Write an .npz file atomically; from memory, because NumPy's writer reports a full disk a second time."""
    import numpy as np

    content = io.BytesIO()
    np.savez(content, **{name: np.asarray(array) for name, array in arrays.items()})
    write_atomic(path, content.getvalue())


def read_arrays(path: Path) -> "dict[str, np.ndarray]":
    """The arrays of an .npz file of `write_arrays`.

    Raises:
        ValueError: It is damaged, holds something else than arrays, or would expand beyond its own size.
    """
    import numpy as np

    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("compressed")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("larger than the file")
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # NumPy's reader evaluates a text header, which can raise anything
        if of_reading(error):
            raise
        raise ValueError(f"{path}: no arrays ({type(error).__name__}). Expected an .npz file. Remove it") from error


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content, read in parts."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def write_tensors(path: Path, tensors: "Mapping[str, np.ndarray]", metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically, directly from the arrays, which saves two copies in memory.

    Args:
        path: The file.
        tensors: Contiguous arrays by name.
        metadata: Metadata of the file's head.
    """
    from safetensors.numpy import save_file

    with atomic_path(path, sum(array.nbytes for array in tensors.values())) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(dict(tensors), temporary, dict(metadata))
        temporary.chmod(mode)  # the library makes it unreadable for the group


def printable(text: str) -> str:
    """Text that can be written as UTF-8 and shown: undecodable bytes of a file name become \\udcXX, and characters that
    control a terminal, break a line or change the direction of writing become \\x1b, \\n, \\u202e ...
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode() if char in _BIDI or unicodedata.category(char) in _UNPRINTABLE else char
        for char in text
    )
