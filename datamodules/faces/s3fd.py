# SPDX-License-Identifier: Apache-2.0
"""The S3FD face detector that the Wav2Lip scripts cut their faces with, for the papers' own protocols.

Zhang, Zhu, Lei, Shi, Wang, Li: S3FD: Single Shot Scale-invariant Face Detector. ICCV 2017,
https://arxiv.org/abs/1708.05237. Official code: the detector folder of github.com/Rudrabha/Wav2Lip, taken from
github.com/1adrianb/face-alignment (BSD 3-clause), whose author offers the weights, `s3fd-619a316812.pth`. The detector
of the SyncNet evaluation is another variant with other weights.

    image (H,W,3) uint8 RGB, minus (104,117,123) - conv1 ... conv5 -+- 256, 512, 512 channels, L2-normalised -+
                                                                    +- fc6, fc7: 1024 channels ----------------+- heads
                                                                    +- conv6, conv7: 512, 256 channels --------+

`detectors.py` imports this file only when the detector is chosen: PyTorch takes seconds.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import nms

from lipsync_bench.datamodules.files.weights import load_weights
from lipsync_bench.datamodules.weights.official_weights import OfficialWeights

# Name, channels in and out, kernel, stride, padding; "M" is a 2x2 pool. fc6 makes the map 4 larger: as published.
_LAYERS: tuple[tuple[str, int, int, int, int, int] | str, ...] = (
    ("conv1_1", 3, 64, 3, 1, 1),
    ("conv1_2", 64, 64, 3, 1, 1),
    "M",
    ("conv2_1", 64, 128, 3, 1, 1),
    ("conv2_2", 128, 128, 3, 1, 1),
    "M",
    ("conv3_1", 128, 256, 3, 1, 1),
    ("conv3_2", 256, 256, 3, 1, 1),
    ("conv3_3", 256, 256, 3, 1, 1),
    "M",
    ("conv4_1", 256, 512, 3, 1, 1),
    ("conv4_2", 512, 512, 3, 1, 1),
    ("conv4_3", 512, 512, 3, 1, 1),
    "M",
    ("conv5_1", 512, 512, 3, 1, 1),
    ("conv5_2", 512, 512, 3, 1, 1),
    ("conv5_3", 512, 512, 3, 1, 1),
    "M",
    ("fc6", 512, 1024, 3, 1, 3),
    ("fc7", 1024, 1024, 1, 1, 0),
    ("conv6_1", 1024, 256, 1, 1, 0),
    ("conv6_2", 256, 512, 3, 2, 1),
    ("conv7_1", 512, 128, 1, 1, 0),
    ("conv7_2", 128, 256, 3, 2, 1),
)
# Layer whose output the heads of a scale read, name of the heads, channels.
_SCALES = (
    ("conv3_3", "conv3_3_norm", 256),
    ("conv4_3", "conv4_3_norm", 512),
    ("conv5_3", "conv5_3_norm", 512),
    ("fc7", "fc7", 1024),
    ("conv6_2", "conv6_2", 512),
    ("conv7_2", "conv7_2", 256),
)
_NORM_WEIGHTS = {"conv3_3_norm": 10.0, "conv4_3_norm": 8.0, "conv5_3_norm": 5.0}
# The means of blue, green and red, subtracted from red, green and blue as in the official code, whose crops need it.
MEANS = (104.0, 117.0, 123.0)
FIRST_STRIDE_PX = 4
ANCHOR_STRIDES = 4  # side of an anchor, in strides
VARIANCES = (0.1, 0.2)
MIN_CANDIDATE = 0.05
MAX_OVERLAP = 0.3
MIN_SCORE = 0.5
MIN_SIDE_PX = 32  # the pools leave nothing of a smaller image
_EXPECTED = (
    "s3fd-619a316812.pth (about 90 MB, 65 tensors; Wav2Lip's README calls it s3fd.pth), documented at "
    "github.com/1adrianb/face-alignment"
)
_REPAIR = "Name it with --weights s3fd=PATH, or run: bench weights fetch s3fd"

__all__ = [
    "MIN_SIDE_PX",
    "S3FD",
    "Rectangle",
    "all_rectangles",
    "find_faces",
    "load_s3fd",
    "network_input",
    "rectangle",
    "rectangles",
]

Rectangle = tuple[int, int, int, int]
"""x1 y1 x2 y2 in whole pixels; x1 and y1 are >= 0, x2 and y2 may exceed the image."""


class _L2Norm(nn.Module):
    """x / |x| over the channels, times a learned weight a channel."""

    def __init__(self, channels: int, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), weight))

    def forward(self, x: Tensor) -> Tensor:
        norm = x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10
        return x / norm * self.weight[:, None, None]


def network_input(images: np.ndarray) -> Tensor:
    """uint8 RGB (B, H, W, 3) -> float32 (B, 3, H, W), the means subtracted.

    Raises:
        ValueError: other shape or type.
    """
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise ValueError(
            f"images are {images.dtype} {images.shape}. Expected uint8 RGB (B, H, W, 3). Read them with "
            "lipsync_bench.datamodules.media.video.read_frames"
        )
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float()
    return pixels - torch.tensor(MEANS)[:, None, None]


def _candidates(cls: Tensor, reg: Tensor, stride: int) -> Tensor:
    """Maps (2, h, w) and (4, h, w) of one scale -> (n, 5): x1, y1, x2, y2, score; row by row."""
    scores = cls.double().softmax(dim=0)[1]
    rows, columns = torch.nonzero(scores > MIN_CANDIDATE, as_tuple=True)
    offsets = reg.double()[:, rows, columns]
    anchor = float(ANCHOR_STRIDES * stride)
    centres = torch.stack([columns, rows]) * stride + stride / 2 + VARIANCES[0] * offsets[:2] * anchor
    sides = anchor * torch.exp(VARIANCES[1] * offsets[2:])
    low = centres - sides / 2
    return torch.cat([low, low + sides, scores[rows, columns][None]]).T


def find_faces(maps: Sequence[Tensor]) -> list[Tensor]:
    """Faces of every image from the network's 12 maps: float64 (n, 5) x1, y1, x2, y2, score; best first, not clipped.

    Boxes overlap by at most 0.3, counted with sides one pixel longer than their difference, and score above 0.5.
    """
    found = []
    for image in range(len(maps[0])):
        boxes = torch.cat(
            [
                _candidates(cls[image], reg[image], FIRST_STRIDE_PX << scale)
                for scale, (cls, reg) in enumerate(zip(maps[::2], maps[1::2], strict=True))
            ]
        )
        kept = boxes[nms(boxes[:, :4] + boxes.new_tensor([0, 0, 1, 1]), boxes[:, 4], MAX_OVERLAP)]
        found.append(kept[kept[:, 4] > MIN_SCORE])
    return found


def _rectangle(face: Tensor) -> Rectangle:
    x1, y1, x2, y2 = (int(max(0.0, value)) for value in face[:4].tolist())
    return x1, y1, x2, y2


def rectangle(faces: Tensor) -> Rectangle | None:
    """The best of the faces (n, 5) as the Wav2Lip scripts use it: clipped at 0 from below, truncated; None without one.

    It is the one with the highest score, not the largest.
    """
    return _rectangle(faces[0]) if len(faces) else None


@torch.no_grad()
def _faces(network: "S3FD", images: np.ndarray) -> list[Tensor]:
    """The faces of `find_faces` in uint8 RGB (B, H, W, 3)."""
    pixels = network_input(images)
    if min(pixels.shape[2:]) < MIN_SIDE_PX:
        raise ValueError(
            f"images are {tuple(pixels.shape[2:])} px. Expected {MIN_SIDE_PX} or more a side. Use larger frames"
        )
    # Without TF32, whose short mantissas would move boxes, a GPU gives the same rectangles as a CPU.
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        maps = network(pixels.to(next(network.parameters()).device))
    return find_faces([x.cpu() for x in maps])


def rectangles(network: "S3FD", images: np.ndarray) -> list[Rectangle | None]:
    """One rectangle an image, or None, for uint8 RGB (B, H, W, 3) of at least 32 x 32 pixels.

    Raises:
        ValueError: other shape or type, or too small.
    """
    return [rectangle(faces) for faces in _faces(network, images)]


def all_rectangles(network: "S3FD", images: np.ndarray) -> list[list[Rectangle]]:
    """As `rectangles`, but those of all faces, the best first."""
    return [[_rectangle(face) for face in faces] for faces in _faces(network, images)]


def load_s3fd(path: Path, device: str | torch.device = "cpu") -> "S3FD":
    """The network with the weights of a plain state dict, frozen, in evaluation mode.

    Raises:
        FileNotFoundError: there is no such file; random weights are never used instead.
        ValueError: the file holds something else; missing and unknown names are listed.
    """
    return load_weights(S3FD(), path, _EXPECTED, _REPAIR).to(device)


class S3FD(nn.Module):
    """The network, with the state-dict names of `s3fd-619a316812.pth` (65 tensors, 22 459 110 parameters).

    Input is (B, 3, H, W) float32 in RGB order, 0..255 minus (104, 117, 123); see `network_input`.
    """

    channel_order = "rgb"

    def __init__(self) -> None:
        super().__init__()
        for layer in _LAYERS:
            if not isinstance(layer, str):
                name, inputs, outputs, kernel, stride, padding = layer
                self.add_module(name, nn.Conv2d(inputs, outputs, kernel, stride, padding))
        for (name, weight), (_, _, channels) in zip(_NORM_WEIGHTS.items(), _SCALES, strict=False):
            self.add_module(name, _L2Norm(channels, weight))
        for scale, (_, name, channels) in enumerate(_SCALES):
            # The scale of the smallest faces has three background channels, of which the largest counts.
            self.add_module(f"{name}_mbox_conf", nn.Conv2d(channels, 4 if scale == 0 else 2, 3, padding=1))
            self.add_module(f"{name}_mbox_loc", nn.Conv2d(channels, 4, 3, padding=1))

    def _taps(self, x: Tensor) -> dict[str, Tensor]:
        """Outputs of the layers that have heads."""
        wanted = {layer for layer, _, _ in _SCALES}
        taps = {}
        for layer in _LAYERS:
            if isinstance(layer, str):
                x = F.max_pool2d(x, 2, 2)
                continue
            x = F.relu(self.get_submodule(layer[0])(x))
            if layer[0] in wanted:
                taps[layer[0]] = x
        return taps

    def forward(self, images: Tensor) -> list[Tensor]:
        """Logits (B, 2, h, w) of background and face, and offsets (B, 4, h, w), of six scales: 12 maps, pair by pair.

        h and w are those of the image, halved and rounded down twice, three and four times; an eighth of the third plus
        4; and that halved and rounded up once and twice.
        """
        taps = self._taps(images)
        maps = []
        for scale, (layer, name, _) in enumerate(_SCALES):
            x = taps[layer]
            if name in _NORM_WEIGHTS:
                x = self.get_submodule(name)(x)  # for the heads alone
            cls = self.get_submodule(f"{name}_mbox_conf")(x)
            if scale == 0:
                cls = torch.cat([cls[:, :3].amax(dim=1, keepdim=True), cls[:, 3:]], dim=1)
            maps += [cls, self.get_submodule(f"{name}_mbox_loc")(x)]
        return maps


OFFICIAL = (
    OfficialWeights(
        name="s3fd",
        use="bench prepare --detector s3fd --weights s3fd={out}",
        build=lambda _: S3FD(),
    ),
)
