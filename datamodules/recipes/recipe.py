# SPDX-License-Identifier: Apache-2.0
"""How a method is fed: which part of a frame it sees, which frames show the identity, how the result is pasted.

A recipe belongs to a method, not to a protocol: a protocol says how frames are compared. It stands in checkpoints,
tracks, rows and leaderboards. `text()` is short, `digest` identifies it, `plain()` and `Recipe.of` are the way to files
and back.
"""

import hashlib
import json
import operator
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, get_args

from lipsync_bench.datamodules.faces.crop_rules.atvg import ATVGSquare
from lipsync_bench.datamodules.faces.crop_rules.boxes import DetectorBox, FaceMeshBox
from lipsync_bench.datamodules.faces.crop_rules.ffhq import FFHQQuad
from lipsync_bench.datamodules.faces.crop_rules.ffhq_rectangle import FFHQRectangle
from lipsync_bench.datamodules.faces.crop_rules.g4g import LandmarkCrop
from lipsync_bench.datamodules.faces.crop_rules.rule import CropRule, Resize
from lipsync_bench.datamodules.limits import one_of
from lipsync_bench.datamodules.recipes.values import Enhance, MelPadding, Paste, ReferenceKind

_RULES: dict[str, type[CropRule]] = {
    rule.name: rule for rule in (FaceMeshBox, DetectorBox, FFHQQuad, ATVGSquare, FFHQRectangle, LandmarkCrop)
}
_LATER = frozenset({"enhance"})
"""Fields that recipes of earlier versions lack. Where one is absent it has its default, and the default is not written,
so that digests stay as they were."""

__all__ = ["Recipe", "References", "crop_rule"]


@dataclass(frozen=True)
class References:
    """Which frames of a video show the identity when it is dubbed.

    Args:
        kind: same, each frame's own face; first, the first face of the video; frame, that of one frame; random, faces
            drawn once for a video; stabilised, each frame's own with an expression that the method gives all of them.
        count: Faces for each frame; more than 1 with random only.
        seed: Of the draw.
        frame: Number of the frame, from 0, with frame.
    """

    kind: ReferenceKind = "first"
    count: int = 1
    seed: int = 0
    frame: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(ReferenceKind) or self.count < 1 or (self.count > 1 and self.kind != "random"):
            raise ValueError(
                f"references are {self.count} of the kind {self.kind!r}. Expected one of {get_args(ReferenceKind)}, "
                "and more than 1 with random only (--recipe.references)"
            )

    def text(self) -> str:
        """Short, for rows."""
        if self.kind == "random":
            return f"random {self.count}, seed {self.seed}"
        return f"frame {self.frame}" if self.kind == "frame" else self.kind


def crop_rule(plain: Mapping[str, Any]) -> CropRule:
    """The rule that `Recipe.plain` describes.

    Raises:
        ValueError: There is no such rule, or it has other arguments.
    """
    try:
        values = dict(plain)
        kind = _RULES.get(str(values.pop("rule", None)))
        if kind is None:
            raise TypeError("an unknown rule")
        return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"crop rule {plain!r:.200}: {error}. Expected one of {', '.join(_RULES)} with its arguments. Was it "
            "written by another version?"
        ) from error


def _plain(rule: CropRule) -> dict[str, Any]:
    return {"rule": rule.name, **asdict(rule)}  # type: ignore[call-overload]  # rules are dataclasses


@dataclass(frozen=True)
class Recipe:
    """How a method is fed.

    Args:
        crop: How a face is cut out of a frame, and where it is pasted.
        size_hw: Height and width of the faces that the network sees.
        training_crop: How faces of training data are cut, where that is published to be another way.
        resize: How a cut becomes a face of this size.
        references: Which frames show the identity when a video is dubbed.
        mel_padding: How the audio is continued at both ends of the mel-spectrogram.
        inputs: Names of further inputs.
        paste: How a face is pasted: box, hard edges; feather and laplacian, soft ones; parser, through HyperLips' mask,
            which its face parser finds (parser_released: to the pixel as its script); parser_pyramid, where
            VideoReTalking's parser finds a face, by Laplacian pyramids; quad, a rotated square with a soft edge; mask,
            through the smoothed hull of the crop rule g4g.
        enhance: What is done to a frame after its face is pasted: none; gfpgan, the face is restored by GFPGAN 1.3.
    """

    crop: CropRule
    size_hw: tuple[int, int]
    training_crop: CropRule | None = None
    resize: Resize = "bilinear"
    references: References = References()
    mel_padding: MelPadding = "reflect"
    inputs: tuple[str, ...] = ()
    paste: Paste = "box"
    enhance: Enhance = "none"

    def __post_init__(self) -> None:
        choices = {"resize": Resize, "mel_padding": MelPadding, "paste": Paste, "enhance": Enhance}
        for name, kind in choices.items():
            one_of(f"recipe.{name}", getattr(self, name), get_args(kind))
        if min(self.size_hw) < 1:
            raise ValueError(f"faces of {self.size_hw} px. Expected a height and a width of 1 or more (--recipe)")
        if (self.paste == "quad") != isinstance(self.crop, FFHQQuad):
            raise ValueError(
                f"paste is {self.paste} with the crop rule {self.crop.text()}. Expected quad with ffhq, and with no "
                "other rule (--recipe.paste)"
            )
        if self.paste == "mask" and not isinstance(self.crop, LandmarkCrop):
            raise ValueError(
                f"paste is mask with the crop rule {self.crop.text()}. Expected g4g (--recipe.crop), or another paste "
                "(--recipe.paste feather)"
            )

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Recipe":
        """The recipe that `plain` describes, as read from a file.

        Raises:
            ValueError: A field is missing, unknown or holds something else.
        """
        names = {field.name for field in fields(cls)}
        if not names - _LATER <= set(plain) <= names:
            raise ValueError(f"a recipe has the fields {', '.join(sorted(map(str, plain)))}. Expected {sorted(names)}")
        values = dict(plain)
        values["crop"] = crop_rule(values["crop"])
        if values["training_crop"] is not None:
            values["training_crop"] = crop_rule(values["training_crop"])
        try:
            values["references"] = References(**values["references"])
            height, width = map(operator.index, values["size_hw"])
            return cls(**{**values, "size_hw": (height, width), "inputs": tuple(values["inputs"])})
        except TypeError as error:
            raise ValueError(
                f"a recipe has the values {dict(plain)!r:.300}: {error}. Expected those of `Recipe.plain`. Was it "
                "written by another version?"
            ) from error

    def plain(self) -> dict[str, Any]:
        """Its fields as values that JSON and YAML can hold."""
        values = ((field, getattr(self, field.name)) for field in fields(self))
        whole: dict[str, Any] = {
            **{field.name: value for field, value in values if field.name not in _LATER or value != field.default},
            "crop": _plain(self.crop),
            "training_crop": None if self.training_crop is None else _plain(self.training_crop),
            "references": asdict(self.references),
        }
        return dict(json.loads(json.dumps(whole)))

    def key(self) -> str:
        """Canonical JSON: equal for recipes that feed alike."""
        return json.dumps(self.plain(), sort_keys=True)

    @cached_property
    def digest(self) -> str:
        """The first 12 hex digits of the SHA-256 of `key`."""
        return _digest(self.key())

    def text(self) -> str:
        """One line for rows: "s3fd+0,10,0,0~5 96x96 / same / reflect / box"."""
        height, width = self.size_hw
        paste = self.paste if self.enhance == "none" else f"{self.paste}+{self.enhance}"
        parts = [f"{self.crop.text()} {width}x{height}", self.references.text(), self.mel_padding, paste]
        return " / ".join([*parts, *self.inputs])

    @property
    def fed_crop(self) -> CropRule:
        """How faces of training data are cut."""
        return self.crop if self.training_crop is None else self.training_crop

    def track_key(self) -> str:
        """Canonical JSON of what decides how faces of training data look: recipes that agree in it share a track."""
        whole = {"crop": _plain(self.fed_crop), "size_hw": list(self.size_hw), "resize": self.resize}
        return json.dumps(whole, sort_keys=True)

    @cached_property
    def track_digest(self) -> str:
        """The first 12 hex digits of the SHA-256 of `track_key`."""
        return _digest(self.track_key())

    def needs(self) -> frozenset[str]:
        """The geometry that its crop rules, references and enhancement read beyond the Face Mesh."""
        points = self.enhance != "none" or self.references.kind == "stabilised"
        return self.crop.needs | self.fed_crop.needs | (frozenset({"landmarks"}) if points else frozenset())

    def departures(self, published: "Recipe") -> str:
        """In what it differs from a published one: "crop: mesh (published: s3fd+0,10,0,0~5)"; empty if in nothing."""
        pairs = {
            "crop": (self.crop.text(), published.crop.text()),
            "training_crop": (self.fed_crop.text(), published.fed_crop.text()),
            "references": (self.references.text(), published.references.text()),
            **{
                name: (getattr(self, name), getattr(published, name))
                for name in ("size_hw", "resize", "mel_padding", "inputs", "paste", "enhance")
            },
        }
        different = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        if "crop" in different and different["crop"][0] == different.get("training_crop", ("",))[0]:
            del different["training_crop"]  # one change, said once
        return "; ".join(f"{name}: {own} (published: {theirs})" for name, (own, theirs) in different.items())

    def resized(self, size_hw: tuple[int, int]) -> "Recipe":
        """The same for faces of another size."""
        return replace(self, size_hw=size_hw)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
