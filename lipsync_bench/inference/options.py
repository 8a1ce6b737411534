# SPDX-License-Identifier: Apache-2.0
"""The options of dubbing, beside those of the face and of the recipe."""

from dataclasses import dataclass
from typing import Literal, get_args

from cyclopts import Group, Parameter

from lipsync_bench.datamodules.limits import one_of

Fit = Literal["loop", "cut"]

__all__ = ["DubOptions", "Fit"]


@Parameter(name="*", group=Group("Dubbing", sort_key=1))
@dataclass(frozen=True)
class DubOptions:
    """How a video is dubbed.

    Args:
        fit: loop, as long as the audio, a video that is too short starts again from its beginning, or plays
            backwards where the method says so (but not for the last 0.2 s, which only have audio); cut, ends with the
            shorter of the two.
        no_mark: Leave out the metadata that says that the file is synthetic, and what made it.
        device: auto, cpu or cuda:N.
    """

    fit: Fit = "loop"
    no_mark: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        one_of("fit", self.fit, get_args(Fit))
