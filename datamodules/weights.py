# SPDX-License-Identifier: Apache-2.0
"""Weights of frozen networks that come in files from elsewhere: read without running code, compared name by name."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

_COUNTER = "num_batches_tracked"  # of batch norms; files of old framework versions lack it, evaluation never reads it
_Network = TypeVar("_Network", bound=nn.Module)

__all__ = ["load_weights", "mismatch"]


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"


def mismatch(network: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Why a state dict does not fit a network: missing, unknown and reshaped names, all of them; "" if it fits."""
    own = network.state_dict()
    missing = [name for name in own if name not in state and not name.endswith(_COUNTER)]
    unknown = [name for name in state if name not in own]
    reshaped = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if not (missing or unknown or reshaped):
        return ""
    return f"Missing: {_listed(missing)}. Unknown: {_listed(unknown)}. Other shape: {_listed(reshaped)}"


def load_weights(network: _Network, path: Path, expected: str, repair: str) -> _Network:
    """The network with the tensors of a flat `torch.save` dictionary, frozen, in evaluation mode.

    Args:
        network: With the official state-dict names.
        path: The file.
        expected: Which file was expected and where it is documented, for messages.
        repair: What to do about a missing or wrong file, for messages.

    Raises:
        FileNotFoundError: There is no such file. It is never replaced by random weights.
        ValueError: The file is damaged, is no flat dictionary of tensors, or its names or shapes do not fit.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. Expected {expected}. {repair}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles fail in every way there is
        reason = "asks for code to be run" if isinstance(error, pickle.UnpicklingError) else "damaged"
        raise ValueError(
            f"{path}: cannot be read as weights ({type(error).__name__}: {reason}, or something else). Expected "
            f"{expected}. {repair}"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path}: is no flat mapping of names to tensors. Expected {expected}. {repair}")
    differences = mismatch(network, state)
    if differences:
        raise ValueError(f"{path}: does not fit. {differences}. Expected {expected}. {repair}")
    network.load_state_dict(state, strict=False)  # compared above
    return network.requires_grad_(False).eval()
