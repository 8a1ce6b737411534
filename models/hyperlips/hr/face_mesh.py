# SPDX-License-Identifier: Apache-2.0
"""MediaPipe's Face Mesh on single face crops, as HyperLips' sketches need it.

The detectors of data sets follow faces through whole frames; here every image is looked at by itself, so that what is
found in it does not depend on the images before it, on the size of a batch or on where a run was interrupted.
"""

import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

MESH_POINTS = 478
_CONFIDENCE = 0.5

__all__ = ["MESH_POINTS", "find_meshes"]


@functools.lru_cache(maxsize=1)
def _solution(process: int) -> Any:
    """Face Mesh with irises, for this process: a forked one cannot use its parent's."""
    from lipsync_bench.datamodules.faces.detectors import FaceMesh  # takes seconds, which a training need not spend

    return FaceMesh(
        static_image_mode=True,
        max_num_faces=1,
        refine_landmarks=True,
        min_detection_confidence=_CONFIDENCE,
        min_tracking_confidence=_CONFIDENCE,
    )


def find_meshes(images: Sequence[np.ndarray] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mesh of the face in each image.

    Args:
        images: N uint8 images (H, W, 3). Face Mesh was trained on RGB; HyperLips' released code gives it BGR, which
            moves points by up to 2 px.

    Returns:
        float32 (N, 478, 3), x and y in 0..1 of the image, 0 where no face was found; and bool (N,), whether one was.

    Raises:
        ValueError: an image of another type or shape.
    """
    meshes = np.zeros((len(images), MESH_POINTS, 3), np.float32)
    found = np.zeros(len(images), bool)
    for index, image in enumerate(images):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"image {index} is {image.dtype} {image.shape}. Expected uint8 (H, W, 3). Bring colours in [0, 1] to "
                "0..255 first."
            )
        faces = _solution(os.getpid()).process(np.ascontiguousarray(image)).multi_face_landmarks
        if faces:
            meshes[index] = [(point.x, point.y, point.z) for point in faces[0].landmark]
            found[index] = True
    return meshes, found
