# SPDX-License-Identifier: Apache-2.0
"""The head of our safetensors files: where each tensor lies, and one entry of metadata as JSON.

Read by hand, because the library maps the whole file and has no call that reads a few rows of a tensor.
"""

import json
import math
import os
import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from datamodules.errors import ClipError

_LENGTH_BYTES = 8
_HEAD_LIMIT = 1 << 20  # ours have about 1 kB; a larger value means that the file is something else
_DTYPES = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I16": np.int16,
    "I64": np.int64,
    "F16": np.float16,
    "F32": np.float32,
}
_Header = TypeVar("_Header")

__all__ = ["FileKind", "StoredTensor", "read_head"]


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file.

    Args:
        dtype: NumPy's scalar type.
        shape: Its axes.
        start: Of its first byte, from the start of the file.
    """

    dtype: Any
    shape: tuple[int, ...]
    start: int

    @property
    def row_bytes(self) -> int:
        """Of one entry along the first axis."""
        return math.prod(self.shape[1:]) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class FileKind(Generic[_Header]):
    """A kind of file of this package.

    Args:
        title: For messages, such as "clip".
        entry: The metadata's entry that holds the header.
        header: A dataclass with a field `schema`.
        schema: The version that is read.
        name: For messages, such as "a prepared clip".
        repair: For messages: what to do about a broken file.
        renew: For messages: what to do about a file of another version.
        tensors: Names of those that are read, others may be of any type; all if None.
    """

    title: str
    entry: str
    header: type[_Header]
    schema: str
    name: str
    repair: str
    renew: str
    tensors: Collection[str] | None = None


def read_head(path: Path, handle: int, kind: FileKind[_Header]) -> tuple[_Header, dict[str, StoredTensor]]:
    """Read and check the head of an open file (length, JSON, data) without touching the data.

    Args:
        path: For messages.
        handle: The open file; its position is neither used nor moved.
        kind: What it should be.

    Raises:
        ClipError: Cut short, of another version, or no such file at all.
    """
    size = os.fstat(handle).st_size
    start = os.pread(handle, _LENGTH_BYTES, 0)
    if len(start) < _LENGTH_BYTES:
        raise ClipError(f"{path}: {size} bytes, expected {kind.name}. {kind.repair}")
    (length,) = struct.unpack("<Q", start)
    if length > min(_HEAD_LIMIT, size - _LENGTH_BYTES):
        raise ClipError(f"{path}: cut short, or not a safetensors file. Expected {kind.name}. {kind.repair}")
    try:
        content = json.loads(os.pread(handle, length, _LENGTH_BYTES))
        fields = json.loads(content.pop("__metadata__")[kind.entry])
        schema = fields["schema"]
        data = _LENGTH_BYTES + length
        tensors = {
            name: StoredTensor(_DTYPES[entry["dtype"]], tuple(entry["shape"]), data + entry["data_offsets"][0])
            for name, entry in content.items()
            if kind.tensors is None or name in kind.tensors
        }
        end = data + max(entry["data_offsets"][1] for entry in content.values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ClipError(f"{path}: no {kind.title} header ({error!r}). Expected {kind.name}. {kind.repair}") from error
    if schema != kind.schema:
        raise ClipError(f"{path}: {kind.title} format {schema}, expected {kind.schema}. {kind.renew}")
    if end != size:
        raise ClipError(f"{path}: {size} bytes, expected {end}: cut short or overwritten. {kind.repair}")
    try:
        return kind.header(**fields), tensors
    except TypeError as error:
        raise ClipError(
            f"{path}: header fields do not fit ({error}). Expected those of {kind.name}. {kind.repair}"
        ) from error
