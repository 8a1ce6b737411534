# SPDX-License-Identifier: Apache-2.0
"""What of a method's recipe a user may replace, by name, in the shell and in YAML files alike."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Literal, get_args

from cyclopts import Group, Parameter, Token

from lipsync_bench.datamodules.faces.crop_rules.boxes import NO_PADS, DetectorBox, FaceMeshBox, Pads
from lipsync_bench.datamodules.faces.crop_rules.ffhq import FFHQQuad
from lipsync_bench.datamodules.faces.crop_rules.rule import CropRule
from lipsync_bench.datamodules.limits import one_of, within
from lipsync_bench.datamodules.option_types import Whole
from lipsync_bench.datamodules.recipe import MelPadding, Paste, Recipe, References, crop_rule

CropName = Literal["mesh", "mediapipe", "dlib", "s3fd", "ffhq", "atvg"]
ReferenceName = Literal["same", "first"]

__all__ = ["CropName", "Pads", "RecipeOptions", "pads_option"]


def _pads(kind: object, tokens: Sequence[Token]) -> tuple[int, ...]:
    """From `0 10 0 0`, `0,10,0,0` or `[0,10,0,0]`."""
    text = " ".join(token.value for token in tokens)
    numbers = re.findall(r"[+-]?\d+", text)
    if len(numbers) != 4 or re.sub(r"[+-]?\d+", "", text).strip("[], "):
        raise ValueError(f"{text!r}. Expected four whole numbers of pixels: TOP BOTTOM LEFT RIGHT")
    return tuple(map(int, numbers))


pads_option = Parameter(converter=_pads, n_tokens=-1, consume_multiple=True)


@Parameter(group=Group("Recipe", sort_key=2))
@dataclass(frozen=True)
class RecipeOptions:
    """Parts of the methods' recipes that are replaced; what is not given stays as published, or as it was trained.

    Args:
        crop: How faces are cut out: mesh, the box around the Face Mesh; mediapipe, dlib or s3fd, that detector's boxes
            with the recipe's pads and smoothing; ffhq, FFHQ's aligned square; atvg, ATVG's square about dlib's boxes.
        pads: Pixels added to the boxes, as TOP BOTTOM LEFT RIGHT.
        smooth: Smooth a detector's boxes, or FFHQ's squares, over 5 frames.
        references: Which frame shows the identity: each frame itself (same), or the first one.
        reference_frame: The number of the frame that shows it, from 0, instead.
        mel_padding: How the audio is continued at both ends: reflect or constant (zeros).
        paste: How faces are pasted: box, feather, laplacian, parser (HyperLips' mask), parser_released or quad. Faces
            cut by ffhq are pasted as quad, and as feather if another rule takes its place.
    """

    crop: CropName | None = None
    pads: Annotated[Pads | None, pads_option] = None
    smooth: Annotated[bool | None, Parameter(negative="--recipe.no-smooth")] = None
    references: ReferenceName | None = None
    reference_frame: Whole | None = None
    mel_padding: MelPadding | None = None
    paste: Paste | None = None

    def __post_init__(self) -> None:
        choices = {"crop": CropName, "references": ReferenceName, "mel_padding": MelPadding, "paste": Paste}
        for name, kind in choices.items():
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

    def applied(self, recipe: Recipe) -> Recipe:
        """A recipe with these parts replaced.

        Raises:
            ValueError: Pads or smoothing for a rule that has none.
        """
        crop, training = recipe.crop, recipe.training_crop
        if self.crop is not None:
            crop, training = _other_rule(recipe.crop, self.crop), _other_rule(recipe.fed_crop, self.crop)
        if self.pads is not None:
            if not isinstance(crop, FaceMeshBox | DetectorBox):
                raise ValueError(f"pads with the crop rule {crop.text()}. Expected a rule of boxes (--recipe.crop)")
            crop = replace(crop, pads=self.pads)
        if self.smooth is not None:
            if not isinstance(crop, DetectorBox | FFHQQuad):
                raise ValueError(
                    f"smooth is {self.smooth} with the crop rule {crop.text()}. Expected a detector's boxes "
                    "or ffhq (--recipe.crop s3fd, dlib, mediapipe or ffhq)"
                )
            crop = replace(crop, smoothing=5 if self.smooth else 0)
        changes: dict[str, object] = {
            name: getattr(self, name) for name in ("mel_padding", "paste") if getattr(self, name) is not None
        }
        if self.paste is None and isinstance(crop, FFHQQuad) != (recipe.paste == "quad"):
            changes["paste"] = "quad" if isinstance(crop, FFHQQuad) else "feather"
        if self.references is not None:
            changes["references"] = References(self.references)
        if self.reference_frame is not None:
            changes["references"] = References("frame", frame=self.reference_frame)
        if training == crop:
            training = None
        return replace(recipe, crop=crop, training_crop=training, **changes)  # type: ignore[arg-type]


def _other_rule(rule: CropRule, name: CropName) -> CropRule:
    if name == "mesh" or name == "ffhq" or name == "atvg":  # mypy narrows by no tuple
        return rule if rule.name == name else crop_rule({"rule": name})
    if isinstance(rule, DetectorBox):
        return replace(rule, detector=name)
    return DetectorBox(name, rule.pads if isinstance(rule, FaceMeshBox) else NO_PADS)
