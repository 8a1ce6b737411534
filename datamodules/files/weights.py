# SPDX-License-Identifier: Apache-2.0
"""Weights of frozen networks that come in files from elsewhere: read without running code, compared name by name."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from lipsync_bench.datamodules.errors import of_reading
from lipsync_bench.datamodules.files.other_files import other_file, script_root
from lipsync_bench.datamodules.files.safe_pickle import forbidden_name, read_script
from lipsync_bench.datamodules.files.texts import few

_COUNTER = "num_batches_tracked"  # of batch norms; files of old framework versions lack it, evaluation never reads it
_Network = TypeVar("_Network", bound=nn.Module)

_EXPANDED_BYTES = 1 << 20  # strides of 0 let a few bytes stand for a tensor of any size
_LISTED = 5  # names in a message

__all__ = ["in_order", "is_state", "load_weights", "mismatch", "read_metadata", "read_state", "read_torch"]


def _is_safetensors(path: Path) -> bool:
    """Whether a file is in the safetensors format, whatever it is called."""
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size - 8


def read_torch(path: Path, expected: str, repair: str, *, mapped: bool = False) -> Any:
    """What is stored in a file of `torch.save`, or the tensors of a safetensors file or a TorchScript archive.

    Nothing that the file names is run.

    Args:
        path: The file.
        expected: Which file was expected and where it is documented, for messages.
        repair: What to do about a missing or wrong file, for messages.
        mapped: Read tensors when they are used, where the format allows it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, would run code, or is an archive.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. Expected {expected}. {repair}")
    other = other_file(path)
    if other is not None:
        raise ValueError(f"{path}: is {other[0]}. Expected {expected}. {other[1]}")
    try:
        if _is_safetensors(path):
            return load_file(path)
        root = script_root(path)
        if root is not None:
            return read_script(path, root)
        mapped = mapped and zipfile.is_zipfile(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # damaged pickles can raise anything, and their messages give wrong advice
        if of_reading(error):
            raise
        forbidden = forbidden_name(path, error)
        if forbidden is not None:
            raise ValueError(
                f"{path}: asks for {forbidden}, which is not a tensor; nothing of it was run. Expected {expected}. "
                f"{repair.rstrip('.')}; if you trust this one, load it elsewhere and save its state dict again"
            ) from error
        raise ValueError(
            f"{path}: cannot be read as a weight file ({type(error).__name__}), {path.stat().st_size} bytes: truncated "
            f"or damaged, or something else. Expected {expected}. {repair}"
        ) from error


def read_metadata(path: Path) -> Mapping[str, str]:
    """The texts in the head of a safetensors file that `read_torch` has read; none of any other file."""
    if not _is_safetensors(path):
        return {}
    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def _is_dense(value: Any) -> TypeGuard[Tensor]:
    """Whether this is a plain dense tensor, though its values may stand in the file once for many."""
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and not (value.is_quantized or value.is_complex() or value.is_meta)
    )


def _is_flat(content: Any) -> TypeGuard[Mapping[str, Tensor]]:
    return isinstance(content, Mapping) and all(isinstance(k, str) and _is_dense(x) for k, x in content.items())


def is_state(content: Any) -> TypeGuard[Mapping[str, Tensor]]:
    """Whether this is a mapping of names to plain dense tensors that are not much larger than their file."""
    return _is_flat(content) and all(
        value.nbytes <= value.untyped_storage().nbytes() + _EXPANDED_BYTES for value in content.values()
    )


def _listed(names: list[str]) -> str:
    return few(names, _LISTED) or "none"


def mismatch(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Why a state dict is not the one that is wanted: missing, unknown and reshaped names; "" if it is."""
    missing = [name for name in wanted if name not in state and not name.endswith(_COUNTER)]
    unknown = [name for name in state if name not in wanted]
    reshaped = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in state and state[name].shape != value.shape
    ]
    if not (missing or unknown or reshaped):
        return ""
    return f"Missing: {_listed(missing)}. Unknown: {_listed(unknown)}. Other shape: {_listed(reshaped)}"


def in_order(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A state dict under the names that are wanted, taken in its own order; as it is where the shapes are others."""
    if [value.shape for value in state.values()] != [value.shape for value in wanted.values()]:
        return state
    return dict(zip(wanted, state.values(), strict=True))


def read_state(
    path: Path, expected: str, repair: str, *, mapped: bool = False, outer: Sequence[str] = ()
) -> Mapping[str, Tensor]:
    """The tensors of a flat file by name. Args and what it raises are those of `read_torch` and `load_weights`.

    Raises:
        ValueError: It holds something else.
    """
    state = read_torch(path, expected, repair, mapped=mapped)
    if isinstance(state, Mapping):
        state = next((state[key] for key in outer if key in state), state)
    if not _is_flat(state):
        raise ValueError(f"{path}: is no flat mapping of names to tensors. Expected {expected}. {repair}")
    return state


def load_weights(
    network: _Network, path: Path, expected: str, repair: str, outer: Sequence[str] = (), *, by_order: bool = False
) -> _Network:
    """The network with the tensors of a flat `torch.save` dictionary, frozen, in evaluation mode.

    Args:
        network: With the official state-dict names.
        path: The file, of `torch.save` or safetensors.
        expected: Which file was expected and where it is documented, for messages.
        repair: What to do about a missing or wrong file, for messages.
        outer: Keys of outer dictionaries, the first that is there counts; without any of them the file is flat.
        by_order: Take the tensors in the order of the file, whatever they are called.

    Raises:
        FileNotFoundError: There is no such file. It is never replaced by random weights.
        ValueError: The file is damaged, is no flat dictionary of tensors, or its names or shapes do not fit.
    """
    state = read_state(path, expected, repair, outer=outer)
    if by_order:
        state = in_order(network.state_dict(), state)
    differences = mismatch(network.state_dict(), state)
    if differences:
        raise ValueError(f"{path}: does not fit. {differences}. Expected {expected}. {repair}")
    network.load_state_dict(state, strict=False)  # compared above
    return network.requires_grad_(False).eval()
