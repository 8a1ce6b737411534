# SPDX-License-Identifier: Apache-2.0
"""Media in: video, sound and faces; prepared clips; LightningDataModules that cut windows from them.

The data modules are imported at their first use: Lightning takes seconds and hundreds of megabytes, which the processes
that only prepare clips need not spend.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lipsync_bench.datamodules.clip_datamodule import ClipDataModule
    from lipsync_bench.datamodules.datasets.folder import ClipFolder
    from lipsync_bench.datamodules.datasets.lrs2 import LRS2
    from lipsync_bench.datamodules.datasets.mead import MEAD
    from lipsync_bench.datamodules.datasets.stills import FaceImages
    from lipsync_bench.datamodules.datasets.synthetic import Synthetic

_HOMES = {
    "ClipDataModule": "clip_datamodule",
    "ClipFolder": "datasets.folder",
    "FaceImages": "datasets.stills",
    "LRS2": "datasets.lrs2",
    "MEAD": "datasets.mead",
    "Synthetic": "datasets.synthetic",
}

__all__ = ["LRS2", "MEAD", "ClipDataModule", "ClipFolder", "FaceImages", "Synthetic"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
