# SPDX-License-Identifier: Apache-2.0
"""What of a method's recipe a user may replace, by name, in the shell and in YAML files alike."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from cyclopts import Group, Parameter, Token

from lipsync_bench.datamodules.limits import one_of, within
from lipsync_bench.datamodules.option_types import Whole
from lipsync_bench.datamodules.recipes.values import CropName, Enhance, MelPadding, Pads, Paste

if TYPE_CHECKING:
    from lipsync_bench.datamodules.recipes.recipe import Recipe

ReferenceName = Literal["same", "first"]

__all__ = ["RecipeOptions"]


def _pads(kind: object, tokens: Sequence[Token]) -> tuple[int, ...]:
    """From `0 10 0 0`, `0,10,0,0` or `[0,10,0,0]`."""
    text = " ".join(token.value for token in tokens)
    numbers = re.findall(r"[+-]?\d+", text)
    if len(numbers) != 4 or re.sub(r"[+-]?\d+", "", text).strip("[], "):
        raise ValueError(f"{text!r}. Expected four whole numbers of pixels for --recipe.pads: TOP BOTTOM LEFT RIGHT")
    return tuple(map(int, numbers))


_PADS = Parameter(converter=_pads, n_tokens=-1, consume_multiple=True)


@Parameter(group=Group("Recipe", sort_key=2))
@dataclass(frozen=True)
class RecipeOptions:
    """Parts of the methods' recipes that are replaced; what is not given stays as published, or as it was trained.

    Args:
        crop: How faces are cut out: mesh, the box around the Face Mesh; mediapipe, dlib or s3fd, that detector's boxes
            with the recipe's pads and smoothing; ffhq, FFHQ's aligned square; atvg, ATVG's square about dlib's boxes;
            g4g, the rectangle of G4G and DINet about mouth and nose.
        pads: Pixels added to the boxes, as TOP BOTTOM LEFT RIGHT.
        smooth: Smooth a detector's boxes, or FFHQ's squares, over 5 frames.
        references: Which frame shows the identity: each frame itself (same), or the first one.
        reference_frame: The number of the frame that shows it, from 0, instead.
        mel_padding: How the audio is continued at both ends: reflect or constant (zeros).
        paste: How faces are pasted: box, feather, laplacian, parser (HyperLips' mask), parser_released,
            parser_pyramid (as VideoReTalking does), quad or mask. Faces cut by ffhq are pasted as quad, and as feather
            if another rule takes its place; mask is for those cut by g4g.
        enhance: What is done after that: none, or gfpgan, which restores the pasted face (weights gfpgan_1_3).
    """

    crop: CropName | None = None
    pads: Annotated[Pads | None, _PADS] = None
    smooth: Annotated[bool | None, Parameter(negative="--recipe.no-smooth")] = None
    references: ReferenceName | None = None
    reference_frame: Whole | None = None
    mel_padding: MelPadding | None = None
    paste: Paste | None = None
    enhance: Enhance | None = None

    def __post_init__(self) -> None:
        choices = {"crop": CropName, "references": ReferenceName, "mel_padding": MelPadding}
        for name, kind in {**choices, "paste": Paste, "enhance": Enhance}.items():
            if getattr(self, name) is not None:
                one_of(f"recipe.{name}", getattr(self, name), get_args(kind))
        within("recipe.reference_frame", self.reference_frame, 0)
        if self.references is not None and self.reference_frame is not None:
            raise ValueError("references and reference_frame. Expected one of them (--recipe.references)")
        if self.pads is not None:
            object.__setattr__(self, "pads", tuple(self.pads))  # YAML has lists

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) is not None for field in fields(self))

    def words(self) -> str:
        """As they are typed: "--recipe.crop mesh --recipe.pads 0 10 0 0"; empty for none."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        out = []
        for name, value in given.items():
            if isinstance(value, bool):
                out.append(f"--recipe.{'' if value else 'no-'}{name}")
            elif value is not None:
                out.append(f"--recipe.{name} {' '.join(map(str, value)) if isinstance(value, tuple) else value}")
        return " ".join(out)

    def applied(self, recipe: "Recipe") -> "Recipe":
        """A recipe with these parts replaced.

        Raises:
            ValueError: Pads or smoothing for a rule that has none.
        """
        from lipsync_bench.datamodules.recipes.changes import changed  # it loads OpenCV, which help need not

        return changed(recipe, self)
