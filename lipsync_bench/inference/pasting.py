# SPDX-License-Identifier: Apache-2.0
"""How generated faces are pasted into their frames, by the names in `Recipe.paste`."""

import numpy as np

from lipsync_bench.datamodules.faces.crop_rules.boxes import as_box
from lipsync_bench.datamodules.faces.crop_rules.g4g import LandmarkCut
from lipsync_bench.datamodules.faces.crop_rules.rule import Cut
from lipsync_bench.datamodules.recipes.recipe import Recipe
from lipsync_bench.datamodules.weights.store import Store
from lipsync_bench.inference.blending import Blend, blend
from lipsync_bench.inference.face_mask import FaceMaskPaste, parser_in
from lipsync_bench.inference.parsed_paste import make_parsed_paste
from lipsync_bench.models.core.session import PasteFace, face_bytes

__all__ = ["BlendPaste", "MaskPaste", "WholeCutPaste", "make_paste"]


class WholeCutPaste(PasteFace):
    """The whole cut as the crop rule pastes it: boxes with hard edges, as the official scripts do; quads with soft
    ones.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, frame: np.ndarray, cut: Cut, generated: np.ndarray, contour: np.ndarray) -> np.ndarray:
        """A changed copy of the frame; arguments as `PasteFace`."""
        return cut.paste(frame, face_bytes(generated))


class BlendPaste(PasteFace):
    """The lower face inside the mesh's contour, with a soft edge."""

    def __init__(self, name: Blend) -> None:
        self.name: str = name
        self._how = name

    def __call__(self, frame: np.ndarray, cut: Cut, generated: np.ndarray, contour: np.ndarray) -> np.ndarray:
        """A changed copy of the frame; arguments as `PasteFace`."""
        return blend(frame, generated, np.array(as_box(cut, "a paste of rectangles").box), contour, self._how)


class MaskPaste(PasteFace):
    """Through the face mask of the crop rule g4g."""

    name = "mask"

    def __call__(self, frame: np.ndarray, cut: Cut, generated: np.ndarray, contour: np.ndarray) -> np.ndarray:
        """A changed copy of the frame; arguments as `PasteFace`."""
        assert isinstance(cut, LandmarkCut), "a recipe has this paste with this rule alone"
        return cut.blend(frame, face_bytes(generated))


def make_paste(recipe: Recipe, store: Store, device: str = "cpu") -> PasteFace:
    """The paste of a recipe.

    The face parser's weights are looked for in the store; without them the mask is the contour of the Face Mesh, and
    the name says so.

    Raises:
        ValueError: As `load_face_parser`, `make_parsed_paste`.
    """
    name = recipe.paste
    if name in ("box", "quad"):
        return WholeCutPaste(name)
    if name == "mask":
        return MaskPaste()
    if name in ("feather", "laplacian"):
        return BlendPaste(name)
    if name == "parser_pyramid":
        return make_parsed_paste(store, device)
    return FaceMaskPaste(parser_in(store), device, released=name == "parser_released")
