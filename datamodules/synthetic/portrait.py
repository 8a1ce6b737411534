# SPDX-License-Identifier: Apache-2.0
"""The photograph dressed as one speaker: its textures coloured and lit, the shape field, teeth, closed eyes and background."""

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.interpolate import RBFInterpolator

from datamodules.synthetic.identity import Identity
from datamodules.synthetic.photograph import (
    MOUTH_CENTRE,
    MOUTH_HALF_WIDTH,
    ORIGIN,
    SCALE,
    SIDE,
    Photograph,
    load_photograph,
    mouth_line,
    smoothstep,
)

__all__ = ["Portrait", "make_portrait"]

_EYES = ((203.6, 101.0), (249.0, 103.2))
_EYE_HALF_WIDTH = 9.0
_BROWS = (
    ((187.5, 91.5), (191.5, 88.6), (197.0, 87.4), (204.0, 89.2), (211.5, 92.2)),
    ((238.0, 93.6), (245.0, 90.6), (252.0, 89.2), (258.0, 91.2), (262.5, 94.8)),
)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    axis = (np.arange(SIDE * SCALE, dtype=np.float64) + 0.5) / SCALE
    x, y = np.meshgrid(axis + ORIGIN[0], axis + ORIGIN[1])
    return x, y


def _blend(image: np.ndarray, other: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return image + mask[..., None] * (other - image)


def _lookup(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    map_x, map_y = ((x - ORIGIN[0]) * SCALE - 0.5).astype(np.float32), ((y - ORIGIN[1]) * SCALE - 0.5).astype(np.float32)
    return cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@dataclass(frozen=True)
class Portrait:
    """Textures of one speaker (see Photograph for their layout), float32 RGB in [0, 1]."""

    upper: np.ndarray
    lower: np.ndarray
    person: np.ndarray
    background: np.ndarray  # (frame, frame, 3)
    shape: np.ndarray  # (SIDE, SIDE, 3): x and y of the way back to the photograph's face, then depth towards the camera, photograph pixels
    upper_teeth: np.ndarray  # RGBA texture in place for the closed mouth
    lower_teeth: np.ndarray
    cavity: np.ndarray  # (3,)
    tongue: np.ndarray  # (3,)
    eyelids: tuple[tuple[slice, slice, np.ndarray, np.ndarray, np.ndarray], ...]  # rows, columns, lid colours, top and bottom of the eye minus y

    def close_eyes(self, head: np.ndarray, blink: float) -> None:
        """Draws the upper eyelids over a head texture, in place: blink 0 is open, 1 is closed."""
        for rows, columns, lid, top, bottom in self.eyelids:
            edge = top + blink * (bottom - top)  # height of the lid's edge below the pixel
            covered = smoothstep(edge, -0.3, 0.3) * smoothstep(-top, -0.8, 0.6) * (bottom - top > 0.1)
            lash = 0.65 * np.exp(-((edge / 0.7) ** 2)) * smoothstep(bottom - top, 0.3, 2.0)
            patch = _blend(head[rows, columns], lid, covered.astype(np.float32))
            head[rows, columns] = patch * (1.0 - lash[..., None]).astype(np.float32)


def _eyelids(upper: np.ndarray) -> tuple[tuple[slice, slice, np.ndarray, np.ndarray, np.ndarray], ...]:
    lids = []
    for cx, cy in _EYES:
        left, top = round((cx - 12 - ORIGIN[0]) * SCALE), round((cy - 8 - ORIGIN[1]) * SCALE)
        rows, columns = slice(top, top + 16 * SCALE), slice(left, left + 24 * SCALE)
        x, y = (axis[rows, columns] for axis in _grid())
        bow = np.clip(1.0 - ((x - cx) / _EYE_HALF_WIDTH) ** 2, 0.0, 1.0)
        upper_edge, lower_edge = cy + 0.6 - 4.6 * bow, cy + 0.6 + 3.2 * bow
        # Skin between eye and brow, stretched down over the eye.
        lid = _lookup(upper, x, upper_edge - 1.6 - (lower_edge - y) * 0.33)
        lid *= (1.0 - 0.12 * smoothstep(y, cy - 3.0, cy + 3.0))[..., None].astype(np.float32)
        lids.append((rows, columns, lid, upper_edge - y, lower_edge - y))
    return tuple(lids)


def _teeth(photo: Photograph, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Upper row, hung so that its edges show below a slightly raised lip, and the same row turned over as the lower one."""
    smile = photo.smile
    centre = 223.6
    arc = 150.2 - 0.0135 * (x - centre) ** 2  # lower edge of the photograph's teeth
    bright = smoothstep(smile.min(axis=2), 0.30, 0.52)
    row = smoothstep(arc - y, 0.0, 0.8) * smoothstep(y, 141.5, 142.5) * smoothstep(-np.abs(x - centre), -17.5, -14.0)
    alpha = (row * np.maximum(bright, 0.75)).astype(np.float32)
    teeth = np.dstack([smile * np.array([0.93, 0.92, 0.90], np.float32), alpha]).astype(np.float32)
    upper = _lookup(teeth, x, y + 2.6)
    flipped = _lookup(teeth, centre + (x - centre) * 1.12, 150.2 - (y - (MOUTH_CENTRE[1] + 0.8)) * 1.1)
    flipped[..., :3] *= np.array([0.74, 0.70, 0.68], np.float32)
    return upper, flipped


def _shape_field(who: Identity) -> np.ndarray:
    """The way from the speaker's face back to the photograph's, and a rounded head's depth."""
    cx = 224.0
    points, moved = [], []

    def put(px: float, py: float, dx: float = 0.0, dy: float = 0.0) -> None:
        points.append((px, py))
        moved.append((px + dx, py + dy))

    def widen(px: float, factor: float) -> float:
        return (px - cx) * (factor - 1.0)

    for px, py in ((180, 111), (270, 115), (181, 125), (269, 128)):
        put(px, py, widen(px, who.face_width))
    for px, py in ((186, 152), (261, 154), (199, 168), (249, 169)):
        put(px, py, widen(px, who.jaw_width), 0.55 * who.chin_px)
    put(222.5, 178, 0.0, who.chin_px)
    put(222.5, 160, 0.0, 0.35 * who.chin_px)
    for px, py in ((193, 192), (252, 190)):
        put(px, py, widen(px, 0.5 + 0.5 * who.jaw_width), 0.3 * who.chin_px)
    for ex, ey in _EYES:
        side = np.sign(ex - cx)
        for ox, oy in ((-9, 0), (9, 0), (0, -5), (0, 5)):
            put(ex + ox, ey + oy, side * who.eye_spread_px + ox * (who.eye_size - 1), oy * (who.eye_size - 1) * 1.3)
    for px, py in ((212, 127), (235, 128)):
        put(px, py, widen(px, who.nose_width), who.nose_px)
    put(224, 131, 0.0, who.nose_px)
    put(224, 105)
    for px, py in ((205, 144.4), (242, 144.6)):
        put(px, py, widen(px, who.mouth_width), 0.2 * who.chin_px)
    for angle in np.deg2rad(np.arange(180, 361, 20)):  # outline of the hair
        px, py = 227 + 74 * np.cos(angle), 84 + 68 * np.sin(angle)
        put(px, py, widen(px, who.hair_volume), -who.hair_top_px * max(0.0, -np.sin(angle)))
    for px, py in ((163, 118), (292, 116)):
        put(px, py, widen(px, who.hair_volume))
    for edge in np.linspace(0, SIDE, 6):
        for px, py in ((ORIGIN[0], edge), (ORIGIN[0] + SIDE, edge), (ORIGIN[0] + edge, SIDE)):
            put(px, py)
    put(130, 0)
    put(320, 0)
    x, y = np.meshgrid(np.arange(0, SIDE + 4, 4.0) + ORIGIN[0], np.arange(0, SIDE + 4, 4.0) + ORIGIN[1])
    there = np.array(moved)
    field = RBFInterpolator(there, np.array(points) - there, kernel="thin_plate_spline", smoothing=2.0)(np.stack([x.ravel(), y.ravel()], 1))
    field = field.reshape(*x.shape, 2)
    depth = np.sqrt(np.clip(1.0 - ((x - 225) / 82) ** 2 - ((y - 110) / 100) ** 2, 0.0, 1.0)) * 3.0
    nose = 3.0 * np.exp(-(((x - 224) / 12) ** 2) - ((y - 122) / 13) ** 2)
    coarse = np.dstack([field, cv2.GaussianBlur(depth, (0, 0), 1.5) + nose]).astype(np.float32)
    fine_x, fine_y = np.meshgrid(np.arange(SIDE, dtype=np.float32), np.arange(SIDE, dtype=np.float32))
    return cv2.remap(coarse, (fine_x + 0.5) / 4.0, (fine_y + 0.5) / 4.0, cv2.INTER_LINEAR)


def _background(who: Identity, size: int) -> np.ndarray:
    first, second = (np.array(colour, np.float32) for colour in who.background_colours)
    x, y = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size))
    rng = np.random.default_rng(int.from_bytes(who.name.encode(), "little"))
    if who.background == "gradient":
        mix = smoothstep(0.7 * x - 0.7 * y, -1.3, 1.3)
    elif who.background == "blinds":
        mix = cv2.GaussianBlur((np.mod(y * 7 + 0.15 * x, 1.0) < 0.62).astype(np.float64), (0, 0), 2.2)
    elif who.background == "bokeh":
        mix = np.zeros_like(x)
        for _ in range(22):
            radius, bx, by = rng.uniform(0.05, 0.16), rng.uniform(-1, 1), rng.uniform(-1, 0.6)
            mix = np.maximum(mix, rng.uniform(0.2, 0.75) * smoothstep(radius - np.hypot(x - bx, y - by), 0.0, 0.03))
        mix = cv2.GaussianBlur(mix, (0, 0), 2.5)
    elif who.background == "shelves":
        books = np.repeat(rng.uniform(0.0, 1.0, (4, 40)), 64, axis=0)
        mix = cv2.resize(books, (size, size), interpolation=cv2.INTER_NEAREST)
        mix = mix * (np.mod((y + 1) * 2.0, 1.0) > 0.16)
        mix = cv2.GaussianBlur(mix, (0, 0), 3.0)
    else:
        strength = 1.0 if who.background == "soft" else 0.35
        cloud = cv2.resize(rng.normal(0.0, 1.0, (7, 7)), (size, size), interpolation=cv2.INTER_CUBIC)
        mix = np.clip(0.5 + 0.3 * strength * cloud + 0.25 * y, 0.0, 1.0)
    vignette = 1.0 - 0.12 * (x**2 + y**2)
    return ((first + mix[..., None] * (second - first)) * vignette[..., None]).astype(np.float32)


def _dress(image: np.ndarray, who: Identity, photo: Photograph, brows: np.ndarray, stubble: np.ndarray) -> np.ndarray:
    """One layer in the speaker's colours, before the light."""
    skin = np.power(image, who.skin_gamma) * np.array(who.skin_gain, np.float32)
    out = _blend(image, skin, photo.skin)
    out = _blend(out, out * np.array(who.lip_tint, np.float32), photo.lips)
    luminance = image @ np.array([0.3, 0.59, 0.11], np.float32)
    if who.hair_colour is not None:
        hair = np.clip(luminance[..., None] * 2.0, 0.0, 1.6) ** 1.15 * np.array(who.hair_colour, np.float32)
        out = _blend(out, hair, photo.hair)
    if who.suit_colour is not None:
        out = _blend(out, luminance[..., None] * 2.0 * np.array(who.suit_colour, np.float32), photo.suit)
    brow_colour = np.array(who.hair_colour or (0.35, 0.25, 0.15), np.float32) * 0.6
    out = _blend(out, brow_colour, brows * who.brows)
    return _blend(out, out * np.array([0.50, 0.50, 0.54], np.float32), stubble * who.stubble)


def make_portrait(who: Identity, frame_px: int) -> Portrait:
    """Dresses the photograph as this speaker (about 0.2 s)."""
    photo = load_photograph()
    x, y = _grid()
    brows = np.zeros(x.shape, np.float32)
    for brow in _BROWS:
        line = np.round((np.array(brow) - ORIGIN) * SCALE * 16).astype(np.int32)
        cv2.polylines(brows, [line], False, 1.0, round(2.2 * SCALE), cv2.LINE_AA, 4)
    brows = cv2.GaussianBlur(brows, (0, 0), 1.6)
    grain = np.random.default_rng(5).normal(0.0, 1.0, x.shape).astype(np.float32)
    grain = np.clip(0.8 + 0.35 * cv2.GaussianBlur(grain, (0, 0), 0.8) * 1.6, 0.2, 1.3)
    below = smoothstep(y, 134.0, 142.0) * (1 - smoothstep(y, 182.0, 190.0))
    chin = 1.0 - 0.9 * smoothstep(1.0 - ((x - 223) / 36) ** 2 - ((y - 132) / 26) ** 2, 0.0, 0.6) * (y < 150)
    moustache = np.exp(-(((y - 137.0) / 3.0) ** 2)) * smoothstep(-np.abs(x - 223.5), -24.0, -15.0)
    beard = np.maximum(below * np.where(y < 150, chin, 1.0), moustache)
    beard = cv2.GaussianBlur(beard, (0, 0), 4.0) * photo.skin * (1 - photo.lips) * grain

    nx, ny = np.clip((x - 224) / 62, -1.3, 1.3), np.clip((y - 115) / 75, -1.3, 1.3)
    side = -who.light_side if who.mirrored else who.light_side
    light = (1.0 + side * nx - 0.05 * ny)[..., None] * np.array(who.light_colour)
    light = light.astype(np.float32)
    # A fold of shadow where the lips meet.
    seam = np.exp(-(((y - mouth_line(x)) / 0.65) ** 2)) * np.clip(1.05 - ((x - MOUTH_CENTRE[0]) / MOUTH_HALF_WIDTH) ** 2, 0, 1)
    light_lips = light * (1.0 - 0.45 * seam[..., None]).astype(np.float32)
    upper, lower = (
        np.clip(_dress(layer, who, photo, brows, beard.astype(np.float32)) * light_lips, 0.0, 1.0) for layer in (photo.upper, photo.lower)
    )
    eyelids = _eyelids(upper)
    if who.glasses:
        upper = _glasses(upper)
    upper_teeth, lower_teeth = _teeth(photo, x, y)
    for teeth in (upper_teeth, lower_teeth):
        teeth[..., :3] *= light
    warmth = np.array(who.skin_gain, np.float32) ** 0.5
    return Portrait(
        upper=upper, lower=lower, person=photo.person, background=_background(who, frame_px), shape=_shape_field(who),
        upper_teeth=upper_teeth, lower_teeth=lower_teeth, cavity=np.array([0.17, 0.055, 0.05], np.float32) * warmth,
        tongue=np.array([0.56, 0.27, 0.27], np.float32) * warmth, eyelids=eyelids,
    )  # fmt: skip


def _glasses(image: np.ndarray) -> np.ndarray:
    """Thin dark frames about the eyes."""
    mask = np.zeros(image.shape[:2], np.float32)

    def at(px: float, py: float) -> tuple[int, int]:
        return round((px - ORIGIN[0]) * SCALE * 16), round((py - ORIGIN[1]) * SCALE * 16)

    for ex, ey in _EYES:
        axes = (round(15.0 * SCALE * 16), round(11.0 * SCALE * 16))
        cv2.ellipse(mask, at(ex, ey + 1.5), axes, 0, 0, 360, 1.0, round(1.3 * SCALE), cv2.LINE_AA, 4)
    (lx, ly), (rx, ry) = _EYES
    cv2.line(mask, at(lx + 14.5, ly - 0.5), at(rx - 14.5, ry - 1.0), 1.0, round(1.2 * SCALE), cv2.LINE_AA, 4)
    cv2.line(mask, at(lx - 15, ly), at(lx - 24, ly - 1), 1.0, round(1.2 * SCALE), cv2.LINE_AA, 4)
    cv2.line(mask, at(rx + 15, ry), at(rx + 21, ry - 1), 1.0, round(1.2 * SCALE), cv2.LINE_AA, 4)
    return _blend(image, np.array([0.09, 0.08, 0.09], np.float32), 0.92 * cv2.GaussianBlur(mask, (0, 0), 0.7))
