# SPDX-License-Identifier: Apache-2.0
"""ArcFace with a ResNet-50, whose features tell who somebody is; E-Net's identity loss looks through it.

Deng, Guo, Xue, Zafeiriou: ArcFace: Additive Angular Margin Loss for Deep Face Recognition. CVPR 2019.
https://arxiv.org/abs/1801.07698. Layers and names are those of the weight files of github.com/deepinsight/insightface
(arcface_torch, `backbone.pth`); its models are for non-commercial research alone, and are never downloaded.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.datamodules.files.weights import load_weights
from lipsync_bench.datamodules.weights.official_weights import OfficialWeights
from lipsync_bench.models.core.weight_files import RANDOM

SIZE = 112
_BLOCKS, _CHANNELS = (3, 4, 14, 3), (64, 128, 256, 512)
_ROWS, _COLUMNS = (0.14, 0.87), (0.125, 0.86)  # of a face cut by a detector's box that ArcFace sees
_EXPECTED = "backbone.pth of insightface's arcface_torch, a ResNet-50 (r50)"
_REPAIR = "Name it with --model.init_args.identity_weights FILE, or leave it out for a training without that loss"

__all__ = ["ArcFace", "IdentityLoss"]


class _Block(nn.Module):
    """BN, conv, BN, PReLU, conv of the block's stride, BN; added to the input."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return y + (self.downsample(x) if hasattr(self, "downsample") else x)


class ArcFace(nn.Module):
    """Faces (N,3,112,112), RGB in [-1, 1], to features (N,512) of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, _CHANNELS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_CHANNELS[0])
        self.prelu = nn.PReLU(_CHANNELS[0])
        inputs = _CHANNELS[0]
        for number, (blocks, channels) in enumerate(zip(_BLOCKS, _CHANNELS, strict=True), 1):
            layer = [_Block(inputs if index == 0 else channels, channels, 2 - bool(index)) for index in range(blocks)]
            self.add_module(f"layer{number}", nn.Sequential(*layer))
            inputs = channels
        self.bn2 = nn.BatchNorm2d(inputs)
        self.fc = nn.Linear(inputs * (SIZE // 16) ** 2, 512)
        self.features = nn.BatchNorm1d(512)

    def forward(self, faces: Tensor) -> Tensor:
        """See the class."""
        x = self.prelu(self.bn1(self.conv1(faces)))
        for number in range(1, len(_BLOCKS) + 1):
            x = getattr(self, f"layer{number}")(x)
        return F.normalize(self.features(self.fc(self.bn2(x).flatten(1))))


class IdentityLoss(nn.Module):
    """Distance between the features of two faces.

    Args:
        weights: The file; or "random" for smoke runs.

    Raises:
        FileNotFoundError, ValueError: There is no such file, or it holds something else.
    """

    def __init__(self, weights: str) -> None:
        super().__init__()
        self.network = ArcFace()
        self.source_sha256 = weights
        if weights != RANDOM:
            load_weights(self.network, Path(weights), _EXPECTED, _REPAIR)
            self.source_sha256 = sha256(Path(weights))
        self.requires_grad_(False).eval()

    def forward(self, generated: Tensor, target: Tensor) -> Tensor:
        """RGB faces (N,3,H,W) in [0, 1], cut by a detector's box -> the mean Euclidean distance, from 0 to 2."""
        with torch.no_grad():
            wanted = self.network(self._seen(target))
        return torch.linalg.vector_norm(self.network(self._seen(generated)) - wanted, dim=1).mean()

    @staticmethod
    def _seen(faces: Tensor) -> Tensor:
        (top, bottom), (left, right) = (
            [round(share * side) for share in shares]
            for shares, side in zip((_ROWS, _COLUMNS), faces.shape[2:], strict=True)
        )
        face = F.interpolate(faces[..., top:bottom, left:right], (SIZE, SIZE), mode="bilinear", align_corners=False)
        return face * 2 - 1


OFFICIAL = (
    OfficialWeights(
        name="arcface",
        use="--model.init_args.identity_weights {out} of E-Net's training",
        build=lambda _: ArcFace(),
    ),
)
