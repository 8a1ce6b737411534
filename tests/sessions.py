# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for methods and videos, to test sessions without networks and detectors."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from lipsync_bench.datamodules.faces.crop_rules.boxes import FaceMeshBox
from lipsync_bench.datamodules.faces.geometry import Geometry
from lipsync_bench.datamodules.media.audio import frame_mels
from lipsync_bench.datamodules.recipes.recipe import Recipe, References
from lipsync_bench.datamodules.recipes.values import ReferenceKind
from lipsync_bench.datamodules.weights.store import Store
from lipsync_bench.inference.pasting import make_paste
from lipsync_bench.models.core.inputs import FaceInputs, Generated
from lipsync_bench.models.core.session import CropSession, PasteFace, Video

SIZE_PX = 32


def recipe_of(references: ReferenceKind = "same", paste: str = "box", count: int = 1) -> Recipe:
    """The box around the Face Mesh, 32 px."""
    return Recipe(FaceMeshBox(), (SIZE_PX, SIZE_PX), references=References(references, count), paste=paste)  # type: ignore[arg-type]


class StandIn:
    """A method that makes frames by a function of its inputs."""

    def __init__(self, make: Callable[[FaceInputs], torch.Tensor]) -> None:
        self._make = make

    def generate(self, inputs: FaceInputs) -> Generated:
        """As `TalkingFaceModule.generate`."""
        return Generated.of(self._make(inputs))

    def find_networks(self, store: Store) -> None:
        """As `TalkingFaceModule.find_networks`."""

    def session(self, video: Video, recipe: Recipe, paste: PasteFace) -> CropSession:
        """As `TalkingFaceModule.session`."""
        return CropSession(self, video, recipe, paste)  # type: ignore[arg-type]


def geometry_with(boxes: np.ndarray, size_hw: tuple[int, int], hidden: Sequence[int] = ()) -> Geometry:
    """A face whose crops by the rule `mesh` are `boxes` (T, 4), hidden in some frames."""
    visible = np.ones(len(boxes), bool)
    visible[list(hidden)] = False
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    contours = low + np.random.default_rng(0).uniform(0, 1, (len(boxes), 30, 2)) * (high - low)
    whole = boxes.astype(np.float32)
    return Geometry(size_hw, visible, whole, contours.astype(np.float32), boxes={"s3fd": whole}, mesh_crops=whole)


def video_of(
    frames: Sequence[np.ndarray],
    boxes: np.ndarray,
    mel: np.ndarray,
    fps: float = 25.0,
    hidden: Sequence[int] = (),
) -> Video:
    """A video of these frames, uint8 RGB (H, W, 3)."""

    def again() -> Iterator[np.ndarray]:
        return iter(frames)

    geometry = geometry_with(boxes, frames[0].shape[:2], hidden)  # type: ignore[arg-type]
    return Video(geometry, lambda first, count: frame_mels(mel, count, fps, first), again)


def session_of(module: object, video: Video, recipe: Recipe) -> CropSession:
    """The session that evaluation and dubbing make."""
    return CropSession(module, video, recipe, make_paste(recipe, Store()))  # type: ignore[arg-type]
