# SPDX-License-Identifier: Apache-2.0
"""The dubbing of one video by the whole of VideoReTalking: the references are frames with a stabilised expression.

What must be seen of the whole video before its first frame are the 3DMM coefficients, 1 KB a frame; all else is made
chunk by chunk.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.faces.crop_rules.boxes import BoxCut
from lipsync_bench.datamodules.faces.crop_rules.ffhq_rectangle import FFHQRectangle
from lipsync_bench.datamodules.faces.detectors import landmarks68
from lipsync_bench.datamodules.recipes.recipe import Recipe
from lipsync_bench.models.core.module import TalkingFaceModule
from lipsync_bench.models.core.session import BATCH_FRAMES, CropSession, PasteFace, Video
from lipsync_bench.models.pretrained.face_coefficients import FaceCoefficients, regressed
from lipsync_bench.models.videoretalking.blending import Parse, Restore, five_points, paste_face
from lipsync_bench.models.videoretalking.dnet.coefficients import coefficient_window, scale_ratio
from lipsync_bench.models.videoretalking.dnet.network import DNet
from lipsync_bench.models.videoretalking.references import replaced

_DNET_FRAMES = 4  # through D-Net at once

__all__ = ["Stabiliser", "StabilisingSession"]


@dataclass(frozen=True)
class Stabiliser:
    """What gives the frames of a video one expression.

    Args:
        dnet: In evaluation mode, on its device.
        size_hw: Of its faces.
        regress: Of the 3DMM coefficients.
        regress_sha256: Of its weights.
        expression: (64,), of all frames.
        one_shot: Whether all frames are made of the first face, moved as the video's.
        parse, restore: Of the stabilised faces; None leaves their restoration out.
        left_out: Names of published steps that are left out, for want of their weights.
    """

    dnet: DNet
    size_hw: tuple[int, int]
    regress: FaceCoefficients
    regress_sha256: str
    expression: np.ndarray
    one_shot: bool = False
    parse: Parse | None = None
    restore: Restore | None = None
    left_out: tuple[str, ...] = ()

    @torch.inference_mode()
    def edited(self, faces: Sequence[np.ndarray], windows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Faces uint8 RGB with the expression and pose of windows (73, 26), uint8."""
        weight = next(self.dnet.parameters())
        made = []
        for first in range(0, len(faces), _DNET_FRAMES):
            part = slice(first, first + _DNET_FRAMES)
            images = torch.from_numpy(np.stack(faces[part])).permute(0, 3, 1, 2).to(weight) / 127.5 - 1
            image = self.dnet(images, torch.from_numpy(np.stack(windows[part])).to(weight))["fake_image"]
            finite = bool(image.isfinite().all())
            if not finite:
                raise MediaError(
                    "D-Net: a stabilised face has values that are not finite. Expected numbers between -1 and 1. Use "
                    "another checkpoint of D-Net, or leave out this clip"
                )
            made.append(((image.clamp(-1, 1) + 1) / 2 * 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())
        return [face for part in made for face in part]


def _extent(points: np.ndarray) -> np.ndarray:
    """left, top, right, bottom of points (68,2): about the rectangle of dlib's detector."""
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


class StabilisingSession(CropSession):
    """L-Net and E-Net are shown each frame itself, with another expression.

    Args:
        module, video, recipe, paste: As `CropSession`.
        stabiliser: What gives all frames one expression.

    Raises:
        ValueError: As `CropSession`; the geometry has no landmarks.
        MediaError: The video has fewer frames than its geometry.
    """

    def __init__(
        self, module: TalkingFaceModule, video: Video, recipe: Recipe, paste: PasteFace, stabiliser: Stabiliser
    ) -> None:
        super().__init__(module, video, recipe, paste)
        self.steps_left_out = stabiliser.left_out
        self._stabiliser = stabiliser
        geometry = video.geometry
        if not geometry.visible.any():
            return
        boxes = FFHQRectangle().boxes(geometry).astype(int)
        x1, y1, x2, y2 = boxes[0].tolist()
        self._rectangle = BoxCut((x1, y1, x2, y2))
        assert geometry.landmarks is not None
        self._points = self._rectangle.points(geometry.landmarks, stabiliser.size_hw)
        first = int(np.argmax(geometry.visible))
        last_seen = np.maximum.accumulate(np.where(geometry.visible, np.arange(len(geometry)), first))
        self._points = self._points[last_seen]  # as published: a frame without a face has the points of the last one
        height, width = stabiliser.size_hw
        self._rows = video.coefficients(f"{stabiliser.regress_sha256} {width}x{height}", self._regressed)
        self._source: tuple[np.ndarray, float] | None = None
        if stabiliser.one_shot:
            image = next(islice(video.frames(), first, None))
            self._source = self._rectangle.face(image, stabiliser.size_hw), scale_ratio(self._rows[first], self._rows)

    def _regressed(self) -> np.ndarray:
        """The coefficients of all frames, float32 (T,262)."""
        images, rows = self._video.frames(), []
        for first in range(0, len(self._points), BATCH_FRAMES):
            points = self._points[first : first + BATCH_FRAMES]
            faces = [self._rectangle.face(image, self._stabiliser.size_hw) for image in islice(images, len(points))]
            if len(faces) < len(points):
                raise MediaError(
                    f"the video has {first + len(faces)} frames and its geometry {len(self._points)}. Expected as "
                    "many. Prepare the clip again"
                )
            rows.append(regressed(self._stabiliser.regress, np.stack(faces), points))
        return np.concatenate(rows)

    def shown(self, places: Sequence[int], images: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        tool, expression = self._stabiliser, self._stabiliser.expression
        faces = [self._rectangle.face(image, tool.size_hw) for image in images]
        source, ratio = (faces, 1.0) if self._source is None else ([self._source[0]] * len(faces), self._source[1])
        windows = [coefficient_window(self._rows, place, ratio=ratio, expression=expression) for place in places]
        references = []
        for place, image, face, edited in zip(places, images, faces, tool.edited(source, windows), strict=True):
            cut = self._cuts[place]
            assert cut is not None
            whole = self._rectangle.paste(image, self._replaced(face, edited, _extent(self._points[place])))
            references.append(cut.face(whole, self._recipe.size_hw, self._recipe.resize))
        return references

    def _replaced(self, face: np.ndarray, edited: np.ndarray, extent: np.ndarray) -> np.ndarray:
        """A face with what is stabilised of it."""
        tool = self._stabiliser
        if tool.parse is not None and tool.restore is not None:
            points = five_points(landmarks68(edited, extent))
            face_px = float(min(extent[2:] - extent[:2]))
            edited = paste_face(edited, edited, points, tool.parse, restore=tool.restore, face_px=face_px)
        return replaced(face, edited, landmarks68(edited, extent))
