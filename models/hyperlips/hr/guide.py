# SPDX-License-Identifier: Apache-2.0
"""What HyperLips-HR is shown at inference: a base face and the sketch of the face that is seen in it."""

from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from lipsync_bench.datamodules.faces.geometry import runs
from lipsync_bench.models.hyperlips.hr.face_mesh import find_meshes
from lipsync_bench.models.hyperlips.hr.sketch import (
    BOTTLENECK_PX,
    draw_sketch,
    inference_sketch,
    smooth_landmarks,
    training_sketch,
)

Rule = Literal["training", "released"]

__all__ = ["Guide", "Rule", "guide"]


class Guide(NamedTuple):
    """Inputs of the HR decoder for N frames.

    Args:
        faces: (N,3,S,S) in [0, 1], the network's colour order.
        sketches: (N,1,S,S) in [0, 1]; zero where no face was found.
        found: (N,) bool, whether there is a sketch; True everywhere if none was wanted.
    """

    faces: Tensor
    sketches: Tensor
    found: Tensor


def _bytes(faces: Tensor) -> np.ndarray:
    """(N,3,H,W) in [0, 1] -> uint8 (N,H,W,3), truncated as the released code does."""
    return (faces.float() * 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def _smoothed(meshes: np.ndarray, found: np.ndarray, window: int) -> np.ndarray:
    """Meshes (N,478,3) with every run of frames that have a face smoothed by itself."""
    out = meshes.copy()
    for start, stop in runs(found):
        out[start:stop] = smooth_landmarks(meshes[start:stop], window)
    return out


def guide(base: Tensor, rule: Rule, scale: int, smooth_frames: int | None = None, sketch: bool = True) -> Guide:
    """Faces and sketches for the HR decoder.

    Args:
        base: (N,3,128,128) in [0, 1], BGR, consecutive frames of the base network.
        rule: "training": the faces as they are and the sketch as in training, 128 pixels, Face Mesh on RGB.
            "released": faces go through 8 bits and are enlarged to 128 * scale, Face Mesh sees BGR, and the sketch is
            drawn at 128 pixels and enlarged, neither blurred nor cut.
        scale: of the decoder.
        smooth_frames: half the length of the running mean over the landmarks; None for none. It does not reach across
            frames without a face.
        sketch: False: sketches are black, and no face is looked for.
    """
    images = _bytes(base)
    if rule == "training":
        images = images[..., ::-1]
    else:
        images = np.stack([_enlarged(image, BOTTLENECK_PX * scale) for image in images])
    size = images.shape[1]
    sketches, found = np.zeros((len(images), 1, size, size), np.uint8), np.ones(len(images), bool)
    if sketch:
        meshes, found = find_meshes(images)
        if smooth_frames is not None:
            meshes = _smoothed(meshes, found, smooth_frames)
        for index in np.flatnonzero(found):
            if rule == "training":
                sketches[index, 0] = training_sketch(draw_sketch(meshes[index], (size, size)))
            else:
                sketches[index, 0] = inference_sketch(meshes[index], size)
    faces = base if rule == "training" else _tensor(images.transpose(0, 3, 1, 2), base)
    return Guide(faces, _tensor(sketches, base), torch.from_numpy(found).to(base.device))


def _enlarged(image: np.ndarray, size_px: int) -> np.ndarray:
    if image.shape[0] == size_px:
        return image
    return cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_LINEAR)


def _tensor(images: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images)).to(like) / 255
