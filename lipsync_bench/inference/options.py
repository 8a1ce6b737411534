# SPDX-License-Identifier: Apache-2.0
"""The options of dubbing, beside those of the face."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from cyclopts import Group, Parameter, Token

from lipsync_bench.datamodules.limits import one_of

Fit = Literal["loop", "cut"]
Blend = Literal["feather", "laplacian", "box"]
Reference = Literal["same", "first"]
Pads = tuple[int, int, int, int]

__all__ = ["Blend", "DubOptions", "Fit", "Pads", "Reference"]


def _pads(kind: object, tokens: Sequence[Token]) -> tuple[int, ...]:
    """From `0 10 0 0`, `0,10,0,0` or `[0,10,0,0]`."""
    text = " ".join(token.value for token in tokens)
    numbers = re.findall(r"[+-]?\d+", text)
    if len(numbers) != 4 or re.sub(r"[+-]?\d+", "", text).strip("[], "):
        raise ValueError(f"{text!r}. Expected four whole numbers of pixels for --pads: TOP BOTTOM LEFT RIGHT")
    return tuple(map(int, numbers))


@Parameter(name="*", group=Group("Dubbing", sort_key=1))
@dataclass(frozen=True)
class DubOptions:
    """How a video is dubbed.

    Args:
        fit: loop, as long as the audio, a video that is too short starts again from its beginning (but not for the
            last 0.2 s, which only have audio); cut, ends with the shorter of the two.
        blend: How the face is pasted: feather, with a soft edge below the eyes and along the jaw; laplacian, softer for
            colours than for details; box, the whole box with hard edges, as published.
        pads: Pixels added to the box, as TOP BOTTOM LEFT RIGHT; if not given 0 10 0 0 with crop detector, as published,
            else none.
        smooth: With crop detector: smooth the boxes, as published. Those of crop mesh always are.
        reference: Shows the identity: the same frame's crop, as published, or the first frame's.
        parsing: Paste the face where the face parser sees skin and lips, as HyperLips does, and not as --blend says.
            Needs its weights: bench weights fetch face_segmentation.
        no_mark: Leave out the metadata that says that the file is synthetic, and what made it.
        device: auto, cpu or cuda:N.
    """

    fit: Fit = "loop"
    blend: Blend = "feather"
    pads: Annotated[Pads | None, Parameter(converter=_pads, n_tokens=-1, consume_multiple=True)] = None
    smooth: Annotated[bool, Parameter(negative="--no-smooth")] = True
    reference: Reference = "same"
    parsing: bool = False
    no_mark: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        one_of("fit", self.fit, get_args(Fit))
        one_of("blend", self.blend, get_args(Blend))
        one_of("reference", self.reference, get_args(Reference))
