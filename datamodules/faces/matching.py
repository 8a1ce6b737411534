# SPDX-License-Identifier: Apache-2.0
"""Which faces of consecutive frames are of one person: by position and motion, appearance and identity.

Tracks that were found in the previous frame are matched first, so that a face that was lost in an occlusion cannot take
over the face that covers it. A face is the same if its appearance has not changed; where it has (a cut, another person
in front or behind, a gap in the track), dlib's embedding decides. If the embedding is unsure, it counts as the same
person in the same scene without another face close by; else the track ends. After a gap of up to `max_gap_frames` the
face must also be where its motion leads. If a face changes gradually into another (a dissolve, a wipe), each step looks
the same: a track whose appearance has changed is checked again at its end for being one person.
"""

from collections.abc import Callable, Sequence

import numpy as np

from lipsync_bench.datamodules.faces.detectors import Face, area, centre, iou
from lipsync_bench.datamodules.faces.identity import Identity, Sighting, similarity

_MIN_IOU = 0.1
_MAX_STEP = 1.0  # distance from the last position, in box sides, at which a face can still be the same
_MAX_GROWTH = 4.0  # ratio of areas above which it cannot be the same
_SPEED_FRAMES = 5
_MAX_STRAY, _STRAY_A_FRAME = 0.5, 0.05  # from the position predicted by motion, in box sides; more per missed frame

_ALIKE = 0.9  # correlation of appearances above which nothing has changed
_DRIFT = 0.6  # the same between now and the last face that was kept because the appearance had changed
_SURE, _OTHER = 0.36, 0.6  # embedding distances up to which two faces are one person, and from which two people (dlib)
_TWO_PEOPLE = 0.7  # distance within one track that means two people; of one person, at most 0.54 was measured
_MARGIN = 0.1  # of distance, by which one of two matching tracks must be nearer to a face
_SAME_SCENE = 0.8  # correlation of whole frames; over half a second of real clips it stayed above 0.84
_REFERENCE_FRAMES = 25  # between reference faces

__all__ = ["Track", "assign"]


def _side(box: np.ndarray) -> float:
    return max(area(box), 1e-9) ** 0.5


def _near(last: np.ndarray, box: np.ndarray) -> float:
    """Above 0 if `box` can follow `last` in a track; higher for overlapping boxes than for near ones."""
    sizes = area(last), area(box)
    if max(sizes) > _MAX_GROWTH * min(sizes):
        return 0.0
    overlap = iou(last, box)
    if overlap >= _MIN_IOU:
        return 1 + overlap
    step = float(np.linalg.norm(centre(last) - centre(box))) / max(*sizes, 1e-9) ** 0.5
    return max(0.0, 1 - step / _MAX_STEP)


class Track:
    """The frames in which one face was found.

    Args:
        number: Number of the first frame.
        sighting: The face in it.
        keep: Reduces a face to what is stored of it.
    """

    def __init__(self, number: int, sighting: Sighting, keep: Callable[[Face], Face]) -> None:
        self.frames: list[int] = []
        self.faces: list[Face] = []
        self.area = 0.0  # summed over the frames: mean area times length
        self.centre = np.zeros(2)  # summed
        self._keep = keep
        self._identity = Identity()
        self._anchor = sighting.appearance
        self._changed = False
        self.add(number, sighting)

    def add(self, number: int, sighting: Sighting) -> None:
        """Add the face in a later frame."""
        box = sighting.face.box
        self._identity.check_upright(sighting)
        if similarity(self._anchor, sighting.appearance) < _DRIFT:
            self._anchor = sighting.appearance
            self._changed = True
            self._identity.add(sighting)
        elif len(self.frames) % _REFERENCE_FRAMES == 0:
            self._identity.add(sighting)
        self.frames.append(number)
        self.faces.append(self._keep(sighting.face))
        self.area += area(box)
        self.centre += centre(box)
        self._last: Sighting | None = sighting
        self._box, self._appearance = box, sighting.appearance

    def lose(self) -> None:
        """The face was not found in the next frame: keep the last face as reference and release its frame."""
        if self._last is not None:
            self._identity.add(self._last)
            self._scene = self._last.scene
            self._last = None

    @property
    def upside_down(self) -> bool:
        """Whether the head is upside down."""
        return self._identity.upside_down

    def becomes_another_person(self) -> bool:
        """Whether the track begins with one person and gradually passes to another. Call it at the end of the track."""
        self.lose()
        return self._changed and self._identity.spread > _TWO_PEOPLE

    @property
    def mean_centre(self) -> np.ndarray:
        """Mean centre (x, y) of the boxes."""
        return self.centre / len(self.frames)

    def _expected(self, number: int) -> np.ndarray:
        """The box in a later frame, if the face moves on as in its last frames."""
        recent = [
            k for k in range(-min(_SPEED_FRAMES, len(self.frames)), 0) if self.frames[k] - k == self.frames[-1] + 1
        ]
        step = np.zeros(2)
        if len(recent) > 1:
            step = (centre(self._box) - centre(self.faces[recent[0]].box)) / (len(recent) - 1)
        ahead = number - self.frames[-1]
        return self._box + np.tile(step * ahead, 2)

    def fits(self, number: int, sighting: Sighting, max_gap_frames: int) -> float:
        """Above 0 if the face's position fits this track; higher at the expected position and for equal appearance."""
        box, missed = sighting.face.box, number - self.frames[-1] - 1
        near = _near(self._box, box)
        if missed > max_gap_frames:  # still tracked for an error that states the true gap, and for dubbing
            return near
        expected = self._expected(number)
        if missed == 0:
            near = max(near, _near(expected, box))
        else:
            stray = float(np.linalg.norm(centre(expected) - centre(box))) / _side(box)
            near = _near(expected, box) if stray <= min(_MAX_STEP, _MAX_STRAY + _STRAY_A_FRAME * missed) else 0.0
        return near and 1 + iou(expected, box) + similarity(self._appearance, sighting.appearance)

    def distance(self, sighting: Sighting) -> float:
        """Embedding distance from the nearest reference face of this track."""
        nearest = self._identity.distance(sighting)
        if self._last is not None:
            nearest = min(nearest, float(np.linalg.norm(self._last.embedding - sighting.embedding)))
        return nearest

    def is_same(self, sighting: Sighting, others: Sequence["Track"]) -> bool:
        """Whether the face can be this person's.

        Args:
            others: The other tracks that were found at least as recently as this one.
        """
        appearance = sighting.appearance
        if similarity(self._appearance, appearance) >= _ALIKE and similarity(self._anchor, appearance) >= _DRIFT:
            return True
        distance = self.distance(sighting)
        if _SURE < distance < _OTHER:
            scene = self._scene if self._last is None else self._last.scene
            box = sighting.face.box
            alone = not any(iou(other._box, self._box) > 0 or iou(other._box, box) > 0 for other in others)
            return alone and similarity(scene, sighting.scene) >= _SAME_SCENE
        return distance <= _SURE


def assign(
    tracks: Sequence[Track], number: int, sightings: Sequence[Sighting], max_gap_frames: int
) -> dict[int, Track]:
    """Assign the faces of a frame to tracks.

    Args:
        tracks: Tracks of the frames before.
        number: Number of the frame.
        sightings: The faces in it.
        max_gap_frames: Missed frames after which motion no longer predicts the position of a face.

    Returns:
        The track by index of the sighting. Faces that belong to no track are left out.
    """
    found: dict[int, Track] = {}

    def same(track: Track, sighting: Sighting) -> bool:
        return track.is_same(sighting, [t for t in tracks if t is not track and t.frames[-1] >= track.frames[-1]])

    live = [track for track in tracks if track.frames[-1] == number - 1]
    pairs = [(t.fits(number, s, max_gap_frames), i, k) for i, t in enumerate(live) for k, s in enumerate(sightings)]
    taken: set[int] = set()
    for fit, i, k in sorted(pairs, key=lambda pair: (-pair[0], pair[1:])):
        if fit > 0 and i not in taken and k not in found and same(live[i], sightings[k]):
            found[k] = live[i]
            taken.add(i)
    for track in live:
        if track not in found.values():
            track.lose()
    lost = [track for track in tracks if track not in live]
    for recent in (True, False):
        for k, sighting in enumerate(sightings):
            group = [
                t
                for t in lost
                if k not in found
                and (number - t.frames[-1] - 1 <= max_gap_frames) == recent
                and t not in found.values()
                and t.fits(number, sighting, max_gap_frames) > 0
                and same(t, sighting)
            ]
            if len(group) > 1:
                group.sort(key=lambda track: track.distance(sighting))
                if group[1].distance(sighting) - group[0].distance(sighting) < _MARGIN:
                    continue  # it could be either
            if group:
                found[k] = group[0]
    return found
