# SPDX-License-Identifier: Apache-2.0
"""Which of a detector's boxes are the clip's face."""

from collections.abc import Sequence

import numpy as np
import pytest

from lipsync_bench.datamodules.errors import FaceError
from lipsync_bench.datamodules.faces.detectors import DETECTORS, Face, FaceDetector
from lipsync_bench.datamodules.prepare.find_boxes import BoxSearch

OWN = np.array([[100, 100, 200, 220]] * 8, np.float32)
RIGHT, OTHER, NEIGHBOUR = (90.0, 60.0, 210.0, 230.0), (300.0, 90.0, 420.0, 230.0), (190.0, 90.0, 310.0, 230.0)


def search(monkeypatch: pytest.MonkeyPatch, boxes: Sequence[Sequence[tuple[float, ...]]], gap: int = 12) -> tuple:
    class Fake(FaceDetector):
        name, version = "dlib", "0"

        def __init__(self, *, landmarks: bool) -> None:
            self._boxes = iter(boxes)

        def detect(self, frame: np.ndarray) -> list[Face]:
            raise NotImplementedError

        def boxes(self, frame: np.ndarray) -> list[np.ndarray]:
            return [np.array(box, np.float32) for box in next(self._boxes)]

        def close(self) -> None: ...

    monkeypatch.setitem(DETECTORS, "dlib", Fake)
    with BoxSearch("dlib") as found:
        for _ in boxes:
            found.add(np.zeros((1, 1, 3), np.uint8))
    return found.finish(OWN, gap)


def test_of_several_faces_it_is_the_clip_s(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, seen = search(monkeypatch, [[OTHER, RIGHT], [NEIGHBOUR, RIGHT, OTHER], *[[RIGHT]] * 6])
    assert seen.all()
    assert (boxes.dtype, seen.dtype) == (np.float32, bool)
    np.testing.assert_array_equal(boxes, [RIGHT] * 8)


def test_gaps_are_bridged(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = tuple(value + 40 for value in RIGHT)
    boxes, seen = search(monkeypatch, [[], [RIGHT], [], [OTHER], [NEIGHBOUR], [moved], [moved], []])
    np.testing.assert_array_equal(seen, [False, True, False, False, False, True, True, False])
    np.testing.assert_array_equal(boxes[:, 0], [90, 90, 100, 110, 120, 130, 130, 130])


@pytest.mark.parametrize(
    ("boxes", "found"),
    [
        ([[OTHER]] * 8, "sees the clip's face in 0 of 8 frames, in none of 8 from frame 0 on"),
        ([[RIGHT], [RIGHT], [], [], [], [RIGHT], [RIGHT], [RIGHT]], "in 5 of 8 frames, in none of 3 from frame 2 on"),
    ],
)
def test_faces_that_are_not_seen_for_long(monkeypatch: pytest.MonkeyPatch, boxes: list, found: str) -> None:
    with pytest.raises(
        FaceError, match=rf"dlib .*{found}\. Expected at most 2 .*--max-gap-frames.*--recipe\.crop mesh"
    ):
        search(monkeypatch, boxes, 2)
