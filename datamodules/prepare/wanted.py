# SPDX-License-Identifier: Apache-2.0
"""What a run of the preparation puts beside each clip."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lipsync_bench.datamodules.faces.detectors import DETECTORS, detector_version, make_detector
from lipsync_bench.datamodules.faces.options import DetectorName
from lipsync_bench.datamodules.recipes.recipe import Recipe, crop_rule
from lipsync_bench.datamodules.recipes.values import Codec
from lipsync_bench.datamodules.weights.store import Store

__all__ = ["Wanted", "cut_text", "detectors"]


@dataclass(frozen=True)
class Wanted:
    """What a run puts beside each clip.

    Args:
        recipes: Their tracks; those that agree in `track_digest` share one.
        boxes: Detectors whose boxes are added, with those that the recipes need.
        codec: Of the tracks.
        weights: Weight file of `s3fd`, where its boxes are wanted.
    """

    recipes: tuple[Recipe, ...] = ()
    boxes: tuple[DetectorName, ...] = ()
    codec: Codec = "jpeg"
    weights: Path | None = None

    @classmethod
    def of(cls, recipes: Sequence[Recipe], boxes: Sequence[str], codec: Codec, store: Store) -> "Wanted":
        """With the boxes that the recipes need, and their weights.

        Raises:
            FileNotFoundError: The weights of a detector are not here; says how to come by them, or without.
            ValueError: They are another file.
        """
        needed = {name for recipe in recipes for name in detectors(recipe.needs())}
        names: list[DetectorName] = [name for name in DETECTORS if name in needed or name in boxes]  # type: ignore[misc]
        weights = None
        if "s3fd" in names:
            try:
                weights = store.need("s3fd").path
            except FileNotFoundError as error:
                if "s3fd" in boxes:
                    raise
                raise FileNotFoundError(f"{error}; or cut the faces without s3fd: --recipe.crop mesh") from error
            make_detector("s3fd", weights).close()  # a wrong file is one error, not one a clip
        return cls(tuple(recipes), tuple(names), codec, weights)

    @property
    def tracks(self) -> dict[str, Recipe]:
        """The recipes by `track_digest`, one of those that share it."""
        return {recipe.track_digest: recipe for recipe in self.recipes}

    @property
    def parts(self) -> dict[str, str]:
        """The names of all parts, and what they are in words."""
        boxes = {f"boxes {name}": f"boxes of {name}" for name in self.boxes}
        return {
            **boxes,
            **{f"track {digest}": f"tracks {cut_text(recipe.track_key())}" for digest, recipe in self.tracks.items()},
        }

    def version(self, detector: DetectorName) -> str:
        """The present version of a detector."""
        return detector_version(detector, self.weights if detector == "s3fd" else None)

    def plain(self) -> dict[str, Any]:
        """For the manifest."""
        texts: dict[str, list[str]] = {digest: [] for digest in self.tracks}
        for recipe in self.recipes:
            texts[recipe.track_digest].append(recipe.text())
        return {"recipes": texts, "boxes": {name: self.version(name) for name in self.boxes}, "codec": self.codec}


def detectors(needs: Iterable[str]) -> list[DetectorName]:
    """The detectors whose boxes are among what a crop rule needs."""
    return [name for name in DETECTORS if f"boxes:{name}" in needs]  # type: ignore[misc]


def cut_text(track_key: str) -> str:
    """How a track's faces are cut, from `Recipe.track_key()`: "s3fd+0,10,0,0 96x96"."""
    try:
        values = json.loads(track_key)
        (height, width), resize = values["size_hw"], values["resize"]
        return f"{crop_rule(values['crop']).text()} {width}x{height}{'' if resize == 'bilinear' else f' {resize}'}"
    except (ValueError, TypeError, KeyError):
        return track_key  # of another version
