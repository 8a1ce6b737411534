# SPDX-License-Identifier: Apache-2.0
"""Which faces of consecutive frames are one person's: by place and motion, look and identity.

A face that was there on the frame before has the first choice, so that no face that was lost in passing takes over the
one that hides it. A face is the same if its look has not changed; where it has (a cut, another person before or behind,
a hole in the track), dlib's embedding decides. Where that is unsure, the same scene without another face close by
speaks for the same person; else the track ends. After a hole of up to `max_gap_frames` the face must be where its
motion leads to as well. Where a face becomes another one little by little (a dissolve, a wipe), each step looks the
same: a track whose look has changed is asked once more at its end whether it is one person's.
"""

from collections.abc import Callable, Sequence

import numpy as np

from lipsync_bench.datamodules.faces.detectors import Face, area, centre, iou
from lipsync_bench.datamodules.faces.identity import Identity, Sighting, alike

_MIN_IOU = 0.1
_MAX_STEP = 1.0  # distance from the last position, in box sides, at which a face can still be the same
_MAX_GROWTH = 4.0  # ratio of areas at which it cannot
_SPEED_FRAMES = 5
_MAX_STRAY, _STRAY_A_FRAME = 0.5, 0.05  # from the place that the motion leads to, in box sides, and more a missed frame

_ALIKE = 0.9  # correlation of looks above which nothing has changed
_DRIFT = 0.6  # the same between now and the last face whose identity was looked at
_SURE, _OTHER = 0.36, 0.6  # distances up to which two faces are one person's, and from which they are two's (dlib's)
_TWO_PEOPLE = 0.7  # distance within one track; of one person, up to 0.54 was seen
_MARGIN = 0.1  # of distance, by which one of two tracks must be nearer to a face that both could take
_SAME_SCENE = 0.8  # correlation of whole frames; over half a second of real clips it stayed above 0.84
_REFERENCE_FRAMES = 25  # between the faces that are kept for comparison

__all__ = ["Track", "assign"]


def _side(box: np.ndarray) -> float:
    return max(area(box), 1e-9) ** 0.5


def _near(last: np.ndarray, box: np.ndarray) -> float:
    """Above 0 if a box can be the next after another; overlapping boxes come before near ones."""
    sizes = area(last), area(box)
    if max(sizes) > _MAX_GROWTH * min(sizes):
        return 0.0
    overlap = iou(last, box)
    if overlap >= _MIN_IOU:
        return 1 + overlap
    step = float(np.linalg.norm(centre(last) - centre(box))) / max(*sizes, 1e-9) ** 0.5
    return max(0.0, 1 - step / _MAX_STEP)


class Track:
    """The frames on which one face was seen.

    Args:
        number: Of the first frame.
        sighting: The face there.
        keep: What of a face is kept.
    """

    def __init__(self, number: int, sighting: Sighting, keep: Callable[[Face], Face]) -> None:
        self.frames: list[int] = []
        self.faces: list[Face] = []
        self.area = 0.0  # summed over the frames: mean area times length
        self.centre = np.zeros(2)  # summed
        self._keep = keep
        self._identity = Identity()
        self._anchor = sighting.look
        self._changed = False
        self.add(number, sighting)

    def add(self, number: int, sighting: Sighting) -> None:
        """The face on the next frame that it is seen on."""
        box = sighting.face.box
        self._identity.look_upright(sighting)
        if alike(self._anchor, sighting.look) < _DRIFT:
            self._anchor = sighting.look
            self._changed = True
            self._identity.add(sighting)
        elif len(self.frames) % _REFERENCE_FRAMES == 0:
            self._identity.add(sighting)
        self.frames.append(number)
        self.faces.append(self._keep(sighting.face))
        self.area += area(box)
        self.centre += centre(box)
        self._last: Sighting | None = sighting
        self._box, self._look = box, sighting.look

    def lose(self) -> None:
        """The face is not on the next frame: the last one is kept for comparison, its frame is let go."""
        if self._last is not None:
            self._identity.add(self._last)
            self._scene = self._last.scene
            self._last = None

    @property
    def upside_down(self) -> bool:
        """Whether the head is."""
        return self._identity.upside_down

    def ends_as_another(self) -> bool:
        """Whether the face has become another person's little by little. The track is over then."""
        self.lose()
        return self._changed and self._identity.spread > _TWO_PEOPLE

    @property
    def mean_centre(self) -> np.ndarray:
        """Of the boxes: (x, y)."""
        return self.centre / len(self.frames)

    def _expected(self, number: int) -> np.ndarray:
        """The box on a later frame, if the face goes on as in its last frames."""
        recent = [
            k for k in range(-min(_SPEED_FRAMES, len(self.frames)), 0) if self.frames[k] - k == self.frames[-1] + 1
        ]
        step = np.zeros(2)
        if len(recent) > 1:
            step = (centre(self._box) - centre(self.faces[recent[0]].box)) / (len(recent) - 1)
        ahead = number - self.frames[-1]
        return self._box + np.tile(step * ahead, 2)

    def fits(self, number: int, sighting: Sighting, max_gap_frames: int) -> float:
        """Above 0 if the face is where this one can be; more for one where it is expected and that looks the same."""
        box, missed = sighting.face.box, number - self.frames[-1] - 1
        near = _near(self._box, box)
        if missed > max_gap_frames:  # kept on for an error that tells the true gap, and for dubbing
            return near
        expected = self._expected(number)
        if missed == 0:
            near = max(near, _near(expected, box))
        else:
            stray = float(np.linalg.norm(centre(expected) - centre(box))) / _side(box)
            near = _near(expected, box) if stray <= min(_MAX_STEP, _MAX_STRAY + _STRAY_A_FRAME * missed) else 0.0
        return near and 1 + iou(expected, box) + alike(self._look, sighting.look)

    def distance(self, sighting: Sighting) -> float:
        """By the embedding, from the nearest face that was kept of this one."""
        nearest = self._identity.distance(sighting)
        if self._last is not None:
            nearest = min(nearest, float(np.linalg.norm(self._last.embedding - sighting.embedding)))
        return nearest

    def is_same(self, sighting: Sighting, others: Sequence["Track"]) -> bool:
        """Whether the face can be this person's.

        Args:
            others: The other tracks that were seen as late as this one.
        """
        if alike(self._look, sighting.look) >= _ALIKE and alike(self._anchor, sighting.look) >= _DRIFT:
            return True
        distance = self.distance(sighting)
        if _SURE < distance < _OTHER:
            scene = self._scene if self._last is None else self._last.scene
            box = sighting.face.box
            alone = not any(iou(other._box, self._box) > 0 or iou(other._box, box) > 0 for other in others)
            return alone and alike(scene, sighting.scene) >= _SAME_SCENE
        return distance <= _SURE


def assign(
    tracks: Sequence[Track], number: int, sightings: Sequence[Sighting], max_gap_frames: int
) -> dict[int, Track]:
    """Whose faces those of a frame are.

    Args:
        tracks: Of the frames before.
        number: Of the frame.
        sightings: Its faces.
        max_gap_frames: Missed frames after which the place of a face can no longer be told from its motion.

    Returns:
        Track by index of the sighting. Those that are no known person's are left out.
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
                    continue  # either's
            if group:
                found[k] = group[0]
    return found
