# SPDX-License-Identifier: Apache-2.0
"""Which expression D-Net gives all frames of a video: 64 of the 3DMM coefficients.

The released templates are a file, expression.mat. In this 3DMM zeros are the mean face, which is neutral: it takes the
neutral template's place where the file is not here. The smile has no such stand-in, but any photograph's expression
can be taken.
"""

from pathlib import Path

import numpy as np
from scipy.io import loadmat

from lipsync_bench.datamodules.datasets.stills import read_image
from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.faces.crop_rules.boxes import BoxCut
from lipsync_bench.datamodules.faces.crop_rules.ffhq_rectangle import ffhq_rectangle
from lipsync_bench.datamodules.weights.store import Store
from lipsync_bench.models.pretrained.face_coefficients import FaceCoefficients, regressed
from lipsync_bench.models.videoretalking.dnet.coefficients import EXPRESSION
from lipsync_bench.models.videoretalking.references import ffhq_corners

TEMPLATES = "videoretalking_expression"
"""Id of the official file."""
NEUTRAL, SMILE = "neutral", "smile"
MEAN_FACE = "neutral template (the mean face in its place)"
_ROWS = {NEUTRAL: "expression_center", SMILE: "expression_mouth"}
_VALUES = EXPRESSION.stop - EXPRESSION.start
_LARGEST_BYTES = 64 << 20

__all__ = ["MEAN_FACE", "NEUTRAL", "SMILE", "TEMPLATES", "expression_of", "expression_template", "stored_template"]


def stored_template(path: Path, template: str) -> np.ndarray:
    """The first row of a template in expression.mat, float32 (64,).

    Raises:
        ValueError: The file holds something else.
    """
    key = _ROWS[template]
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise ValueError("a file of that size")
        with np.errstate(over="ignore"):  # refused below
            rows = np.asarray(loadmat(path, variable_names=[key])[key], np.float32)
        row = rows.reshape(len(rows), -1)[0, :_VALUES]
    except Exception as error:  # its reader fails in every way
        raise ValueError(_told(path, key, f"{type(error).__name__}: {error}"[:200])) from error
    if row.shape != (_VALUES,) or not np.isfinite(row).all():
        raise ValueError(_told(path, key, f"{key} has the shape {rows.shape}"))
    return row


def _told(path: Path, key: str, found: str) -> str:
    return (
        f"{path}: {found}. Expected expression.mat of VideoReTalking, with rows of {_VALUES} numbers called {key}. "
        f"Name it with --weights {TEMPLATES}=PATH, or run: bench weights fetch {TEMPLATES}"
    )


def expression_of(path: Path, network: FaceCoefficients, size_hw: tuple[int, int]) -> np.ndarray:
    """The expression of a photograph's face, float32 (64,).

    Args:
        path: Of an image file.
        network: Which regresses it.
        size_hw: Of the faces that it is shown.

    Raises:
        MediaError: It cannot be read, or shows no upright face.
    """
    from lipsync_bench.datamodules.faces.detectors import detect_landmarks68  # loads MediaPipe

    image = read_image(path)
    found = detect_landmarks68(image)
    if found is None:
        raise MediaError(f"{path}: shows no upright face. Expected one, whose expression is taken. Name another image")
    landmarks, frame_hw = found[1], (image.shape[0], image.shape[1])
    box = ffhq_rectangle(ffhq_corners(landmarks, frame_hw), frame_hw)
    cut = BoxCut(box)
    points = cut.points(landmarks, size_hw)
    return regressed(network, cut.face(image, size_hw)[None], points[None])[0, EXPRESSION]


def expression_template(
    template: str, share: float, store: Store, network: FaceCoefficients, size_hw: tuple[int, int]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The expression of all frames, float32 (64,), and what had to take the place of a published template.

    Args:
        template: neutral, smile, or the path of a photograph.
        share: How far it lies from the neutral expression on the way to the template.
        store: Where expression.mat is looked for.
        network: Which regresses the expression of a photograph.
        size_hw: Of the faces that it is shown.

    Raises:
        FileNotFoundError: expression.mat is needed and not here; there is no such photograph.
        MediaError, ValueError: As `expression_of`, `stored_template`.
    """
    file = store.find(TEMPLATES)
    neutral = np.zeros(_VALUES, np.float32) if file is None else stored_template(file.path, NEUTRAL)
    instead = (MEAN_FACE,) if file is None else ()
    if template == NEUTRAL or share == 0:
        return neutral, instead
    if template == SMILE:
        goal = stored_template(store.need(TEMPLATES).path, SMILE)
    else:
        goal = expression_of(Path(template), network, size_hw)
    return ((1 - share) * neutral + share * goal).astype(np.float32), instead if share < 1 else ()
