# SPDX-License-Identifier: Apache-2.0
"""VideoReTalking's paste: what ParseNet sees of the generated face, blended by Laplacian pyramids.

Facts of the released inference (models/videoretalking/blending.py).

Differs: the five points are those of dlib's 68 in the frame with the generated face, not RetinaFace's. Without
ParseNet's weights the face is blended inside the Face Mesh's contour; without GFPGAN's its mouth is not restored.
"""

from functools import partial

import numpy as np

from lipsync_bench.datamodules.faces.crop_rules.boxes import as_box
from lipsync_bench.datamodules.faces.crop_rules.rule import Cut
from lipsync_bench.datamodules.faces.detectors import landmarks68
from lipsync_bench.datamodules.faces.geometry import JAW_POINTS
from lipsync_bench.datamodules.weights.store import Store
from lipsync_bench.inference.blending import blend
from lipsync_bench.inference.enhancing import FaceEnhancer, make_enhancer
from lipsync_bench.models.core.session import PasteFace, face_bytes
from lipsync_bench.models.pretrained.parsenet import parse_aligned, shared_parsenet
from lipsync_bench.models.videoretalking.blending import Parse, blend_mouth, five_points, paste_face

_SIDE, _LOWER = 1.11, 0.1  # in widths of the contour; measured on videos of five people
_PARSING, _MOUTH = "face parsing", "restored mouth"

__all__ = ["ParsedPaste", "make_parsed_paste"]


def _rectangle(contour: np.ndarray) -> np.ndarray:
    """left, top, right, bottom: about where dlib's frontal detector would see the face, from the mesh's contour."""
    left, right = contour[:, 0].min(), contour[:, 0].max()
    x, y = (left + right) / 2, contour[JAW_POINTS:, 1].mean() + _LOWER * (right - left)
    half = _SIDE * (right - left) / 2
    return np.array([x - half, y - half, x + half, y + half])


class ParsedPaste(PasteFace):
    """Pastes faces through the mask of ParseNet.

    Args:
        parse: ParseNet, or None for the mesh's contour.
        enhancer: GFPGAN, whose mouth is taken, or None.
        name: Of the parser's weights, in rows.
    """

    def __init__(self, parse: Parse | None = None, enhancer: FaceEnhancer | None = None, name: str = "") -> None:
        self._parse, self._enhancer = parse, enhancer if parse is not None else None
        self.name = "contour laplacian" if parse is None else f"parsenet{name}"
        if self._enhancer is not None:
            self.name += f"+mouth {self._enhancer.name}"
        self.left_out = (*((_PARSING,) if parse is None else ()), *((_MOUTH,) if self._enhancer is None else ()))

    def __call__(self, frame: np.ndarray, cut: Cut, generated: np.ndarray, contour: np.ndarray) -> np.ndarray:
        """A changed copy of the frame; arguments as `PasteFace`.

        Raises:
            ValueError: The cut is no rectangle.
        """
        box = as_box(cut, "VideoReTalking's paste")
        if self._parse is None:
            return blend(frame, generated, np.array(box.box), contour, "laplacian")
        image = cut.paste(frame, face_bytes(generated))
        rectangle = _rectangle(contour)
        points = landmarks68(image, rectangle)
        if self._enhancer is not None:
            (restored,), _ = self._enhancer.enhance([image], points[None])
            image = blend_mouth(image, restored, box, self._parse)
            points = landmarks68(image, rectangle)
        return paste_face(frame, image, five_points(points), self._parse, cut=box)


def make_parsed_paste(store: Store, device: str = "cpu") -> ParsedPaste:
    """The paste with the weights of the store.

    Raises:
        ValueError: As `load_parsenet`, `load_gfpgan`.
    """
    found = store.find("parsenet")
    if found is None:
        return ParsedPaste()
    parse = partial(parse_aligned, shared_parsenet(found.path, found.sha256, device))
    enhancer = None if store.find("gfpgan_1_3") is None else make_enhancer(store, device)
    return ParsedPaste(parse, enhancer, "" if found.official else f" {found.sha256[:12]}")
