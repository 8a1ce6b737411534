# SPDX-License-Identifier: Apache-2.0
"""Pickles inside weight files, read without running or looking up anything that they name.

A file of `torch.save` is a pickle, which can name any function to be called; PyTorch's restricted reader
(`weights_only`) reads it. A TorchScript archive is a program; its tensors are taken from its records, and the program
stays unread.
"""

import io
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_OF_TENSORS = {
    "_codecs",
    "collections",
    "torch",
    "torch._tensor",
    "torch._utils",
    "torch.nn.parameter",
    "torch.serialization",
    "torch.storage",
}

__all__ = ["ForbiddenName", "forbidden_name", "read_script"]


class ForbiddenName(pickle.UnpicklingError):
    """A pickle asks for something that is no tensor and no plain value."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class _Made(dict[Any, Any]):
    """Whatever a pickle makes by a name: its attributes or entries, and nothing of its code."""

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.update(state)


class _Namer(pickle._Unpickler):
    """Ends at the first name that is not about tensors.

    That is the reader in Python, where a number in the file cannot ask for memory as in the one in C.
    """

    def find_class(self, module: str, name: str) -> Any:
        if module in _OF_TENSORS:
            return _Made
        raise ForbiddenName(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        return None


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return torch.as_strided(storage, size, stride, offset)


class _ScriptReader(_Namer):
    """Builds `_Made`s with tensors."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(archive.open(f"{root}/data.pkl"))
        self._archive = archive
        self._root = root

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch.jit._pickle":  # marks typed lists
            return lambda value, *_: value
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module.partition(".")[0] == "__torch__":
            return _Made
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, count = pid
        data = bytearray(self._archive.read(f"{self._root}/data/{key}"))
        return torch.frombuffer(data, dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)


@contextmanager
def _pickles(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            file.seek(0)
            yield file
            return
        with zipfile.ZipFile(file) as archive:
            yield io.BytesIO(b"".join(archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl")))


def forbidden_name(path: Path, error: Exception) -> str | None:
    """What a file that could not be read asks for besides tensors; None if it is merely damaged.

    PyTorch's reader says it in words alone, and of newer pickles not at all.
    """
    try:
        if isinstance(error, ForbiddenName):
            raise error
        with _pickles(path) as file:
            while True:  # files of old versions are several pickles
                _Namer(file).load()
    except ForbiddenName as found:
        return found.name
    except Exception:  # damaged pickles fail in every way there is
        return None


def _collect(part: _Made, prefix: str, into: dict[str, Tensor]) -> dict[str, Tensor]:
    for name, value in part.items():
        if isinstance(value, Tensor):
            into[f"{prefix}{name}"] = value
        elif isinstance(value, _Made):
            _collect(value, f"{prefix}{name}.", into)
    return into


def read_script(path: Path, root: str) -> dict[str, Tensor]:
    """The state dict of a TorchScript archive."""
    with zipfile.ZipFile(path) as archive:
        top = _ScriptReader(archive, root).load()
    if not isinstance(top, _Made):
        raise pickle.UnpicklingError("the archive holds no module")
    return _collect(top, "", {})
