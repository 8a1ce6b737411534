# SPDX-License-Identifier: Apache-2.0
"""Where a further detector sees the face that a clip shows."""

from pathlib import Path
from types import TracebackType

import numpy as np

from lipsync_bench.datamodules.errors import FaceError
from lipsync_bench.datamodules.faces.detectors import iou, make_detector
from lipsync_bench.datamodules.faces.geometry import runs
from lipsync_bench.datamodules.faces.options import DetectorName
from lipsync_bench.datamodules.faces.tracking import fill

_LEAST_IOU = 0.1  # with the tight box of the Face Mesh; a detector's own have 0.5 and more, those of a neighbour less

__all__ = ["BoxSearch"]


class BoxSearch:
    """Takes the frames of a clip's video one by one and returns a detector's boxes of the clip's face.

    Of several faces it takes the one that overlaps the clip's own best in that frame. Differs: the published scripts
    take the first, which has the highest score, so that the boxes jump where two faces are in the picture; with one
    face it is the same box.

    Args:
        name: The detector.
        weights: Weight file of `s3fd`.
    """

    def __init__(self, name: DetectorName, weights: Path | None = None) -> None:
        self._detector = make_detector(name, weights, landmarks=False)
        self._found: list[list[np.ndarray]] = []

    def __enter__(self) -> "BoxSearch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._detector.close()

    def add(self, frame: np.ndarray) -> None:
        """Add the next frame, uint8 RGB (H, W, 3)."""
        self._found.append(self._detector.boxes(frame))

    def finish(self, own: np.ndarray, max_gap_frames: int) -> tuple[np.ndarray, np.ndarray]:
        """The boxes, float32 (T, 4), and where the detector saw the face, bool (T,).

        Args:
            own: The clip's own boxes of the face, (T, 4).
            max_gap_frames: Most missed frames in a row that are bridged: linearly inside, held at both ends.

        Raises:
            FaceError: The detector does not see the face, or not in more than `max_gap_frames` in a row.
        """
        best = [
            max(boxes, key=lambda box: iou(box, face), default=None)
            for boxes, face in zip(self._found, own, strict=True)
        ]
        seen = np.array([box is not None and iou(box, face) >= _LEAST_IOU for box, face in zip(best, own, strict=True)])
        long = [(first, stop) for first, stop in runs(~seen) if stop - first > max_gap_frames or not seen.any()]
        if long:
            first, stop = long[0]
            raise FaceError(
                f"{self._detector.name} sees the clip's face in {int(seen.sum())} of {len(seen)} frames, in none of "
                f"{stop - first} from frame {first} on. Expected at most {max_gap_frames} in a row (--max-gap-frames); "
                "or cut the face by another rule (--recipe.crop mesh)"
            )
        values = np.stack([box for box, good in zip(best, seen, strict=True) if good and box is not None])
        return fill(values, np.flatnonzero(seen), len(seen)), seen
