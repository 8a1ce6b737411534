# SPDX-License-Identifier: Apache-2.0
"""Reference arrays of the official implementations, and the rule that makes the weights and inputs they were computed
with.

A tensor's values depend on its name and shape alone: two implementations with the same state-dict names compute the
same network without sharing a weight file. `<name>.json` lists names and shapes, `<name>.golden.npz` the reference
outputs.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parent

__all__ = ["arrays", "filled", "names_and_shapes", "uniform"]


def arrays(name: str) -> dict[str, np.ndarray]:
    """All arrays of `<name>.golden.npz`."""
    with np.load(FOLDER / f"{name}.golden.npz") as file:
        return {key: file[key] for key in file.files}


def names_and_shapes(name: str) -> dict[str, list[int]]:
    """State-dict names and shapes of `<name>.json`, in the official order."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def uniform(name: str, shape: Sequence[int], low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """A golden input: float32, drawn uniformly from [low, high), seeded by its name."""
    return np.random.default_rng(zlib.crc32(f"input:{name}".encode())).uniform(low, high, shape).astype(np.float32)


def _normal(name: str, shape: Sequence[int]) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)


def _entry(name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    x = _normal(name, shape)
    if name.endswith("running_var"):
        return 1 + 0.1 * np.abs(x)
    if name.endswith("running_mean"):
        return 0.1 * x
    fan_in = int(np.prod(shape[1:]))
    if not shape or fan_in == 1:  # biases and per-channel scales
        return 1 + 0.1 * x if name.endswith("weight") else 0.1 * x
    return (x / np.sqrt(fan_in)).astype(np.float32)


def _singular(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leading singular vectors of a weight as a matrix (out, -1), signed so that u's largest entry is positive."""
    u, _, vt = np.linalg.svd(weight.reshape(weight.shape[0], -1).astype(np.float64), full_matrices=False)
    sign = np.sign(u[np.abs(u[:, 0]).argmax(), 0])
    return (u[:, 0] * sign).astype(np.float32), (vt[0] * sign).astype(np.float32)


def filled(shapes: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
    """The state dict that every golden output was computed with, for these names and shapes."""
    out = {}
    for name, shape in shapes.items():
        if name.endswith(("weight_u", "weight_v")):
            original = name[:-1] + "orig"
            value = _singular(_entry(original, tuple(shapes[original])))[name.endswith("v")]
        else:
            value = _entry(name, tuple(shape))
        out[name] = torch.from_numpy(np.array(value))
    return out
