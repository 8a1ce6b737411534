# SPDX-License-Identifier: Apache-2.0
"""Media in: video, sound and faces; prepared clips; LightningDataModules that cut windows from them."""

from typing import TYPE_CHECKING, Any

from datamodules.base import ClipDataModule
from datamodules.clip_folder import ClipFolder
from datamodules.lrs2 import LRS2
from datamodules.mead import MEAD

__all__ = ["LRS2", "MEAD", "ClipDataModule", "ClipFolder", "Synthetic"]

if TYPE_CHECKING:
    from datamodules.synthetic import Synthetic


def __getattr__(name: str) -> Any:
    if name == "Synthetic":
        from datamodules.synthetic import Synthetic

        return Synthetic
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
