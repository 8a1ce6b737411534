# SPDX-License-Identifier: Apache-2.0
"""Draws docs/images/crop_rules.jpg: where each crop rule cuts one photograph, and what it cuts out.

    python -m benchmarks.draw_crop_rules

The photograph is NASA's portrait of astronaut Eileen Collins (public domain), as scikit-image ships it. It must not
suggest that NASA or the astronaut endorses anything.
"""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage.data import astronaut

from lipsync_bench.datamodules.faces.crop_rules.atvg import ATVGSquare
from lipsync_bench.datamodules.faces.crop_rules.boxes import BoxCut, DetectorBox, FaceMeshBox
from lipsync_bench.datamodules.faces.crop_rules.ffhq import FFHQQuad, QuadCut
from lipsync_bench.datamodules.faces.crop_rules.rule import CropRule, Cut
from lipsync_bench.datamodules.faces.crops import geometry_of
from lipsync_bench.datamodules.faces.detectors import dlib_rectangle
from lipsync_bench.datamodules.faces.tracking import FaceTracker

PICTURE = Path(__file__).parent.parent / "docs" / "images" / "crop_rules.jpg"
RULES: dict[CropRule, str] = {
    FaceMeshBox(): "#ffd400",
    DetectorBox("dlib", (0, 10, 0, 0)): "#56c8ff",
    FFHQQuad(): "#ff5050",
    ATVGSquare(): "#f07cff",
}
_LEFT, _SIDE, _SCALE = 60, 300, 2  # of the part of the photograph that is shown, from its upper edge on
_CROP, _GAP, _LINE = 270, 8, 22

__all__: list[str] = []


def _cuts(frame: np.ndarray) -> list[Cut]:
    with FaceTracker("mediapipe") as tracker:
        tracker.add(frame)
        geometry = geometry_of(tracker.finish(), tracker.size_hw)
    rectangle = dlib_rectangle(frame)
    if rectangle is None:
        raise RuntimeError("dlib finds no face in the photograph")
    geometry = replace(geometry, boxes={**geometry.boxes, "dlib": rectangle[None]})
    return [cut for rule in RULES for cut in rule.cuts(geometry) if cut is not None]


def _outline(cut: Cut) -> list[tuple[float, float]]:
    if isinstance(cut, QuadCut):
        return [(x, y) for x, y in cut.corners]
    assert isinstance(cut, BoxCut)
    x1, y1, x2, y2 = cut.box
    return [(x1, y1), (x1, y2), (x2, y2), (x2, y1)]


def draw() -> Image.Image:
    """The frame with all outlines, beside it the faces as a network sees them, with the rules' names."""
    frame = np.ascontiguousarray(astronaut())
    cuts, cell = _cuts(frame), (_CROP + _GAP, _CROP + _GAP + _LINE)
    left = _SIDE * _SCALE + _GAP
    shown = cv2.resize(frame[:_SIDE, _LEFT : _LEFT + _SIDE], (_SIDE * _SCALE,) * 2, interpolation=cv2.INTER_CUBIC)
    sheet = Image.new("RGB", (left + 2 * cell[0] - _GAP, 2 * cell[1] - _GAP), "white")
    picture = Image.fromarray(shown)
    font, pen = ImageFont.load_default(16), ImageDraw.Draw(picture)
    for cut, colour in zip(cuts, RULES.values(), strict=True):
        points = [((x - _LEFT) * _SCALE, y * _SCALE) for x, y in _outline(cut)]
        pen.line([*points, points[0], points[1]], fill=colour, width=4, joint="curve")
    sheet.paste(picture, (0, 0))
    pen = ImageDraw.Draw(sheet)
    for number, (cut, (rule, colour)) in enumerate(zip(cuts, RULES.items(), strict=True)):
        x, y = left + number % 2 * cell[0], number // 2 * cell[1]
        sheet.paste(Image.fromarray(cut.face(frame, (_CROP, _CROP))), (x, y + _LINE))
        pen.rectangle((x, y, x + _CROP - 1, y + _LINE - 1), fill=colour)
        pen.text((x + 6, y + 1), rule.text(), fill="black", font=font)
    return sheet


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    draw().save(PICTURE, quality=85, optimize=True)
