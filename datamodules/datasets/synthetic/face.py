# SPDX-License-Identifier: Apache-2.0
"""Renders a talking head from the photograph: lips and jaw by displacement fields, the mouth's inside behind them,
then head motion."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from lipsync_bench.datamodules.datasets.synthetic.person import Person
from lipsync_bench.datamodules.datasets.synthetic.photograph import (
    MOUTH_CENTRE,
    MOUTH_HALF_WIDTH,
    ORIGIN,
    SCALE,
    mouth_line,
    smoothstep,
)
from lipsync_bench.datamodules.datasets.synthetic.portrait import Portrait, make_portrait

__all__ = ["FRAME_PX", "GAP_PX", "DrawnFace", "Pose"]

FRAME_PX = 256
ZOOM = 1.17  # frame pixels per photograph pixel: the face is about half as high as the frame
VIEW_CENTRE = (225.0, 118.5)  # photograph pixel in the middle of the frame
NECK = (222.0, 190.0)  # the head turns about this point
GAP_PX = 16.0  # distance of the inner lips at opening 1, photograph pixels
CHIN_PX = 11.0  # the chin's way at jaw 1

# The part of the picture that moves when the mouth does: left, top, width, height in photograph pixels.
_LEFT, _TOP, _WIDTH, _HEIGHT = 164, 112, 120, 114


@dataclass(frozen=True)
class Pose:
    """Head motion of T frames: shift_px (T, 2) in frame pixels, everything else (T,).

    Yaw and pitch are fractions of a small turn, about -1..1; blink is 0 with open and 1 with closed eyes.
    """

    shift_px: np.ndarray
    roll_rad: np.ndarray
    scale: np.ndarray
    yaw: np.ndarray
    pitch: np.ndarray
    blink: np.ndarray

    @staticmethod
    def still(frames: int) -> "Pose":
        """A head that does not move."""
        roll, yaw, pitch, blink = np.zeros((4, frames))
        return Pose(np.zeros((frames, 2)), roll, np.ones(frames), yaw, pitch, blink)


def _remap(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _over(front: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Puts an RGBA picture, in place, before one whose colours are already multiplied with their opacity.

    So are the result's.
    """
    opaque = front[..., 3:].copy()
    front[..., 3] = 1.0
    front *= opaque
    front += (1.0 - opaque) * back
    return front


class _Fields:
    """Displacement fields of the neutral face, photograph pixels, one value a photograph pixel of the moving part."""

    def __init__(self) -> None:
        x, y = np.meshgrid(np.arange(_WIDTH) + _LEFT + 0.5, np.arange(_HEIGHT) + _TOP + 0.5)
        u = (x - MOUTH_CENTRE[0]) / MOUTH_HALF_WIDTH
        v = y - mouth_line(x)
        inside = np.clip(1.0 - u**2, 0.0, 1.0)

        def soft(profile: np.ndarray) -> np.ndarray:
            return cv2.GaussianBlur(profile, (0, 0), 0.8)

        self.lens, self.round = soft(inside), soft(inside**0.5)
        sideways = np.cos(np.clip((x - 222.5) / 52.0, -1.0, 1.0) * np.pi / 2) ** 1.5
        self.jaw = smoothstep(y, 128.0, 172.0) * sideways
        self.jaw_at_mouth = float(self.jaw[round(MOUTH_CENTRE[1]) - _TOP, round(MOUTH_CENTRE[0]) - _LEFT])
        self.below = 1.0 - smoothstep(v, 0.0, 32.0)
        self.above = 1.0 - smoothstep(-v, 0.0, 15.0)
        # Cheeks follow the corners of the mouth, the nose hardly does.
        reach = np.exp(-((u / 1.7) ** 4)) * np.exp(-((v / np.where(v < 0, 9.0, 16.0)) ** 2))
        self.width = (x - MOUTH_CENTRE[0]) * reach
        self.corner = np.exp(-(((np.abs(u) - 1.0) / 0.45) ** 2)) * np.exp(-((v / 8.0) ** 2))
        self.fuller_below = (v / 5.0) * np.exp(-((v / 7.0) ** 2)) * (v > 0) * self.lens
        self.fuller_above = (v / 4.0) * np.exp(-((v / 5.0) ** 2)) * (v < 0) * self.lens
        self.x, self.y = x.astype(np.float32), y.astype(np.float32)

    def __call__(
        self, opening: float, jaw: float, spread: float, rounding: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Shift of both layers in x, of the upper layer in y and of the lower layer in y: (H, W) each."""
        gap, chin = GAP_PX * opening, CHIN_PX * jaw
        at_mouth = chin * self.jaw_at_mouth
        raised = 0.17 * gap + 0.7 * spread
        profile = self.lens + min(1.0, max(0.0, rounding)) * (self.round - self.lens)
        base = chin * self.jaw - 1.3 * spread * self.corner
        fuller = 1.1 * rounding - 0.35 * spread
        lower = base + (gap - raised - at_mouth) * profile * self.below + fuller * self.fuller_below
        upper = base - (raised + at_mouth) * profile * self.above + fuller * self.fuller_above
        shift_x = (0.13 * spread - 0.36 * rounding - 0.05 * opening) * self.width
        return shift_x.astype(np.float32), upper.astype(np.float32), lower.astype(np.float32)


def _invert(x: np.ndarray, y: np.ndarray, shift_x: np.ndarray, shift_y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points that the fields move to (x, y), by fixed-point iteration (the fields' slopes are below 1)."""
    field = np.dstack([shift_x, shift_y])
    from_x, from_y = x, y
    for _ in range(6):
        moved = _remap(field, from_x - (_LEFT + 0.5), from_y - (_TOP + 0.5))
        from_x, from_y = x - moved[..., 0], y - moved[..., 1]
    return from_x, from_y


class DrawnFace:
    """One speaker's head.

    Args:
        identity: who it is.

    `render(opening, jaw, spread, rounding, pose, frame)` gives one frame.
    """

    def __init__(self, identity: Person) -> None:
        self.identity = identity
        self.portrait: Portrait = make_portrait(identity, FRAME_PX)
        self._fields = _Fields()
        self._still = _over(self.portrait.upper.copy(), self.portrait.body)
        left, top = round((_LEFT - ORIGIN[0]) * SCALE), round((_TOP - ORIGIN[1]) * SCALE)
        self._patch = slice(top, top + _HEIGHT * SCALE), slice(left, left + _WIDTH * SCALE)
        x = np.arange(_WIDTH * SCALE, dtype=np.float32) / SCALE + _LEFT + 0.5 / SCALE
        y = np.arange(_HEIGHT * SCALE, dtype=np.float32) / SCALE + _TOP + 0.5 / SCALE
        self._x, self._y = np.meshgrid(x, y)
        self._line = mouth_line(np.linspace(90.0, 360.0, 2701)).astype(np.float32)
        axis = (np.arange(FRAME_PX, dtype=np.float32) + 0.5 - FRAME_PX / 2) / ZOOM
        x, y = np.meshgrid(axis, axis)
        x = (VIEW_CENTRE[0] + (-x if identity.mirrored else x)).astype(np.float32)
        y = (VIEW_CENTRE[1] + y).astype(np.float32)
        # Shoulders follow the head by a third.
        follow = (1.0 - 0.65 * smoothstep(y, 172.0, 226.0)).astype(np.float32)
        self._frame_x, self._frame_y, self._follow = x, y, follow

    def _line_at(self, x: np.ndarray) -> np.ndarray:
        return self._line[np.clip((x - 90.0) * 10.0 + 0.5, 0, 2700).astype(np.int32)]

    def _mouth_inside(self, x: np.ndarray, y: np.ndarray, chin: float, under_lip: np.ndarray) -> np.ndarray:
        """Cavity, tongue and both rows of teeth at photograph positions x, y, `under_lip` below the upper lip."""
        portrait = self.portrait
        u = (x - MOUTH_CENTRE[0]) / MOUTH_HALF_WIDTH
        depth = y - MOUTH_CENTRE[1]
        colour = np.empty((*x.shape, 3), np.float32)
        colour[:] = portrait.cavity * (1.0 + 0.5 * smoothstep(depth - chin, -6.0, 6.0))[..., None]
        tongue = smoothstep(1.0 - (u / 0.62) ** 2 - ((depth - chin - 2.5) / 5.5) ** 2, 0.0, 0.6)
        groove = 1.0 - 0.25 * np.exp(-((u / 0.07) ** 2))
        colour += (tongue * 0.85)[..., None] * (portrait.tongue * groove[..., None] - colour)
        for teeth, shift in ((portrait.lower_teeth, chin * 0.92), (portrait.upper_teeth, 0.0)):
            row = _remap(teeth, (x - ORIGIN[0]) * SCALE - 0.5, (y - shift - ORIGIN[1]) * SCALE - 0.5)
            colour += row[..., 3:] * (row[..., :3] - colour)
        shade = (0.45 + 0.55 * smoothstep(under_lip, -0.2, 3.0)) * (1.0 - 0.7 * np.clip(np.abs(u), 0, 1) ** 3)
        return colour * shade[..., None]

    def _talk(self, opening: float, jaw: float, spread: float, rounding: float) -> np.ndarray:
        """The moving part of the head's texture with this articulation."""
        shift_x, upper, lower = self._fields(opening, jaw, spread, rounding)
        size = (_WIDTH * SCALE, _HEIGHT * SCALE)
        looked_up = []
        for shift_y in (upper, lower):
            from_x, from_y = _invert(self._fields.x, self._fields.y, shift_x, shift_y)
            moved = cv2.resize(np.dstack([from_x, from_y]), size, interpolation=cv2.INTER_LINEAR)
            looked_up.append((moved[..., 0], moved[..., 1]))
        (ux, uy), (lx, ly) = looked_up
        under_lip, below = uy - self._line_at(ux), ly - self._line_at(lx)
        to = self.portrait
        face = _remap(to.upper, (ux - ORIGIN[0]) * SCALE - 0.5, (uy - ORIGIN[1]) * SCALE - 0.5)
        chin = _remap(to.lower, (lx - ORIGIN[0]) * SCALE - 0.5, (ly - ORIGIN[1]) * SCALE - 0.5)
        # Beside the mouth the two layers hold the same skin: there the seam is wide and unseen.
        seam = 0.45 + 3.0 * smoothstep(np.abs(ux - MOUTH_CENTRE[0]), MOUTH_HALF_WIDTH - 0.5, MOUTH_HALF_WIDTH + 6.0)
        above = smoothstep(-under_lip / seam, -1.0, 1.0)
        below = np.minimum(smoothstep(below / seam, -1.0, 1.0), 1.0 - above)
        patch = face * above[..., None] + chin * below[..., None]
        patch[..., 3] += np.clip(1.0 - above - below, 0.0, 1.0)
        if opening > 0.0:
            hole = (under_lip > -2.0) & (np.abs(self._x - MOUTH_CENTRE[0]) < MOUTH_HALF_WIDTH * 1.4)
            rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
            cut = slice(rows[0], min(rows[-1], rows[0] + 96) + 1), slice(columns[0], columns[-1] + 1)
            inside = self._mouth_inside(self._x[cut], self._y[cut], CHIN_PX * jaw, under_lip[cut])
            patch[cut][..., :3] += inside * np.clip(1.0 - above[cut] - below[cut], 0.0, 1.0)[..., None]
        return _over(patch, to.body[self._patch])

    def render(self, opening: float, jaw: float, spread: float, rounding: float, pose: Pose, frame: int) -> np.ndarray:
        """One frame, uint8 RGB (256, 256, 3). Articulation in 0..1; `frame` picks the moment of `pose`."""
        head, blink = self._still, float(pose.blink[frame])
        head[self._patch] = self._talk(opening, jaw, spread, rounding)
        if blink > 0.02:
            head = head.copy()
            self.portrait.close_eyes(head, blink)

        # Backwards from the frame: where in the photograph does each pixel come from?
        x, y = self._frame_x, self._frame_y
        turn = -float(pose.roll_rad[frame]) * (-1.0 if self.identity.mirrored else 1.0)
        cos, sin = math.cos(turn) / float(pose.scale[frame]), math.sin(turn) / float(pose.scale[frame])
        shift_x, shift_y = (float(shift) / ZOOM for shift in pose.shift_px[frame])
        dx = x - (NECK[0] + (-shift_x if self.identity.mirrored else shift_x))
        dy = y - (NECK[1] + shift_y)
        x = x + self._follow * (cos * dx - sin * dy + NECK[0] - x)
        y = y + self._follow * (sin * dx + cos * dy + NECK[1] - y)
        shape = _remap(self.portrait.shape, x - (ORIGIN[0] + 0.5), y - (ORIGIN[1] + 0.5))
        map_x = (x + shape[..., 0] - float(pose.yaw[frame]) * shape[..., 2] - ORIGIN[0]) * SCALE - 0.5
        map_y = (y + shape[..., 1] - float(pose.pitch[frame]) * shape[..., 2] - ORIGIN[1]) * SCALE - 0.5
        picture = _remap(head, map_x, map_y)
        behind = self.portrait.background
        picture = picture[..., :3] + (1.0 - picture[..., 3:]) * behind
        return np.clip(picture * 255.0 + 0.5, 0, 255).astype(np.uint8)
