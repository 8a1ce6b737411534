# SPDX-License-Identifier: Apache-2.0
"""The head of our safetensors files: the position of each tensor, and one metadata key as JSON.

Own code, because the library's `get_slice` maps the file, which network disks serve slowly (see `read` of the data
modules), and takes a head of any size.
"""

import dataclasses
import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

from lipsync_bench.datamodules.errors import ClipError
from lipsync_bench.datamodules.files.disk import printable
from lipsync_bench.datamodules.files.texts import flat

_LENGTH_BYTES = 8
_HEAD_LIMIT = 1 << 20  # ours have about 1 kB; a larger value means that the file is something else
_FIRST_READ = 1 << 12  # has all of it, as a rule: one request to a network disc
_DTYPES = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I16": np.int16,
    "I64": np.int64,
    "F16": np.float16,
    "F32": np.float32,
}
_MOST = 1 << 53
_Header = TypeVar("_Header")

__all__ = ["FileKind", "Rows", "StoredTensor", "open_file", "read_head"]


def open_file(path: Path) -> int:
    """A file descriptor for reading; opening a pipe does not block, and `read_head` refuses it."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file.

    Args:
        dtype: NumPy's scalar type.
        shape: Its shape.
        start: Position of its first byte in the file.
    """

    dtype: Any
    shape: tuple[int, ...]
    start: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one element along the first axis."""
        return math.prod(self.shape[1:]) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Rows:
    """What a tensor of a kind of file holds.

    Args:
        dtype: NumPy's scalar type.
        shape: Of one row, which is an element along the first axis.
        beyond: Rows beyond the `frames` of the header; None for any number of rows.
        largest: Magnitude that no number exceeds.
    """

    dtype: type[np.generic]
    shape: tuple[int, ...] = ()
    beyond: int | None = None
    largest: float = math.inf


@dataclass(frozen=True)
class FileKind(Generic[_Header]):
    """A kind of file of this package.

    Args:
        title: Its name in messages, such as "clip".
        entry: The metadata key with the header.
        header: The header's class, a dataclass with the fields `schema` and `frames`.
        schema: The version that can be read.
        name: Its description in messages, such as "a prepared clip".
        repair: What to do about a broken file, for messages.
        renew: What to do about a file of another version, for messages.
        tensors: Those that are read, by name; others may be of any type.
    """

    title: str
    entry: str
    header: type[_Header]
    schema: str
    name: str
    repair: str
    renew: str
    tensors: Mapping[str, Rows]


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")


_JSON = json.JSONDecoder(parse_constant=_no_constant)  # json.loads would make one for each file


def _whole(values: Any) -> list[int]:
    if type(values) is not list or not {int}.issuperset(map(type, values)):
        raise ValueError(f"{values!r} is not a list of whole numbers")
    if values and not 0 <= min(values) <= max(values) <= _MOST:
        raise ValueError(f"{values!r} has numbers out of range")
    return values


def _place(entry: Mapping[str, Any]) -> tuple[int, int]:
    """Start and end of a tensor's bytes in the data."""
    start, stop = _whole(entry["data_offsets"])
    if start > stop:
        raise ValueError(f"data_offsets {start}, {stop}")
    return start, stop


def _tensor(entry: Mapping[str, Any], start: int, stop: int, data: int) -> StoredTensor:
    tensor = StoredTensor(_DTYPES[entry["dtype"]], tuple(_whole(entry["shape"])), data + start)
    if tensor.shape[:1] and tensor.shape[0] * tensor.row_bytes != stop - start:
        raise ValueError(f"shape {list(tensor.shape)} of {stop - start} bytes")
    return tensor


@cache
def _fields(header: type) -> list[tuple[str, Any, tuple[Any, ...]]]:
    """Names, types and permitted values of a dataclass's fields; resolving its annotations takes longer than a file."""
    kinds = get_type_hints(header)
    names = [field.name for field in dataclasses.fields(header)]
    return [(name, kinds[name], get_args(kinds[name]) if get_origin(kinds[name]) is Literal else ()) for name in names]


def _check_types(header: Any) -> None:
    """Raise TypeError for a field of another type than in the dataclass, a number that is not finite, or odd text.

    Whole numbers are counts and must not be negative.
    """
    for name, kind, choices in _fields(type(header)):  # type: ignore[arg-type]  # a type is hashable
        value = getattr(header, name)
        if choices:
            fits = value in choices
        elif kind is int:
            fits = type(value) is int and 0 <= value <= _MOST
        elif kind is float:
            fits = type(value) in (int, float) and abs(value) < _MOST  # False for NaN; math fails on huge integers
        else:
            fits = type(value) is kind and (kind is not str or printable(value) == value)
        if not fits:
            raise TypeError(f"{name} is {value!r}, not {getattr(kind, '__name__', kind)}")


def read_head(path: Path, handle: int, kind: FileKind[_Header]) -> tuple[_Header, dict[str, StoredTensor]]:
    """Read and check the head of an open file (length, JSON, data) without reading the data.

    Args:
        path: For messages.
        handle: The open file; its position is neither used nor moved.
        kind: The expected kind of file.

    Raises:
        ClipError: The file is cut short, of another version, or of another kind.
    """
    state = os.fstat(handle)
    size = state.st_size
    if not stat.S_ISREG(state.st_mode):
        raise ClipError(f"{path}: is not a file. Expected {kind.name}. {kind.repair}")
    start = os.pread(handle, _FIRST_READ, 0)
    if len(start) < _LENGTH_BYTES:
        raise ClipError(f"{path}: {size} bytes, expected {kind.name}. {kind.repair}")
    length = int.from_bytes(start[:_LENGTH_BYTES], "little")
    if length > min(_HEAD_LIMIT, size - _LENGTH_BYTES):
        raise ClipError(f"{path}: cut short, or not a safetensors file. Expected {kind.name}. {kind.repair}")
    try:
        data = _LENGTH_BYTES + length
        head = start[_LENGTH_BYTES:data] if data <= len(start) else os.pread(handle, length, _LENGTH_BYTES)
        content = _JSON.decode(head.decode())
        fields = _JSON.decode(content.pop("__metadata__")[kind.entry])
        schema = fields["schema"]
        places = {name: _place(entry) for name, entry in content.items()}
        end = data + max(stop for _, stop in places.values())
        wanted = [name for name in kind.tensors if name in content]
        tensors = {name: _tensor(content[name], *places[name], data) for name in wanted}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = flat(repr(error))[:200]
        raise ClipError(f"{path}: no {kind.title} header ({reason}). Expected {kind.name}. {kind.repair}") from error
    if schema != kind.schema:
        raise ClipError(f"{path}: {kind.title} format {schema!s:.20}, expected {kind.schema}. {kind.renew}")
    if end != size:
        raise ClipError(f"{path}: {size} bytes, expected {end}: cut short or overwritten. {kind.repair}")
    in_order = sorted((start, stop, name) for name, (start, stop) in places.items())
    overlap = [name for (_, stop, name), (first, *_) in pairwise(in_order) if stop > first]
    try:
        if overlap:
            raise TypeError(f"tensor {overlap[0]} overlaps the next")
        header: Any = kind.header(**fields)
        _check_types(header)
    except TypeError as error:
        raise ClipError(
            f"{path}: header fields do not fit ({flat(error)[:200]}). Expected those of {kind.name}. {kind.repair}"
        ) from error
    if header.frames < 1:
        raise ClipError(f"{path}: {header.frames} frames. Expected 1 or more. {kind.repair}")
    for name, rows in kind.tensors.items():
        count = None if rows.beyond is None else header.frames + rows.beyond
        found = tensors.get(name)
        fits = found is not None and found.dtype is rows.dtype and found.shape[1:] == rows.shape
        if not fits or not found.shape or count not in (None, found.shape[0]):  # type: ignore[union-attr]
            expected = f"{np.dtype(rows.dtype)} {('any number' if count is None else count, *rows.shape)}"
            raise ClipError(f"{path}: tensor {name} is {found}, expected {expected}. {kind.repair}")
    return header, tensors
