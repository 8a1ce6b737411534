# SPDX-License-Identifier: Apache-2.0
"""The photograph behind every synthetic speaker: its landmarks, its masks and its mouth, closed.

scikit-image ships the official portrait of astronaut Eileen Collins (NASA, public domain). She smiles with her teeth
showing, so the picture is split along the mouth into an upper and a lower layer, and each layer is warped until its
inner lip contour lies on one common mouth line: put together they show closed lips, pulled apart they open. What is
behind them is drawn, with the photograph's own teeth.

Coordinates are pixels of the 512 x 512 photograph. A texture shows the part of it that starts at ORIGIN,
with SCALE texture pixels per photograph pixel.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from scipy.interpolate import RBFInterpolator

__all__ = [
    "MOUTH_CENTRE",
    "MOUTH_HALF_WIDTH",
    "ORIGIN",
    "SCALE",
    "SIDE",
    "Photograph",
    "load_photograph",
    "mouth_line",
    "smoothstep",
]

ORIGIN = (98.0, 0.0)
SIDE = 254  # photograph pixels along each side of a texture
SCALE = 2
MOUTH_CENTRE = (223.4, 144.6)
MOUTH_HALF_WIDTH = 18.5


def _points(text: str) -> np.ndarray:
    """(n, 2) positions in photograph pixels from "x y, x y, ..."."""
    return np.array([[float(number) for number in pair.split()] for pair in text.split(",")])


# Contours of the smiling mouth, left to right, as Face Mesh found them in the photograph, moved by a pixel into the
# lips so that no tooth colour hangs on their edge.
_INNER_UPPER = _points(
    "202.8 139.7, 206.5 139.7, 209.7 140.4, 213.4 141.4, 218.0 142.4, 223.7 143.1,"
    "229.6 142.7, 234.4 141.9, 238.1 141.2, 241.3 140.8, 244.4 141.0"
)
_INNER_LOWER = _points(
    "202.8 139.7, 206.2 144.0, 209.0 146.7, 213.0 149.2, 217.5 151.0, 223.1 151.7,"
    "228.8 151.2, 233.8 149.7, 237.9 147.5, 241.0 145.0, 244.4 141.0"
)
_OUTER_UPPER = _points("207.8 138.4, 211.8 138.6, 217.5 138.9, 223.6 140, 230.3 139.2, 236.2 139.2, 240.2 139.3")
_OUTER_LOWER = _points("207.4 148.3, 211.4 152.3, 216.6 154.9, 222.9 155.9, 229.3 155.4, 234.8 153.2, 239.3 149.4")
# What stays where it is when the mouth is closed: eyes, nose, cheeks, jaw, and the border of the picture.
_FIXED = _points(
    "195 101, 256 104, 224 126, 214 131, 233 131, 223 133, 183 140, 266 142, 187 155, 262 156, 203 174, 222 178,"
    "243 174, 222.8 167, 150 60, 300 60, 150 210, 300 210, 224 210, 180 111, 270 115"
)
# The edge of jaw and chin, the neck with the upper edge of the collar in front of it.
_JAW = _points(
    "180.8 138, 183 146, 185.8 152, 188.6 157, 193 161.6, 200 169, 207 174, 214 177.6, 222 179.2, 230 178.7,"
    "238 175.7, 246 170, 251 166, 255.5 160, 258 156.5, 261.5 152, 264 147, 266.5 138"
)
_NECK = _points(
    "183.6 130, 183.4 157, 184.8 178, 193 184.5, 217 187, 234.3 190.6, 246 187.8, 252.6 184.5, 253.2 178,"
    "256 160, 256 130"
)
_AROUND_HEAD = np.concatenate([_JAW, _points("330 138, 330 -9, 90 -9, 90 138")])


def smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Rises smoothly from 0 at `low` to 1 at `high`."""
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def mouth_line(x: np.ndarray) -> np.ndarray:
    """Height in photograph pixels of the line on which the closed lips meet, for positions x."""
    u = np.clip((x - MOUTH_CENTRE[0]) / MOUTH_HALF_WIDTH, -1.4, 1.4)
    return MOUTH_CENTRE[1] + 0.9 * np.cos(u * np.pi / 2) + 0.45 * np.exp(-((u / 0.16) ** 2)) + 0.35 * u - 0.7


@dataclass(frozen=True)
class Photograph:
    """The parts of the photograph. Textures are float32 RGB in [0, 1], (N, N, 3); masks float32 in [0, 1], (N, N); N =
    SIDE * SCALE."""

    upper: np.ndarray  # the head above the mouth line, closed mouth
    lower: np.ndarray  # the head below it, down to the chin's edge
    body: np.ndarray  # neck and suit, the neck continued upwards behind the chin
    smile: np.ndarray  # the photograph as it is, whose teeth are used
    head: np.ndarray  # where the head covers what is behind it
    neck: np.ndarray
    clothed: np.ndarray  # the suit with its collar
    hair: np.ndarray
    skin: np.ndarray
    suit: np.ndarray  # its orange cloth
    lips: np.ndarray  # both lips, closed


def _grid(step: float) -> tuple[np.ndarray, np.ndarray]:
    axis = (np.arange(round(SIDE / step), dtype=np.float64) + 0.5) * step
    x, y = np.meshgrid(axis + ORIGIN[0], axis + ORIGIN[1])
    return x, y


def _ellipse(x: np.ndarray, y: np.ndarray, cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
    return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1


def _cut_out(image: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """GrabCut from a map of seeds, its edge softened along the image's own edges."""
    cv2.setRNGSeed(1)
    seeds, nowhere, models = seeds.astype(np.uint8), (0, 0, 1, 1), np.zeros((2, 1, 65))
    cv2.grabCut(image[..., ::-1].copy(), seeds, nowhere, models[0], models[1], 5, cv2.GC_INIT_WITH_MASK)
    hard = np.isin(seeds, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)
    soft = cv2.ximgproc.guidedFilter(image, hard, 4, 20.0)
    return np.clip((soft - 0.12) / 0.76, 0.0, 1.0)


def _masks(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y = _grid(1.0)
    seeds = np.full(x.shape, cv2.GC_PR_BGD)
    seeds[_ellipse(x, y, 227, 80, 80, 72)] = cv2.GC_PR_FGD
    seeds[_ellipse(x, y, 226, 80, 66, 56) | _ellipse(x, y, 224, 120, 44, 56)] = cv2.GC_FGD
    seeds[~_ellipse(x, y, 227, 82, 84, 76) & (y < 140)] = cv2.GC_BGD
    seeds[y > 150] = cv2.GC_PR_FGD
    seeds[(y < 190) & ((x < 125) | (x > 310))] = cv2.GC_BGD
    seeds[_ellipse(x, y, 305, 165, 26, 26)] = cv2.GC_BGD
    seeds[(y > 178) & (np.abs(x - 215) < 45)] = cv2.GC_FGD
    seeds[_ellipse(x, y, 285, 168, 16, 12)] = cv2.GC_BGD
    person = _cut_out(image, seeds)

    seeds = np.where(person > 0.5, cv2.GC_PR_FGD, cv2.GC_BGD)
    seeds[(y > 136) | _ellipse(x, y, 226, 122, 40, 38)] = cv2.GC_BGD
    seeds[_ellipse(x, y, 226, 48, 56, 26)] = cv2.GC_FGD
    hair = _cut_out(image, seeds)

    red, green, blue = (image[..., channel].astype(np.float64) for channel in range(3))
    suit = (y > 140) & (red > 1.7 * blue + 30) & (red > 1.35 * green + 20) & (np.abs(x - 222) > 50)
    return person, hair, cv2.GaussianBlur(suit.astype(np.float32), (0, 0), 1.2)


def _closed_layer(image: np.ndarray, inner: np.ndarray, outer: np.ndarray, outer_target: np.ndarray) -> np.ndarray:
    """The photograph warped so that the inner contour of one lip lies on the mouth line."""
    cx, half = MOUTH_CENTRE[0], MOUTH_HALF_WIDTH
    centred = (inner[:, 0] - inner[:, 0].mean()) / (np.ptp(inner[:, 0]) / 2)
    target_x = cx + half * centred
    target = np.concatenate([np.stack([target_x, mouth_line(target_x)], 1), outer_target, _FIXED])
    source = np.concatenate([inner, outer, _FIXED])
    x, y = _grid(4.0)
    field = RBFInterpolator(target, source - target, kernel="thin_plate_spline", smoothing=0.3)(
        np.stack([x.ravel(), y.ravel()], 1)
    )
    size = (SIDE * SCALE, SIDE * SCALE)
    field = cv2.resize(field.reshape(*x.shape, 2).astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
    x, y = _grid(1.0 / SCALE)
    map_x = (x + field[..., 0] - ORIGIN[0] - 0.5).astype(np.float32)
    map_y = (y + field[..., 1] - ORIGIN[1] - 0.5).astype(np.float32)
    return cv2.remap(image, map_x, map_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def _polygon(points: np.ndarray, blur: float) -> np.ndarray:
    """A filled polygon (photograph pixels) as a texture mask."""
    mask = np.zeros((SIDE * SCALE, SIDE * SCALE), np.float32)
    corners = np.round((points - ORIGIN) * SCALE * 16).astype(np.int32)
    cv2.fillPoly(mask, [corners], (1.0,), cv2.LINE_AA, 4)
    return cv2.GaussianBlur(mask, (0, 0), blur)


def _beyond_edge(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The masked part's colours continued over its edge, so that nothing of the old background shines through."""
    sure = smoothstep(mask, 0.85, 0.99).astype(np.float32)
    out, known = image * sure[..., None], sure
    for sigma in (2.0, 5.0):
        weight = cv2.GaussianBlur(known, (0, 0), sigma)
        spread = cv2.GaussianBlur(out, (0, 0), sigma).reshape(image.shape) / np.maximum(weight, 1e-3)[..., None]
        fresh = (1.0 - known) * smoothstep(weight, 0.0, 0.05)
        out, known = out + fresh[..., None] * spread, known + fresh
    return np.where(known[..., None] > 0.02, out / np.maximum(known, 0.02)[..., None], image).astype(np.float32)


def _behind_chin(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The photograph with the skin of the neck continued upwards behind the chin."""
    edge = np.interp(x, _JAW[2:-2, 0], _JAW[2:-2, 1]) + 2.2
    from_y = np.where((y < edge) & (y > 130), edge + 0.12 * (edge - y), y)
    # The photograph's black collar touches the neck on the left.
    from_x = np.where((x > 182.5) & (x < 187.5) & (y > 130) & (y < 179), 187.5, x)
    map_x, map_y = (
        ((from_x - ORIGIN[0]) * SCALE - 0.5).astype(np.float32),
        ((from_y - ORIGIN[1]) * SCALE - 0.5).astype(np.float32),
    )
    return cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@lru_cache(maxsize=1)
def load_photograph() -> Photograph:
    """Separates the parts of the photograph (about 0.6 s, once a process)."""
    # scikit-image takes a second to import and only the first speaker of a process needs it.
    from skimage.data import astronaut

    top, left = round(ORIGIN[1]), round(ORIGIN[0])
    image = np.ascontiguousarray(astronaut()[top : top + SIDE, left : left + SIDE])

    def enlarge(mask: np.ndarray) -> np.ndarray:
        return np.clip(
            cv2.resize(mask.astype(np.float32), None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_CUBIC), 0.0, 1.0
        )

    person, hair, suit = (enlarge(mask) for mask in _masks(image))
    x, y = _grid(1.0 / SCALE)
    head = person * _polygon(_AROUND_HEAD, 1.3)

    def closed(inner: np.ndarray, outer: np.ndarray, thickness: float) -> np.ndarray:
        target_x = MOUTH_CENTRE[0] + (outer[:, 0] - 223.6) * 0.9
        u = (target_x - MOUTH_CENTRE[0]) / MOUTH_HALF_WIDTH
        target = np.stack([target_x, mouth_line(target_x) + thickness * (1 - u**2) ** 0.6], axis=1)
        layer = _closed_layer(image.astype(np.float32) / 255.0, inner, outer, target)
        return _beyond_edge(np.clip(layer, 0.0, 1.0), head)

    upper, lower = closed(_INNER_UPPER, _OUTER_UPPER, -4.4), closed(_INNER_LOWER, _OUTER_LOWER, 6.4)
    smile = cv2.resize(image.astype(np.float32) / 255.0, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_CUBIC)
    smile = np.clip(smile, 0.0, 1.0)
    u = np.clip(np.abs(x - MOUTH_CENTRE[0]) / MOUTH_HALF_WIDTH, 0.0, 1.0)
    above = mouth_line(x) - y
    bow = (1 - u**2) ** 0.6
    lips = smoothstep(above, -7.2 * bow - 0.2, -5.6 * bow + 0.1) * smoothstep(
        -above, -5.0 * bow - 0.2, -3.6 * bow + 0.1
    )
    eyes = _ellipse(x, y, 203.5, 101, 8.5, 4.2) | _ellipse(x, y, 249, 103, 8.5, 4.2)
    neck = _polygon(_NECK, 1.0)
    hair = np.clip(_beyond_edge(hair[..., None], person)[..., 0], 0.0, 1.0)
    skin = (1.0 - hair) * (1.0 - 0.55 * cv2.GaussianBlur(eyes.astype(np.float32), (0, 0), 1.5))
    # Beside the jaw lies only background; it would show where the cheeks draw in.
    below = smoothstep(y, 145.0, 149.0) * (1.0 - ((x > 186) & (x < 290) & (y < 171)))
    return Photograph(
        upper=upper,
        lower=lower,
        body=_beyond_edge(_behind_chin(smile, x, y), np.maximum(person * below, neck)),
        smile=smile,
        head=head.astype(np.float32),
        neck=neck,
        clothed=(person * below * (1.0 - np.maximum(neck, head))).astype(np.float32),
        hair=hair.astype(np.float32),
        skin=skin.astype(np.float32),
        suit=suit,
        lips=(lips * smoothstep(bow, 0.0, 0.35)).astype(np.float32),
    )
