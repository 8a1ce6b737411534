# SPDX-License-Identifier: Apache-2.0
"""Tensors out of weight files from elsewhere, without running anything that such a file may contain.

A file of `torch.save` is a pickle, which can name any function to be called. It is read by the framework's restricted
reader (`weights_only`), which knows tensors and plain containers. A TorchScript archive is a program; its tensors are
taken from its records, and the program stays unread.
"""

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from lipsync_bench.datamodules.errors import of_reading
from lipsync_bench.datamodules.weights import is_safetensors, refuse_archive

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
_FORBIDDEN = re.compile(r"GLOBAL ([\w.]+)")  # as the restricted reader words it

__all__ = ["read_entries"]


class _Part:
    """A module of a TorchScript archive: its attributes and nothing of its code."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return torch.as_strided(storage, size, stride, offset).clone()


def _first(value: Any, *_: Any) -> Any:
    return value


class _ScriptReader(pickle.Unpickler):
    """Builds `_Part`s with tensors; every other name that the file asks for ends in an error."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(archive.open(f"{root}/data.pkl"))
        self._archive = archive
        self._root = root

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Part
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch.jit._pickle":  # marks typed lists
            return _first
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, count = pid
        data = bytearray(self._archive.read(f"{self._root}/data/{key}"))
        return torch.frombuffer(data, dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)


class _Namer(pickle.Unpickler):
    """Stops at the first name that is not about tensors; nothing that the file names is ever looked up."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("collections", "torch", "torch._utils"):
            return lambda *_: None
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")

    def persistent_load(self, pid: Any) -> None:
        return None


def _forbidden_name(path: Path, error: Exception) -> str | None:
    """What a file that could not be read asks to be called; None if it is merely damaged."""
    found = _FORBIDDEN.search(str(error)) if isinstance(error, pickle.UnpicklingError) else None
    if found is None:
        # The restricted reader does not understand newer pickles, and so does not come to the name.
        try:
            if not zipfile.is_zipfile(path):  # which itself fails for some damaged ends
                with path.open("rb") as file:
                    _Namer(file).load()
        except pickle.UnpicklingError as inner:
            found = _FORBIDDEN.search(str(inner))
        except Exception:  # as below
            found = None
    return found[1] if found else None


def _script_root(path: Path) -> str | None:
    """The folder inside a TorchScript archive that holds everything; None for other files."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        roots = [name.partition("/")[0] for name in archive.namelist() if name.count("/") == 1]
        names = set(archive.namelist())
    return next((root for root in roots if {f"{root}/constants.pkl", f"{root}/data.pkl"} <= names), None)


def _collect(part: _Part, prefix: str, into: dict[str, Tensor]) -> dict[str, Tensor]:
    for name, value in part.attributes.items():
        if isinstance(value, Tensor):
            into[f"{prefix}{name}"] = value
        elif isinstance(value, _Part):
            _collect(value, f"{prefix}{name}.", into)
    return into


def _read_script(path: Path, root: str) -> dict[str, Tensor]:
    with zipfile.ZipFile(path) as archive:
        top = _ScriptReader(archive, root).load()
    if not isinstance(top, _Part):
        raise pickle.UnpicklingError("the archive holds no module")
    return _collect(top, "", {})


def read_entries(path: Path, expected: str) -> Mapping[str, Any]:
    """What is stored in a file of `torch.save` (a dictionary), or in a TorchScript archive (its state dict).

    Args:
        path: The file.
        expected: Which file was expected, for messages.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is truncated, damaged, no weight file, or asks for code to be called, which is not done.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. Expected {expected}. Download it and name its path")
    refuse_archive(path, expected)
    try:
        root = _script_root(path)
        if is_safetensors(path):
            return load_file(path)
        content = _read_script(path, root) if root else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles fail in every way there is
        if of_reading(error):
            raise
        forbidden = _forbidden_name(path, error)
        if forbidden is not None:
            raise ValueError(
                f"{path}: asks for {forbidden}, which is not a tensor; nothing of it was run. Expected tensors and "
                f"plain values alone: {expected}. Get the file from there; if you trust this one, load it elsewhere "
                "and save its state dict again"
            ) from error
        raise ValueError(
            f"{path}: cannot be read as a weight file ({type(error).__name__}), {path.stat().st_size} bytes: truncated "
            f"or damaged, or something else. Expected {expected}. Download it again"
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{path}: holds a {type(content).__name__}. Expected a dictionary of tensors: {expected}. Name another file"
        )
    return content
