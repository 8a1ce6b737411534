# SPDX-License-Identifier: Apache-2.0
"""The dubbing of one video by G4G: five fixed references, their landmarks, frames to and fro."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from lipsync_bench.models.core.session import CropSession
from lipsync_bench.models.g4g.landmarks import INPUTS, Landmarks, draw_landmarks, draw_mask, points_in_face

__all__ = ["G4GSession"]


class G4GSession(CropSession):
    """Makes the landmark image and the face mask that a recipe asks for."""

    ping_pong = True
    inputs = tuple(name for names in INPUTS.values() for name in names)

    def extras(self, places: Sequence[int]) -> Mapping[str, Tensor]:
        return {name: self._drawn_images(name, places) for name in self._recipe.inputs}

    def _drawn_images(self, name: str, places: Sequence[int]) -> Tensor:
        """float32 (T,1,H,W) in [0, 1]."""
        kind: Landmarks = next(kind for kind, names in INPUTS.items() if name in names)
        draw = draw_landmarks if name == INPUTS[kind][0] else draw_mask
        rule = self._recipe.references
        shown = places if kind != "reference" or rule.kind == "same" else self._chosen(rule)[:1]
        images = [draw(self._points(place), self._recipe.size_hw, kind) for place in shown]
        stacked = torch.from_numpy(np.stack(images))[:, None].float().div_(255)
        return stacked.expand(len(places), -1, -1, -1)

    def _points(self, place: int) -> np.ndarray:
        landmarks, cut = self._video.geometry.landmarks, self._cuts[place]
        if landmarks is None or cut is None:
            raise ValueError(
                "no 68 points of this face. Expected them for the landmark image: bench prepare finds them; or cut the "
                "faces by a rule that needs them (--recipe.crop g4g)"
            )
        return points_in_face(cut, landmarks[place], self._recipe.size_hw)
