# SPDX-License-Identifier: Apache-2.0
"""Deep3DFaceRecon's network: the 3DMM coefficients of a face. VideoReTalking's D-Net is driven by them.

Deng, Yang, Xu, Chen, Jia, Tong: Accurate 3D Face Reconstruction with Weakly-Supervised Learning. CVPRW 2019.
https://arxiv.org/abs/1903.08527. Layers and names are facts of the weight file (face3d_pretrain_epoch_20.pth, under
`net_recon`); how a face is placed are facts of VideoReTalking's released inference.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import resnet50

from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.datamodules.files.weights import load_weights
from lipsync_bench.datamodules.weights.official_weights import OfficialWeights
from lipsync_bench.datamodules.weights.store import Store
from lipsync_bench.models.core.weight_files import RANDOM

DEEP3D = "deep3d_face"
"""Id of the official file."""
FROM_STORE = "official"
SIZE = 224
"""Height and width of the faces."""
HEADS = (80, 64, 80, 3, 27, 2, 1)
"""Values of identity, expression, texture, angles, light, translation x y, translation z."""
STANDARD_POINTS = np.array(
    [[-0.31, 0.29, 0.13], [0.31, 0.29, 0.13], [0, 0, 0.5], [-0.25, -0.32, 0.2], [0.25, -0.32, 0.2]]
)
"""Left eye, right eye, nose, left and right corner of the mouth of a mean face, x to the right, y up, z to the viewer.

Differs: rounded; the released code reads the mean points of the Basel Face Model, which has a licence of its own.
"""
_FEATURES = 2048
_EXTENT_PX = 102.0  # mean length of the two axes of a placed face
_EXPECTED = "face3d_pretrain_epoch_20.pth, documented at github.com/OpenTalker/video-retalking (README)"
_REPAIR = "Name it with --weights deep3d_face=PATH, or run: bench weights fetch deep3d_face"

_log = logging.getLogger(__name__)

__all__ = [
    "DEEP3D",
    "FROM_STORE",
    "HEADS",
    "SIZE",
    "STANDARD_POINTS",
    "FaceCoefficients",
    "face_crop",
    "find_face_coefficients",
    "load_face_coefficients",
    "points_as_standard",
    "regressed",
]


class FaceCoefficients(nn.Module):
    """Faces (N,3,224,224), RGB in [0, 1] without normalisation, to coefficients (N,257)."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = resnet50(weights=None)
        self.backbone.fc = nn.Identity()
        self.final_layers = nn.ModuleList(nn.Conv2d(_FEATURES, values, 1) for values in HEADS)

    def forward(self, faces: Tensor) -> Tensor:
        """See the class."""
        features = self.backbone(faces)[:, :, None, None]
        return torch.cat([head(features) for head in self.final_layers], dim=1).flatten(1)


def load_face_coefficients(path: Path | str) -> FaceCoefficients:
    """The network with the weights of a file, frozen, on the CPU.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file holds something else, or names or shapes differ.
    """
    return load_weights(FaceCoefficients(), Path(path), _EXPECTED, _REPAIR, outer=("net_recon",))


def points_as_standard(landmarks: np.ndarray) -> np.ndarray:
    """68 points (68,2) -> left eye, right eye, nose, left and right corner of the mouth, (5,2)."""
    groups: Sequence[list[int]] = ([36, 39], [42, 45], [30], [48], [54])
    return np.stack([landmarks[group].mean(axis=0) for group in groups])


def face_crop(
    image: np.ndarray, landmarks: np.ndarray, standard: np.ndarray = STANDARD_POINTS
) -> tuple[np.ndarray, np.ndarray]:
    """A face as the network takes it: scaled so that it has the standard's size, its middle in the middle.

    Args:
        image: uint8 RGB (H,W,3).
        landmarks: 68 points (68,2) in its pixels, y down.
        standard: (5,3), as `STANDARD_POINTS`.

    Returns:
        uint8 (224,224,3), black where it exceeds the image; and width, height, scale, x, y of the crop, float64.

    Raises:
        ValueError: The points are not those of a face: they coincide.
    """
    height, width = image.shape[:2]
    points = points_as_standard(np.stack([landmarks[:, 0], height - 1 - landmarks[:, 1]], axis=1).astype(np.float64))
    known = np.concatenate([standard, np.ones((5, 1))], axis=1)
    (axis_x, x), (axis_y, y) = ((row[:3], row[3]) for row in np.linalg.lstsq(known, points, rcond=None)[0].T)
    extent = (np.linalg.norm(axis_x) + np.linalg.norm(axis_y)) / 2
    if not extent > 1e-3:
        raise ValueError("the 68 points are not those of a face: they coincide. Expected an upright face. Leave it out")
    scale = _EXTENT_PX / extent
    wide, high = int(width * scale), int(height * scale)
    left = int(wide / 2 - SIZE / 2 + (x - width / 2) * scale)
    top = int(high / 2 - SIZE / 2 + (height / 2 - y) * scale)
    resized = Image.fromarray(image).resize((wide, high), Image.Resampling.BICUBIC)
    crop = resized.crop((left, top, left + SIZE, top + SIZE))
    return np.asarray(crop), np.array([width, height, scale, x, y])


@torch.inference_mode()
def regressed(network: FaceCoefficients, faces: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Rows of coefficients, float32 (N,262), of faces uint8 RGB (N,H,W,3) with their 68 points (N,68,2) in pixels."""
    placed = [face_crop(face, points) for face, points in zip(faces, landmarks, strict=True)]
    images = torch.from_numpy(np.stack([image for image, _ in placed])).permute(0, 3, 1, 2)
    values = network(images.to(next(network.parameters()).device).float() / 255).cpu().numpy()
    return np.concatenate([values, np.stack([crop for _, crop in placed])], axis=1).astype(np.float32)


def find_face_coefficients(given: str, store: Store) -> tuple[FaceCoefficients, str]:
    """The network, and what its weights are called where they are recorded.

    Args:
        given: "official" for the file in the store, "random" for smoke runs, or a file.
        store: Where the official file is looked for.

    Raises:
        FileNotFoundError: The file is not here.
        ValueError: As `load_face_coefficients`.
    """
    if given == RANDOM:
        _log.warning("Deep3DFaceRecon has RANDOM weights, as asked for: its coefficients mean nothing")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return FaceCoefficients().requires_grad_(False).eval(), RANDOM
    path = store.need(DEEP3D).path if given == FROM_STORE else Path(given)
    return load_face_coefficients(path), sha256(path)


OFFICIAL = (
    OfficialWeights(
        name="deep3d_face",
        use="bench coefficients, with --weights deep3d_face={out}",
        build=lambda _: FaceCoefficients(),
        outer=("net_recon",),
    ),
)
