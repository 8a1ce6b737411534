# SPDX-License-Identifier: Apache-2.0
"""Published weights of networks that losses and metrics look through: found, checked, never downloaded or made up."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.datamodules.files.weights import mismatch, read_state
from lipsync_bench.datamodules.weights.registry import official_files
from lipsync_bench.datamodules.weights.store import Store

TORCHVISION = "torchvision"
RANDOM = "random"

__all__ = ["RANDOM", "TORCHVISION", "WeightsFile", "WithoutInit", "cache_folder"]


def cache_folder() -> Path:
    """Where torchvision keeps its downloads."""
    return Path(torch.hub.get_dir()) / "checkpoints"


class WithoutInit(TorchFunctionMode):
    """Inside this context layers keep whatever memory holds: for networks that are filled from a file as a whole.

    Memory that nobody writes to takes no room: AlexNet's classifier, which no metric uses, would take 240 MB.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights under a published name.

    Args:
        name: File name.
        weights: Where it is: "torchvision" for torchvision's cache of downloads or else the store of official weights
            (`bench weights`), else its folder, or the file itself under any name.
        expected: What it should hold, for messages.
        repair: How to come by it, for messages.
    """

    name: str
    weights: str
    expected: str
    repair: str

    @cached_property
    def path(self) -> Path:
        """Where the file is, or where it is expected."""
        if self.weights != TORCHVISION:
            place = Path(self.weights)
            return place if place.is_file() else place / self.name
        cached = cache_folder() / self.name
        ids = [] if cached.is_file() else [file.id for file in official_files().values() if file.file == self.name]
        found = next(filter(None, map(Store().find, ids)), None)
        return cached if found is None else found.path

    def read(self) -> Mapping[str, Tensor]:
        """What the file holds. Ask before building a network: that takes seconds.

        Raises:
            FileNotFoundError: no such file.
            ValueError: it cannot be read, or is no flat mapping of names to tensors.
        """
        # Mapped where the format allows it: what the network does not take is never read.
        repair = f"Delete it. {self.repair}" if self.path.exists() else self.repair
        return read_state(self.path, self.expected, repair, mapped=True)

    def fill(self, module: nn.Module, names: Mapping[str, str], state: Mapping[str, Tensor]) -> str:
        """Copy what was read into a network; returns the file's SHA-256.

        Args:
            module: The network.
            names: For each name of its state dict to fill, the name in the file.
            state: From `read`.

        Raises:
            ValueError: the file does not hold this network.
        """
        own = module.state_dict()
        wanted = {name: own[key] for key, name in names.items()}
        differences = mismatch(wanted, {name: state[name] for name in wanted if name in state})
        if differences:
            raise ValueError(
                f"{self.path}: does not fit. {differences}. Expected {self.expected}. Delete it. {self.repair}"
            )
        module.load_state_dict({**own, **{key: state[name] for key, name in names.items() if name in state}})
        return sha256(self.path)
