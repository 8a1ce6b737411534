# SPDX-License-Identifier: Apache-2.0
"""A recipe with parts of it replaced, as a user names them."""

from dataclasses import replace

from lipsync_bench.datamodules.faces.crop_rules.boxes import NO_PADS, DetectorBox, FaceMeshBox
from lipsync_bench.datamodules.faces.crop_rules.ffhq import FFHQQuad
from lipsync_bench.datamodules.faces.crop_rules.g4g import LandmarkCrop
from lipsync_bench.datamodules.faces.crop_rules.rule import CropRule
from lipsync_bench.datamodules.recipes.options import RecipeOptions
from lipsync_bench.datamodules.recipes.recipe import Recipe, References, crop_rule
from lipsync_bench.datamodules.recipes.values import CropName

__all__ = ["changed"]


def changed(recipe: Recipe, options: RecipeOptions) -> Recipe:
    """See `RecipeOptions.applied`."""
    crop, training = recipe.crop, recipe.training_crop
    if options.crop is not None:
        crop, training = _other_rule(recipe.crop, options.crop), _other_rule(recipe.fed_crop, options.crop)
    if options.pads is not None:
        if not isinstance(crop, FaceMeshBox | DetectorBox):
            raise ValueError(f"pads with the crop rule {crop.text()}. Expected a rule of boxes (--recipe.crop)")
        crop = replace(crop, pads=options.pads)
    if options.smooth is not None:
        if not isinstance(crop, DetectorBox | FFHQQuad):
            raise ValueError(
                f"smooth is {options.smooth} with the crop rule {crop.text()}. Expected a detector's boxes "
                "or ffhq (--recipe.crop s3fd, dlib, mediapipe or ffhq)"
            )
        crop = replace(crop, smoothing=5 if options.smooth else 0)
    changes: dict[str, object] = {
        name: value for name in ("mel_padding", "paste", "enhance") if (value := getattr(options, name)) is not None
    }
    if options.paste is None and isinstance(crop, FFHQQuad) != (recipe.paste == "quad"):
        changes["paste"] = "quad" if isinstance(crop, FFHQQuad) else "feather"
    elif options.paste is None and recipe.paste == "mask" and not isinstance(crop, LandmarkCrop):
        changes["paste"] = "feather"
    if options.references is not None:
        changes["references"] = References(options.references)
    if options.reference_frame is not None:
        changes["references"] = References("frame", frame=options.reference_frame)
    if training == crop:
        training = None
    return replace(recipe, crop=crop, training_crop=training, **changes)  # type: ignore[arg-type]


def _other_rule(rule: CropRule, name: CropName) -> CropRule:
    if name == "mesh" or name == "ffhq" or name == "atvg" or name == "g4g":  # mypy narrows by no tuple
        return rule if rule.name == name else crop_rule({"rule": name})
    if isinstance(rule, DetectorBox):
        return replace(rule, detector=name)
    return DetectorBox(name, rule.pads if isinstance(rule, FaceMeshBox) else NO_PADS)
