# SPDX-License-Identifier: Apache-2.0
"""Changes the photograph into one speaker: colours, light, shape, teeth, eyelids, background."""

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.interpolate import RBFInterpolator

from lipsync_bench.datamodules.datasets.synthetic.person import Person
from lipsync_bench.datamodules.datasets.synthetic.photograph import (
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
_LUMINANCE = np.array([0.3, 0.59, 0.11], np.float32)
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
    map_x, map_y = (
        ((x - ORIGIN[0]) * SCALE - 0.5).astype(np.float32),
        ((y - ORIGIN[1]) * SCALE - 0.5).astype(np.float32),
    )
    return cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@dataclass(frozen=True)
class Portrait:
    """Textures of one speaker (see Photograph for their layout), float32 RGB with opacity in [0, 1], (N, N, 4)."""

    upper: np.ndarray
    lower: np.ndarray
    body: np.ndarray  # colours multiplied with the opacity
    background: np.ndarray  # (frame, frame, 3)
    shape: np.ndarray  # (SIDE, SIDE, 3): x and y of the way back to the photograph's face, depth; photograph pixels
    upper_teeth: np.ndarray  # RGBA texture in place for the closed mouth
    lower_teeth: np.ndarray
    cavity: np.ndarray  # (3,)
    tongue: np.ndarray  # (3,)
    eyelids: tuple[
        tuple[slice, slice, np.ndarray, np.ndarray, np.ndarray], ...
    ]  # rows, columns, lid colours, top and bottom of the eye minus y

    def close_eyes(self, head: np.ndarray, blink: float) -> None:
        """Draws the upper eyelids over a head texture, in place: blink 0 is open, 1 is closed."""
        for rows, columns, lid, top, bottom in self.eyelids:
            edge = top + blink * (bottom - top)  # height of the lid's edge below the pixel
            covered = smoothstep(edge, -0.3, 0.3) * smoothstep(-top, -0.8, 0.6) * (bottom - top > 0.1)
            lash = 0.65 * np.exp(-((edge / 0.7) ** 2)) * smoothstep(bottom - top, 0.3, 2.0)
            patch = _blend(head[rows, columns], lid, covered.astype(np.float32))
            patch[..., :3] *= (1.0 - lash[..., None]).astype(np.float32)
            head[rows, columns] = patch


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
    """The photograph's upper teeth, hung to show below a raised lip, and the same row turned over as the lower one."""
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


def _shape_field(who: Person) -> np.ndarray:
    """The way from the speaker's face back to the photograph's, and a rounded head's depth."""
    cx = 224.0
    points, moved = [], []

    def put(px: float, py: float, dx: float = 0.0, dy: float = 0.0) -> None:
        points.append((px, py))
        moved.append((px + dx, py + dy))

    def widen(px: float, factor: float) -> float:
        return (px - cx) * (factor - 1.0)

    for px, py in ((180.0, 111.0), (270, 115), (181, 125), (269, 128)):
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
    x, y = np.meshgrid(np.arange(0, SIDE + 4, 4.0) + ORIGIN[0], np.arange(0, SIDE + 4, 4.0) + ORIGIN[1])
    there = np.array(moved)
    field = RBFInterpolator(there, np.array(points) - there, kernel="thin_plate_spline", smoothing=2.0)(
        np.stack([x.ravel(), y.ravel()], 1)
    )
    field = field.reshape(*x.shape, 2)
    depth = np.sqrt(np.clip(1.0 - ((x - 225) / 82) ** 2 - ((y - 110) / 100) ** 2, 0.0, 1.0)) * 3.0
    nose = 3.0 * np.exp(-(((x - 224) / 12) ** 2) - ((y - 122) / 13) ** 2)
    coarse = np.dstack([field, cv2.GaussianBlur(depth, (0, 0), 1.5) + nose]).astype(np.float32)
    fine_x, fine_y = np.meshgrid(np.arange(SIDE, dtype=np.float32), np.arange(SIDE, dtype=np.float32))
    return cv2.remap(coarse, (fine_x + 0.5) / 4.0, (fine_y + 0.5) / 4.0, cv2.INTER_LINEAR)


def _background(who: Person, size: int) -> np.ndarray:
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


def _dress(image: np.ndarray, who: Person, skin: np.ndarray, hair: np.ndarray) -> np.ndarray:
    """Skin and hair in the speaker's colours, before the light."""
    toned = np.power(image, who.skin_gamma) * np.array(who.skin_gain, np.float32)
    out = _blend(image, toned, skin)
    if who.hair_colour is not None:
        luminance = np.clip((image @ _LUMINANCE)[..., None] * 2.0, 0.02, 1.5)
        # Light hair keeps little of the photograph's contrast: its shadows would look like dirt.
        colour = np.array(who.hair_colour, np.float32)
        out = _blend(out, luminance ** (1.15 - 0.55 * float(colour.mean())) * colour, hair)
    return out


def _clothes(who: Person, photo: Photograph, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours and mask of what the speaker wears; the shoulders of everybody but the astronaut are drawn."""
    if who.clothes == "suit":
        tinted = (photo.body @ _LUMINANCE)[..., None] * 2.0 * np.array(who.clothes_colour, np.float32)
        return _blend(photo.body, tinted, photo.suit), photo.clothed
    across = np.abs(x - 221.0)
    # Neck, slope of the shoulders, arm.
    shoulder = np.interp(across, [0, 33, 37, 47, 70, 98, 112, 124], [186, 184, 187, 196, 206, 215, 226, 254])
    collar = np.interp(x, [185, 193, 217, 234.3, 246, 253], [178, 184, 186.5, 190, 187.2, 183])
    top = np.where(across < 36, np.minimum(collar, shoulder) - 1.2, shoulder)
    mask = cv2.GaussianBlur(smoothstep(y - top, -0.5, 0.5).astype(np.float32), (0, 0), 1.0)
    rng = np.random.default_rng(11)
    folds = cv2.resize(rng.normal(0.0, 1.0, (5, 9)), (x.shape[1], x.shape[0]), interpolation=cv2.INTER_CUBIC)
    weave = cv2.GaussianBlur(rng.normal(0.0, 1.0, x.shape), (0, 0), 0.9)
    shade = (
        0.92 + 0.07 * folds + 0.05 * weave - 0.35 * smoothstep(across, 60.0, 125.0) - 0.25 * np.exp(-((y - top) / 5.0))
    )
    colour = np.broadcast_to(np.array(who.clothes_colour, np.float32), (*x.shape, 3))
    band = smoothstep(y - top, 5.2, 6.0) - smoothstep(y - top, 6.0, 7.4)
    if who.clothes == "jacket":
        lapel = across - (0.62 * (250.0 - y))
        inside = 1.0 - smoothstep(lapel, -0.7, 0.7)
        colour = _blend(colour, np.array(who.shirt_colour, np.float32), inside)
        band = np.maximum(band * inside, np.exp(-((lapel / 1.2) ** 2)))
    shade = shade * (1.0 - 0.3 * band * (1.0 - smoothstep(across, 30.0, 34.0) * (who.clothes == "sweater")))
    return (colour * shade[..., None]).astype(np.float32), mask


def _face_paint(who: Person, photo: Photograph, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the eyebrows and of a stubble beard."""
    brows = np.zeros(x.shape, np.float32)
    for brow in _BROWS:
        line = np.round((np.array(brow) - ORIGIN) * SCALE * 16).astype(np.int32)
        cv2.polylines(brows, [line], False, (1.0,), round(2.2 * SCALE), cv2.LINE_AA, 4)
    grain = cv2.GaussianBlur(np.random.default_rng(5).normal(0.0, 1.0, x.shape), (0, 0), 0.9)
    cheeks = smoothstep(((x - 223) / 37) ** 2 + ((y - 130) / 27) ** 2, 0.75, 1.25)
    moustache = np.exp(-(((y - 137.0) / 3.0) ** 2)) * smoothstep(-np.abs(x - 223.5), -24.0, -15.0)
    beard = np.maximum(smoothstep(y, 128.0, 146.0) * np.where(y < 158, cheeks, 1.0), moustache)
    around_lips = np.clip(
        1.6 * cv2.GaussianBlur(photo.lips, (0, 0), 4.0), 0.0, 1.0
    )  # shaved, or the lips are hard to make out
    beard = cv2.GaussianBlur(beard, (0, 0), 4.0) * (1 - around_lips) * np.clip(0.85 + 0.3 * grain, 0.3, 1.2)
    return cv2.GaussianBlur(brows, (0, 0), 1.6) * who.brows, (beard * who.stubble).astype(np.float32)


def make_portrait(who: Person, frame_px: int) -> Portrait:
    """Changes the photograph into this speaker (about 0.2 s)."""
    photo = load_photograph()
    x, y = _grid()
    nx, ny = np.clip((x - 224) / 62, -1.3, 1.3), np.clip((y - 115) / 75, -1.3, 1.3)
    side = -who.light_side if who.mirrored else who.light_side
    light = ((1.0 + side * nx - 0.05 * ny)[..., None] * np.array(who.light_colour)).astype(np.float32)
    # A fold of shadow where the lips meet.
    seam = np.exp(-(((y - mouth_line(x)) / 0.65) ** 2)) * np.clip(
        1.05 - ((x - MOUTH_CENTRE[0]) / MOUTH_HALF_WIDTH) ** 2, 0, 1
    )
    shadow = (1.0 - 0.45 * seam[..., None]).astype(np.float32)
    brows, beard = _face_paint(who, photo, x, y)
    stubble_tint = np.array([0.52, 0.52, 0.56], np.float32)

    def layer(image: np.ndarray) -> np.ndarray:
        out = _dress(image, who, photo.skin, photo.hair)
        out = _blend(out, out * np.array(who.lip_tint, np.float32), photo.lips)
        out = _blend(out, np.array(who.hair_colour or (0.35, 0.25, 0.15), np.float32) * 0.6, brows)
        out = _blend(out, out * stubble_tint, beard)
        return np.dstack([np.clip(out * light * shadow, 0.0, 1.0), photo.head])

    upper, lower = layer(photo.upper), layer(photo.lower)
    body = _dress(photo.body, who, photo.neck, np.zeros_like(photo.hair))
    body = _blend(body, body * stubble_tint, 0.35 * beard * photo.neck)
    clothes, worn = _clothes(who, photo, x, y)
    body = np.clip(_blend(body, clothes, smoothstep(worn, 0.0, 0.3)) * light, 0.0, 1.0)
    seen = np.maximum(photo.neck, worn)[..., None]
    body = np.dstack([body * seen, seen])
    eyelids = _eyelids(upper)
    if who.glasses:
        upper[..., :3] = _glasses(upper[..., :3])
    upper_teeth, lower_teeth = _teeth(photo, x, y)
    for teeth in (upper_teeth, lower_teeth):
        teeth[..., :3] *= light
    warmth = np.array(who.skin_gain, np.float32) ** 0.5
    return Portrait(
        upper=upper,
        lower=lower,
        body=body,
        background=_background(who, frame_px),
        shape=_shape_field(who),
        upper_teeth=upper_teeth,
        lower_teeth=lower_teeth,
        cavity=np.array([0.17, 0.055, 0.05], np.float32) * warmth,
        tongue=np.array([0.56, 0.27, 0.27], np.float32) * warmth,
        eyelids=eyelids,
    )


def _glasses(image: np.ndarray) -> np.ndarray:
    """Thin dark frames about the eyes."""
    mask = np.zeros(image.shape[:2], np.float32)

    def at(px: float, py: float) -> tuple[int, int]:
        return round((px - ORIGIN[0]) * SCALE * 16), round((py - ORIGIN[1]) * SCALE * 16)

    for ex, ey in _EYES:
        axes = (round(15.0 * SCALE * 16), round(11.0 * SCALE * 16))
        cv2.ellipse(mask, at(ex, ey + 1.5), axes, 0, 0, 360, (1.0,), round(0.9 * SCALE), cv2.LINE_AA, 4)
    (lx, ly), (rx, ry) = _EYES
    cv2.line(mask, at(lx + 14.5, ly - 0.5), at(rx - 14.5, ry - 1.0), (1.0,), round(0.8 * SCALE), cv2.LINE_AA, 4)
    cv2.line(mask, at(lx - 15, ly), at(lx - 24, ly - 1), (1.0,), round(0.8 * SCALE), cv2.LINE_AA, 4)
    cv2.line(mask, at(rx + 15, ry), at(rx + 21, ry - 1), (1.0,), round(0.8 * SCALE), cv2.LINE_AA, 4)
    return _blend(image, np.array([0.09, 0.08, 0.09], np.float32), 0.8 * cv2.GaussianBlur(mask, (0, 0), 0.7))
