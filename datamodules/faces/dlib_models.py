# SPDX-License-Identifier: Apache-2.0
"""dlib's trained models, found in the installed package face_recognition_models.

The package is used only as a folder of models; importing it needs pkg_resources, which newer setuptools lack.
"""

import importlib.util
from pathlib import Path

__all__ = ["EMBEDDING", "LANDMARKS68", "PACKAGE", "dlib_model"]

PACKAGE = "face_recognition_models"
EMBEDDING = "dlib_face_recognition_resnet_model_v1.dat"
LANDMARKS68 = "shape_predictor_68_face_landmarks.dat"


def dlib_model(file: str, what: str) -> Path:
    """The path of a model.

    Args:
        file: Its file name.
        what: Its description, for the message.

    Raises:
        FileNotFoundError: The package or the file is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    path = Path(spec.origin).parent / "models" / file if spec is not None and spec.origin else None
    if path is None or not path.is_file():
        raise FileNotFoundError(f"{PACKAGE}/models/{file} not found, expected {what}. Run: pip install {PACKAGE}")
    return path
