# SPDX-License-Identifier: Apache-2.0
"""Who speaks: shape of the face, colours, light, background and voice of one synthetic speaker."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = ["Person", "make_person"]

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Person:
    """One speaker: colours are RGB in [0, 1], lengths are photograph pixels (the face is 108 of them high).

    Factors are 1 for the face in the photograph.
    """

    name: str
    mirrored: bool = False
    # shape
    face_width: float = 1.0
    jaw_width: float = 1.0
    chin_px: float = 0.0
    eye_spread_px: float = 0.0
    eye_size: float = 1.0
    nose_width: float = 1.0
    nose_px: float = 0.0
    mouth_width: float = 1.0
    hair_volume: float = 1.0
    hair_top_px: float = 0.0
    # colour
    skin_gain: Colour = (1.0, 1.0, 1.0)
    skin_gamma: float = 1.0
    hair_colour: Colour | None = None
    brows: float = 0.2
    lip_tint: Colour = (0.95, 0.78, 0.78)
    clothes: Literal["suit", "sweater", "jacket"] = "sweater"
    clothes_colour: Colour = (0.9, 0.35, 0.2)
    shirt_colour: Colour = (0.8, 0.8, 0.82)
    stubble: float = 0.0
    glasses: bool = False
    # light
    light_side: float = 0.0
    light_colour: Colour = (1.0, 1.0, 1.0)
    # behind
    background: str = "plain"
    background_colours: tuple[Colour, Colour] = ((0.78, 0.76, 0.77), (0.6, 0.6, 0.62))
    # voice
    pitch_hz: float = 190.0
    tract: float = 1.0  # factor on all formants: 1.0 a woman, 0.86 a man


_CAST = (
    Person(
        "s01",
        clothes="suit",
        clothes_colour=(0.95, 0.38, 0.22),
        background="soft",
        background_colours=((0.74, 0.72, 0.75), (0.55, 0.54, 0.6)),
        light_side=0.12,
        hair_volume=0.97,
        pitch_hz=196.0,
        tract=1.0,
        brows=0.25,
    ),
    Person(
        "s02",
        mirrored=True,
        face_width=1.04,
        jaw_width=1.08,
        chin_px=5.0,
        eye_spread_px=-0.8,
        eye_size=0.94,
        nose_width=1.16,
        nose_px=1.5,
        mouth_width=1.06,
        hair_volume=0.80,
        hair_top_px=5.0,
        skin_gain=(0.92, 0.84, 0.76),
        skin_gamma=1.12,
        hair_colour=(0.19, 0.13, 0.10),
        brows=0.75,
        lip_tint=(0.84, 0.64, 0.62),
        clothes="jacket",
        shirt_colour=(0.62, 0.70, 0.80),
        clothes_colour=(0.16, 0.23, 0.42),
        stubble=0.20,
        light_side=-0.25,
        background="blinds",
        background_colours=((0.28, 0.36, 0.42), (0.46, 0.54, 0.58)),
        pitch_hz=112.0,
        tract=0.86,
    ),
    Person(
        "s03",
        face_width=0.95,
        jaw_width=0.92,
        chin_px=-2.0,
        eye_spread_px=1.2,
        eye_size=1.10,
        nose_width=0.95,
        mouth_width=0.95,
        hair_volume=1.0,
        skin_gain=(0.70, 0.57, 0.49),
        skin_gamma=1.28,
        hair_colour=(0.10, 0.08, 0.07),
        brows=0.8,
        lip_tint=(0.88, 0.62, 0.64),
        clothes_colour=(0.62, 0.16, 0.34),
        light_side=0.20,
        light_colour=(1.04, 1.0, 0.94),
        background="bokeh",
        background_colours=((0.24, 0.16, 0.12), (0.95, 0.66, 0.34)),
        pitch_hz=214.0,
        tract=1.03,
    ),
    Person(
        "s04",
        mirrored=True,
        face_width=1.02,
        jaw_width=1.05,
        chin_px=3.0,
        eye_size=0.96,
        nose_width=1.08,
        nose_px=2.0,
        hair_volume=0.83,
        hair_top_px=2.0,
        skin_gain=(0.98, 0.90, 0.86),
        skin_gamma=1.0,
        hair_colour=(0.62, 0.62, 0.63),
        brows=0.15,
        lip_tint=(0.86, 0.74, 0.74),
        clothes="jacket",
        clothes_colour=(0.22, 0.24, 0.26),
        glasses=True,
        light_side=0.22,
        light_colour=(0.96, 1.0, 1.05),
        background="shelves",
        background_colours=((0.36, 0.26, 0.18), (0.62, 0.52, 0.38)),
        pitch_hz=128.0,
        tract=0.90,
    ),
    Person(
        "s05",
        face_width=0.98,
        jaw_width=0.95,
        chin_px=1.0,
        eye_spread_px=0.6,
        eye_size=1.06,
        nose_px=-1.5,
        nose_width=0.92,
        mouth_width=1.05,
        hair_volume=1.04,
        hair_top_px=-2.0,
        skin_gain=(1.06, 1.0, 0.98),
        skin_gamma=0.92,
        hair_colour=(0.50, 0.22, 0.11),
        brows=0.35,
        lip_tint=(0.92, 0.50, 0.52),
        clothes_colour=(0.10, 0.42, 0.36),
        light_side=-0.16,
        background="gradient",
        background_colours=((0.16, 0.34, 0.42), (0.62, 0.78, 0.76)),
        pitch_hz=232.0,
        tract=1.07,
    ),
    Person(
        "s06",
        mirrored=True,
        face_width=1.10,
        jaw_width=1.03,
        chin_px=-1.0,
        eye_spread_px=1.6,
        eye_size=0.92,
        nose_width=1.12,
        mouth_width=1.0,
        hair_volume=0.88,
        hair_top_px=3.0,
        skin_gain=(0.84, 0.72, 0.58),
        skin_gamma=1.18,
        hair_colour=(0.15, 0.13, 0.14),
        brows=0.65,
        lip_tint=(0.88, 0.68, 0.68),
        clothes_colour=(0.50, 0.46, 0.14),
        stubble=0.2,
        light_side=0.3,
        light_colour=(1.02, 1.0, 0.97),
        background="plain",
        background_colours=((0.80, 0.74, 0.60), (0.66, 0.58, 0.46)),
        pitch_hz=146.0,
        tract=0.93,
    ),
)


def make_person(index: int, seed: int = 0) -> Person:
    """Speaker number `index`, from 0.

    The first six are a fixed cast, chosen to look and sound unlike each other; the others are drawn by seed.
    """
    if index < len(_CAST):
        return _CAST[index]
    rng = np.random.default_rng((seed, 77, index))

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    def colour(low: float, high: float) -> Colour:
        # Bright colours are rare in clothes and rooms: all three channels have one brightness and differ a little.
        red, green, blue = np.clip(between(low, high) + rng.uniform(-0.13, 0.13, 3), 0.04, 0.95).tolist()
        return red, green, blue

    male = bool(rng.random() < 0.5)
    dark = between(0.0, 1.0)  # complexion
    hair = _CAST[int(rng.integers(1, len(_CAST)))].hair_colour or (0.5, 0.4, 0.25)
    glasses = bool(rng.random() < 0.25)
    first = colour(0.15, 0.8)
    return Person(
        f"s{index + 1:02d}",
        mirrored=bool(rng.random() < 0.5),
        face_width=between(0.94, 1.07),
        jaw_width=between(0.98, 1.07) if male else between(0.9, 1.02),
        chin_px=between(0.0, 5.0) if male else between(-3.0, 2.0),
        eye_spread_px=between(-1.2, 1.8),
        eye_size=between(0.92, 1.1),
        nose_width=between(0.92, 1.16),
        nose_px=between(-1.5, 2.0),
        mouth_width=between(0.94, 1.07),
        hair_volume=between(0.8, 0.9) if male else between(0.93, 1.05),
        hair_top_px=between(-2.0, 5.0),
        skin_gain=(1.05 - 0.45 * dark, 1.0 - 0.52 * dark, 0.97 - 0.58 * dark),
        skin_gamma=0.95 + 0.35 * dark,
        hair_colour=tuple(np.clip(np.array(hair) * between(0.8, 1.25), 0.05, 0.9).tolist()),
        brows=between(0.2, 0.8),
        lip_tint=(between(0.8, 0.92), between(0.5, 0.66), between(0.52, 0.66)),
        clothes="jacket" if rng.random() < 0.5 else "sweater",
        clothes_colour=colour(0.1, 0.6),
        shirt_colour=colour(0.5, 0.9),
        stubble=between(0.0, 0.3) if male and not glasses else 0.0,
        glasses=glasses,
        light_side=between(-0.3, 0.3),
        background=str(rng.choice(["plain", "soft", "gradient", "blinds", "bokeh", "shelves"])),
        background_colours=(first, tuple(np.clip(np.array(first) + between(-0.25, 0.25), 0.05, 0.95).tolist())),
        pitch_hz=between(100.0, 150.0) if male else between(180.0, 240.0),
        tract=between(0.85, 0.95) if male else between(0.98, 1.08),
    )
