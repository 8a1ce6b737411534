# SPDX-License-Identifier: Apache-2.0
"""Talking-face methods: a folder each, with its LightningModule in module.py and its networks in network.py."""

import importlib
import inspect
import pkgutil
from pathlib import Path

import torch

from lipsync_bench.models.core.checkpoints import load_module
from lipsync_bench.models.core.module import TalkingFaceModule
from lipsync_bench.models.hyperlips import HyperLipsBase, HyperLipsHR, HyperLipsSyncExpertModule
from lipsync_bench.models.lipformer import LipFormer, LipFormerCodebook
from lipsync_bench.models.videoretalking import VideoReTalkingLNet
from lipsync_bench.models.wav2lip.module import Wav2Lip
from lipsync_bench.models.wav2lip.sync_expert import SyncExpertModule

__all__ = [
    "HyperLipsBase",
    "HyperLipsHR",
    "HyperLipsSyncExpertModule",
    "LipFormer",
    "LipFormerCodebook",
    "SyncExpertModule",
    "TalkingFaceModule",
    "VideoReTalkingLNet",
    "Wav2Lip",
    "list_methods",
    "load_expert",
    "load_method",
]


PACKAGE = __name__.split(".")


def list_methods() -> dict[str, type[TalkingFaceModule]]:
    """Every method by name, sorted: all subclasses of TalkingFaceModule in the files of this folder, however deep.

    A method is called as the folders of its module are: hyperlips/hr/module.py is `hyperlips_hr`.
    """
    methods: dict[str, type[TalkingFaceModule]] = {}
    for file in pkgutil.walk_packages(__path__, f"{__name__}."):
        module = importlib.import_module(file.name)
        for _, kind in inspect.getmembers(module, inspect.isclass):
            own = kind.__module__ == file.name and not kind.__name__.startswith("_")
            if not own or not issubclass(kind, TalkingFaceModule) or kind is TalkingFaceModule:
                continue
            name = kind.method or "_".join(x for x in file.name.split(".")[len(PACKAGE) :] if x != "module")
            if name in methods:
                raise RuntimeError(
                    f"two methods are called '{name}': {methods[name].__qualname__} and {kind.__qualname__}. Expected "
                    "one name each. Set the class attribute `method` of one of them."
                )
            methods[name] = kind
    return dict(sorted(methods.items()))


def load_expert(path: Path | str) -> SyncExpertModule:
    """The lip-sync expert of a checkpoint, of either face size (`image_size`), in evaluation mode.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, not ours, or holds something else than an expert.
    """
    return load_module(Path(path), [SyncExpertModule, HyperLipsSyncExpertModule])


def load_method(path: Path | str, device: torch.device | str = "cpu") -> TalkingFaceModule:
    """The method of a checkpoint written by `lightning fit`, in evaluation mode; its lip-sync expert is not needed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, not ours, or holds something else than a method.
    """
    return load_module(Path(path), list_methods().values()).to(device)
