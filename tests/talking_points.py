# SPDX-License-Identifier: Apache-2.0
"""A drawn face of 68 points whose mouth opens and whose head drifts, one independent of the other."""

import cv2
import numpy as np

from lipsync_bench.datamodules.faces.geometry import Geometry

FRAME_HW = (260, 240)

__all__ = ["FRAME_HW", "drawn_frames", "face_points", "geometry_of_points"]


def face_points(opening: np.ndarray, drift: np.ndarray, size: float = 1.0) -> np.ndarray:
    """float32 (T, 68, 2), x y in pixels: a frontal face about (120, 120), its jaw and lower lip moved by the opening.

    Args:
        opening: (T,), pixels.
        drift: (T, 2), pixels.
        size: Factor.
    """
    angle = np.pi * np.arange(17) / 16
    jaw = np.stack([-52 * np.cos(angle), 62 * np.sin(angle) + 4], axis=1)
    brows = [(x, -32) for x in np.r_[np.linspace(-42, -12, 5), np.linspace(12, 42, 5)]]
    nose = [(0, y) for y in (-15, -8, -1, 6)] + [(x, 14) for x in (-10, -5, 0, 5, 10)]
    circle = np.stack([np.cos(x := 2 * np.pi * np.arange(6) / 6 + np.pi), np.sin(x)], axis=1)
    eyes = [*(circle * (9, 4) + (-26, -16)), *(circle * (9, 4) + (26, -16))]
    ring = np.stack([np.cos(x := 2 * np.pi * np.arange(12) / 12 + np.pi), np.sin(x)], axis=1) * (18, 5) + (0, 34)
    inner = np.stack([np.cos(x := 2 * np.pi * np.arange(8) / 8 + np.pi), np.sin(x)], axis=1) * (12, 2) + (0, 34)
    face = np.concatenate([jaw, brows, nose, eyes, ring, inner])
    moved = np.zeros(68)
    moved[3:14] = np.sin(angle[3:14]) ** 4
    moved[55:60] = moved[65:68] = 1.0
    points = np.broadcast_to(face * size, (len(opening), 68, 2)).copy()
    points[..., 1] += opening[:, None] * moved
    return (points + (120, 120) + drift[:, None]).astype(np.float32)


def geometry_of_points(points: np.ndarray, size_hw: tuple[int, int] = FRAME_HW) -> Geometry:
    """All frames visible."""
    boxes = np.concatenate([points.min(1), points.max(1)], axis=1).astype(np.float32)
    return Geometry(size_hw, np.ones(len(points), bool), boxes, points[:, :30], points)


def drawn_frames(points: np.ndarray, size_hw: tuple[int, int] = FRAME_HW) -> list[np.ndarray]:
    """uint8 RGB pictures of the faces: skin, eyes, brows, lips and the dark inside of the mouth, on a gradient."""
    row, column = np.mgrid[: size_hw[0], : size_hw[1]]
    ground = np.stack([row * 0.3 + 40, column * 0.4 + 30, row * 0.2 + column * 0.2], axis=-1).astype(np.uint8)
    frames = []
    for face in points:
        image, whole = ground.copy(), np.rint(face).astype(np.int32)
        cv2.fillConvexPoly(image, cv2.convexHull(whole), (205, 165, 140))
        for first, last, colour in ((36, 42, (70, 60, 90)), (42, 48, (70, 60, 90)), (48, 60, (160, 70, 80))):
            cv2.fillPoly(image, [whole[first:last]], colour)
        cv2.fillPoly(image, [whole[60:68]], (40, 10, 15))
        frames.append(image)
    return frames
