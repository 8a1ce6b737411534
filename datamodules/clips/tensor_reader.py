# SPDX-License-Identifier: Apache-2.0
"""What the readers of our safetensors files have in common: clips, tracks, and what methods leave beside them."""

import mmap
import os
import struct
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np

from lipsync_bench.datamodules.clips.tensor_file import FileKind, StoredTensor, open_file, read_head
from lipsync_bench.datamodules.errors import ClipError

Read = Literal["mmap", "file"]
_Header = TypeVar("_Header")
_Self = TypeVar("_Self", bound="TensorReader[Any]")

__all__ = ["Read", "TensorReader"]


class TensorReader(Generic[_Header]):
    """Lazy reader of one file: every call reads only the bytes it needs.

    The file is opened at the first access, not at construction, so that a reader can be pickled to a worker process
    (only its path is). Reading keeps no position, so a copy in a forked process is safe too.

    Args:
        path: The file.
        read: `mmap` maps the file (fast on local disks); `file` reads it with ordinary calls (for NFS and Lustre, where
            mapping is slow).

    Raises:
        FileNotFoundError: At first access: no such file.
        ClipError: At first access: broken or of another version. Later: a number is not finite or out of range, or the
            file was cut short.
    """

    kind: ClassVar[FileKind[Any]]
    _handle: int | None = None
    _map: mmap.mmap | None = None
    _head: tuple[_Header, dict[str, StoredTensor]] | None = None
    _stamp: tuple[int, int, int] | None = None  # of the file whose head it is

    def __init__(self, path: Path, read: Read = "mmap") -> None:
        if read not in ("mmap", "file"):
            raise ValueError(f"read={read!r}, expected 'mmap' or 'file'")
        self.path = Path(path)
        self.read = read

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "read": self.read}

    def __len__(self) -> int:
        return int(self.header.frames)  # type: ignore[attr-defined]

    @property
    def header(self) -> _Header:
        """The file's header, read once for each file of that name."""
        return self._opened()[0]

    def close(self) -> None:
        """Close the file; the next access opens it again, and reads its head again if the file was replaced."""
        if self._map is not None:
            self._map.close()
            self._map = None
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _check(self, header: _Header) -> None:
        """Raise ClipError for a header that no file of this kind can have."""

    def _opened(self) -> tuple[_Header, dict[str, StoredTensor]]:
        if self._handle is None:
            self._handle = open_file(self.path)
            try:
                state = os.fstat(self._handle)
                stamp = state.st_ino, state.st_size, state.st_mtime_ns
                if stamp != self._stamp:
                    self._head = read_head(self.path, self._handle, self.kind)
                    self._check(self._head[0])
                    self._stamp = stamp
                if self.read == "mmap":
                    self._map = mmap.mmap(self._handle, 0, access=mmap.ACCESS_READ)
            except BaseException:
                self.close()
                raise
        assert self._head is not None
        return self._head

    def _range(self, what: str, start: int, count: int | None, available: int) -> tuple[int, int]:
        count = available - start if count is None else count
        if start < 0 or count < 0 or start + count > available:
            raise IndexError(
                f"{self.path}: {what} {start}..{start + count - 1} asked for. Expected some of 0..{available - 1}"
            )
        return start, count

    def _bytes(self, name: str, start: int, count: int) -> bytes:
        """`count` rows of a tensor as they are stored; their range has been checked."""
        tensor = self._opened()[1][name]
        first, length = tensor.start + start * tensor.row_bytes, count * tensor.row_bytes
        assert self._handle is not None
        if self._map is None:
            data = os.pread(self._handle, length, first)
        elif first + length <= os.fstat(self._handle).st_size:
            data = self._map[first : first + length]
        else:  # cut short since it was mapped; reading beyond its end would kill the process
            data = b""
        if len(data) != length:
            raise ClipError(f"{self.path}: {name} ends early: {len(data)} bytes, expected {length}. {self.kind.repair}")
        return data

    def _rows(self, name: str, start: int, count: int) -> np.ndarray:
        """A copy of `count` rows of a tensor; their range has been checked."""
        tensor, largest = self._opened()[1][name], self.kind.tensors[name].largest
        rows = np.frombuffer(bytearray(self._bytes(name, start, count)), tensor.dtype).reshape(count, *tensor.shape[1:])
        if largest < np.inf and rows.size and not -largest <= rows.min() <= rows.max() <= largest:
            raise ClipError(
                f"{self.path}: {name} {start}..{start + count - 1} has values from {rows.min():g} to {rows.max():g}. "
                f"Expected numbers between {-largest:g} and {largest:g}. {self.kind.repair}, or move the file away"
            )
        return rows

    def stored(self, start: int = 0, count: int | None = None) -> list[bytes]:
        """The images of `count` frames from `start` (to the end if None) as they are stored.

        They are in the tensor `frames`, image t from `offsets[t]` to `offsets[t + 1]`.

        Raises:
            IndexError: The range is not inside the clip.
        """
        start, count = self._range("frames", start, count, len(self))
        offsets = struct.unpack(f"<{count + 1}q", self._bytes("offsets", start, count + 1))
        first, last = offsets[0], offsets[-1]
        stored = self._opened()[1]["frames"].shape[0]
        if first < 0 or last > stored or list(offsets) != sorted(offsets):
            raise ClipError(f"{self.path}: its images are at {offsets[:3]} ... {last}. {self.kind.repair}")
        data = self._bytes("frames", first, last - first)
        return [data[a - first : b - first] for a, b in pairwise(offsets)]
