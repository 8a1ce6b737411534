# SPDX-License-Identifier: Apache-2.0
"""The face parser: skin, lips, hair and so on, pixel by pixel. HyperLips pastes its faces back with it.

Yu et al.: BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation. ECCV 2018
(https://arxiv.org/abs/1808.00897), without its spatial path and with the classes of CelebAMask-HQ, as in the public
model of the project face-parsing.PyTorch.
"""

from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from lipsync_bench.datamodules.files.weights import load_weights
from lipsync_bench.datamodules.weights.official_weights import OfficialWeights

CLASSES = (
    "background", "skin", "left_brow", "right_brow", "left_eye", "right_eye", "glasses", "left_ear", "right_ear",
    "earring", "nose", "mouth", "upper_lip", "lower_lip", "neck", "necklace", "cloth", "hair", "hat",
)  # fmt: skip
"""Name of each label."""
SIZE = 512
"""Height and width that images are parsed at."""
MEAN_RGB = (0.485, 0.456, 0.406)
STD_RGB = (0.229, 0.224, 0.225)
_EXPECTED = (
    "the file face_segmentation.pth of the HyperLips project page (it is the 19-class model of the "
    "face-parsing.PyTorch project page)"
)
_REPAIR = "Name it with --weights face_segmentation=PATH, or run: bench weights fetch face_segmentation"

__all__ = ["CLASSES", "MEAN_RGB", "SIZE", "STD_RGB", "FaceParser", "load_face_parser", "parse_face"]


class _ConvBNReLU(nn.Module):
    """ReLU(BN(conv(x))), of the same size."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class _AttentionRefinement(nn.Module):
    """y * sigmoid(BN(conv 1x1(mean of y))), y = ReLU(BN(conv 3x3(x)))."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = _ConvBNReLU(inputs, outputs)
        self.conv_atten = nn.Conv2d(outputs, outputs, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y * torch.sigmoid(self.bn_atten(self.conv_atten(F.adaptive_avg_pool2d(y, 1))))


class _ContextPath(nn.Module):
    """ResNet-18, whose last two maps are refined and added up on their way to an eighth of the size."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = ResNet(BasicBlock, [2, 2, 2, 2])
        del self.resnet.avgpool, self.resnet.fc
        self.arm16 = _AttentionRefinement(256, 128)
        self.arm32 = _AttentionRefinement(512, 128)
        self.conv_head32 = _ConvBNReLU(128, 128)
        self.conv_head16 = _ConvBNReLU(128, 128)
        self.conv_avg = _ConvBNReLU(512, 128, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N,3,H,W) -> (N,128,H/8,W/8) of the trunk, the same of the sum, (N,128,H/16,W/16) of the sum."""
        trunk = self.resnet
        x = trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(x))))  # 1/4
        f8 = trunk.layer2(trunk.layer1(x))
        f16 = trunk.layer3(f8)
        f32 = trunk.layer4(f16)
        mean = self.conv_avg(F.adaptive_avg_pool2d(f32, 1))
        up16 = self.conv_head32(F.interpolate(self.arm32(f32) + mean, f16.shape[2:], mode="nearest"))
        up8 = self.conv_head16(F.interpolate(self.arm16(f16) + up16, f8.shape[2:], mode="nearest"))
        return f8, up8, up16


class _FeatureFusion(nn.Module):
    """y * sigmoid(conv(ReLU(conv(mean of y)))) + y, y of both inputs together."""

    def __init__(self) -> None:
        super().__init__()
        self.convblk = _ConvBNReLU(256, 256, 1)
        self.conv1 = nn.Conv2d(256, 64, 1, bias=False)
        self.conv2 = nn.Conv2d(64, 256, 1, bias=False)

    def forward(self, trunk: Tensor, context: Tensor) -> Tensor:
        y = self.convblk(torch.cat([trunk, context], dim=1))
        attention = torch.sigmoid(self.conv2(F.relu(self.conv1(F.adaptive_avg_pool2d(y, 1)))))
        return y * attention + y


class _Head(nn.Module):
    """A logit a class and pixel."""

    def __init__(self, inputs: int, middle: int) -> None:
        super().__init__()
        self.conv = _ConvBNReLU(inputs, middle)
        self.conv_out = nn.Conv2d(middle, len(CLASSES), 1, bias=False)

    def forward(self, x: Tensor, size_of: Tensor) -> Tensor:
        logits = self.conv_out(self.conv(x))
        return F.interpolate(logits, size_of.shape[2:], mode="bilinear", align_corners=True)


class FaceParser(nn.Module):
    """BiSeNet for faces, with the state-dict names of `face_segmentation.pth`.

    ```
    image (N,3,H,W) - cp - trunk 128@H/8, sums 128@H/8 and 128@H/16
                           trunk and sum - ffm - 256@H/8 - conv_out - logits (N,19,H,W)
                           the sums - conv_out16, conv_out32 - auxiliary logits, for training
    ```
    Images are RGB / 255, minus MEAN_RGB, over STD_RGB. Use it in evaluation mode; `parse_face` does the rest.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cp = _ContextPath()
        self.ffm = _FeatureFusion()
        self.conv_out = _Head(256, 256)
        self.conv_out16 = _Head(128, 64)
        self.conv_out32 = _Head(128, 64)

    def logits(self, images: Tensor) -> Tensor:
        """(N,3,H,W) -> (N,19,H,W), of the main head."""
        trunk, up8, _ = self.cp(images)
        return self.conv_out(self.ffm(trunk, up8), images)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N,3,H,W) -> three times (N,19,H,W): the main head and the two auxiliary ones."""
        trunk, up8, up16 = self.cp(images)
        return self.conv_out(self.ffm(trunk, up8), images), self.conv_out16(up8, images), self.conv_out32(up16, images)


@torch.no_grad()
def parse_face(network: FaceParser, image_rgb: np.ndarray) -> np.ndarray:
    """Label of each pixel of a face crop, at 512 x 512.

    Args:
        network: with its weights, in evaluation mode.
        image_rgb: (H,W,3) uint8 RGB, of any size.

    Returns:
        (512,512) uint8, indices into CLASSES.

    Raises:
        ValueError: the image has another shape or type.
    """
    if image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or image_rgb.dtype != np.uint8:
        raise ValueError(
            f"image_rgb has shape {image_rgb.shape} and dtype {image_rgb.dtype}. Expected (H, W, 3) uint8, RGB. Use "
            "lipsync_bench.datamodules.media.video.read_frames"
        )
    pixels = cv2.resize(np.ascontiguousarray(image_rgb), (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    weight = next(network.parameters())
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(weight) / 255  # (1,3,512,512)
    mean, std = (torch.tensor(value)[:, None, None].to(weight) for value in (MEAN_RGB, STD_RGB))
    labels = network.logits((planes - mean) / std).argmax(dim=1)
    return labels[0].to(torch.uint8).cpu().numpy()


def load_face_parser(path: Path | str) -> FaceParser:
    """The network with the weights of `face_segmentation.pth` (a flat mapping of names to tensors), frozen, on the CPU.

    Strict but for `num_batches_tracked`, which files of old framework versions lack and which evaluation never reads.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no mapping of tensors, or names or shapes differ.
    """
    return load_weights(FaceParser(), Path(path), _EXPECTED, _REPAIR)


OFFICIAL = (
    OfficialWeights(
        name="face_parsing",
        use="bench evaluate and bench dub --parsing, with --weights face_segmentation={out}",
        build=lambda _: FaceParser(),
    ),
)
