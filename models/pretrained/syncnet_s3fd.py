# SPDX-License-Identifier: Apache-2.0
"""The S3FD face detector that the SyncNet evaluation of real videos starts with.

Zhang, Zhu, Lei, Shi, Wang, Li: "S3FD: Single Shot Scale-invariant Face Detector", ICCV 2017,
https://arxiv.org/abs/1708.05237. This is the variant of the SyncNet evaluation (file `sfd_face.pth`), which differs
from the one used to prepare Wav2Lip's data: other state-dict names, a dilated layer, resized input, two passes of
suppression.

    image (H,W,3) uint8 RGB --x scale, minus mean--> vgg --+-- 256, 512, 512 channels, L2-normalised --+
                                                           +-- 1024 channels ---------------------------+--> loc, conf
                                                           +-- extras: 512, 256 channels ---------------+
"""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import nms

from lipsync_bench.datamodules.files.weights import load_weights

__all__ = ["SyncNetS3FD", "decode", "load_syncnet_s3fd", "priors", "suppress"]

# In the order of the list; "M" is a 2x2 pool, "C" the same with its output size rounded up.
VGG = (64, 64, "M", 128, 128, "M", 256, 256, 256, "C", 512, 512, 512, "M", 512, 512, 512, "M")
EXTRAS = ((1024, 256, 1), (256, 512, 3), (512, 128, 1), (128, 256, 3))  # in, out, kernel
SOURCE_CHANNELS = (256, 512, 512, 1024, 512, 256)
SOURCE_LAYERS = (15, 22, 29, 34)  # the four sources inside `vgg`; the other two follow extras 1 and 3
STEPS_PX = (4, 8, 16, 32, 64, 128)
SIZES_PX = (16, 32, 64, 128, 256, 512)
VARIANCES = (0.1, 0.2)
MEAN_RGB = (123.0, 117.0, 104.0)
MIN_SCORE = 0.05
MAX_CANDIDATES = 5000
MAX_FACES = 750
NETWORK_OVERLAP = 0.3
CALLER_OVERLAP = 0.1


class _L2Norm(nn.Module):
    """x / |x| over the channels, times a learned scale a channel."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        norm = x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10
        return self.weight[:, None, None] * (x / norm)


def _vgg() -> nn.ModuleList:
    layers: list[nn.Module] = []
    channels = 3
    for entry in VGG:
        if isinstance(entry, str):
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=entry == "C"))
        else:
            layers += [nn.Conv2d(channels, entry, 3, padding=1), nn.ReLU()]
            channels = entry
    layers += [nn.Conv2d(512, 1024, 3, padding=6, dilation=6), nn.ReLU(), nn.Conv2d(1024, 1024, 1), nn.ReLU()]
    return nn.ModuleList(layers)


def priors(size_hw: tuple[int, int], maps_hw: list[tuple[int, int]]) -> Tensor:
    """One prior box a cell of every source: (P, 4) centre x, centre y, width, height, relative to the input."""
    height, width = size_hw
    out = []
    for (rows, columns), step, size in zip(maps_hw, STEPS_PX, SIZES_PX, strict=True):
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        cells = torch.stack([(x + 0.5) * step / width, (y + 0.5) * step / height], dim=2).reshape(-1, 2)
        out.append(torch.cat([cells, torch.tensor([size / width, size / height]).expand_as(cells)], dim=1))
    return torch.cat(out)


def decode(loc: Tensor, boxes: Tensor) -> Tensor:
    """Offsets (..., P, 4) on prior boxes (P, 4) -> corners x1 y1 x2 y2 in the units of the priors."""
    centre = boxes[:, :2] + VARIANCES[0] * loc[..., :2] * boxes[:, 2:]
    half = boxes[:, 2:] * torch.exp(VARIANCES[1] * loc[..., 2:]) / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def suppress(loc: Tensor, scores: Tensor, boxes: Tensor) -> Tensor:
    """Faces of one image: (n, 5) score, x1, y1, x2, y2 (relative), best first.

    Args:
        loc: (P, 4) offsets.
        scores: (P,) face probabilities.
        boxes: (P, 4) priors.
    """
    kept = torch.nonzero(scores > MIN_SCORE)[:, 0]
    best = kept[scores[kept].argsort(descending=True, stable=True)[:MAX_CANDIDATES]]
    corners = decode(loc[best], boxes[best])
    kept = nms(corners, scores[best], NETWORK_OVERLAP)[:MAX_FACES]
    return torch.cat([scores[best][kept, None], corners[kept]], dim=1)


class SyncNetS3FD(nn.Module):
    """S3FD face detector with the state-dict names of `sfd_face.pth` (65 entries, 22 459 110 parameters).

    The weights come from Oxford's Visual Geometry Group, as the SyncNet weights do, without a licence file; the code of
    the SyncNet evaluation repository is MIT.

    `forward` takes the network's own input, (B, 3, H, W) float32 in RGB order, 0..255 minus (123, 117, 104); `detect`
    takes an image and does the rest.
    """

    channel_order = "rgb"

    def __init__(self) -> None:
        super().__init__()
        self.vgg = _vgg()
        self.L2Norm3_3 = _L2Norm(256, 10.0)
        self.L2Norm4_3 = _L2Norm(512, 8.0)
        self.L2Norm5_3 = _L2Norm(512, 5.0)
        self.extras = nn.ModuleList(
            nn.Conv2d(cin, cout, kernel, stride=2 if kernel == 3 else 1, padding=kernel // 2)
            for cin, cout, kernel in EXTRAS
        )
        self.loc = nn.ModuleList(nn.Conv2d(channels, 4, 3, padding=1) for channels in SOURCE_CHANNELS)
        # The source of the smallest faces has three background logits, of which the largest counts.
        self.conf = nn.ModuleList(
            nn.Conv2d(channels, 4 if k == 0 else 2, 3, padding=1) for k, channels in enumerate(SOURCE_CHANNELS)
        )

    def _sources(self, x: Tensor) -> list[Tensor]:
        norms: dict[int, nn.Module] = dict(
            zip(SOURCE_LAYERS, (self.L2Norm3_3, self.L2Norm4_3, self.L2Norm5_3, nn.Identity()), strict=True)
        )
        sources = []
        for k, layer in enumerate(self.vgg):
            x = layer(x)
            if k in norms:
                sources.append(norms[k](x))  # the next layer takes the un-normalised map
        for k, layer in enumerate(self.extras):
            x = F.relu(layer(x))
            if k % 2:
                sources.append(x)
        return sources

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Offsets (B, P, 4), probabilities of background and face (B, P, 2), priors (P, 4)."""
        loc, conf, maps_hw = [], [], []
        for k, source in enumerate(self._sources(x)):
            maps_hw.append((source.shape[2], source.shape[3]))
            logits = self.conf[k](source)
            if k == 0:
                logits = torch.cat([logits[:, :3].amax(dim=1, keepdim=True), logits[:, 3:]], dim=1)
            loc.append(self.loc[k](source).permute(0, 2, 3, 1).flatten(1, 2))
            conf.append(logits.permute(0, 2, 3, 1).flatten(1, 2))
        boxes = priors((x.shape[2], x.shape[3]), maps_hw).to(x)
        return torch.cat(loc, dim=1), torch.cat(conf, dim=1).softmax(dim=2), boxes

    @torch.no_grad()
    def detect(self, image: np.ndarray, scale: float = 0.25, threshold: float = 0.9) -> np.ndarray:
        """Faces of one image.

        Args:
            image: (H, W, 3) uint8 RGB.
            scale: the image is resized by this factor first (bilinear).
            threshold: keep faces with a score above this.

        Returns:
            (n, 5) float64: x1, y1, x2, y2 in pixels of `image` (not clipped), score; best first.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(
                f"image has shape {image.shape} and dtype {image.dtype}. Expected (H, W, 3) uint8, RGB. Use "
                "lipsync_bench.datamodules.media.video.read_frames"
            )
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        pixels = small.astype(np.float32) - np.array(MEAN_RGB, np.float32)
        weight = next(self.parameters())
        loc, conf, boxes = self(torch.from_numpy(pixels).permute(2, 0, 1)[None].to(weight))
        faces = suppress(loc[0], conf[0, :, 1], boxes).double().cpu()
        height, width = image.shape[:2]
        corners = faces[:, 1:] * torch.tensor([width, height, width, height], dtype=torch.float64)
        faces = torch.cat([corners, faces[:, :1]], dim=1)
        faces = faces[faces[:, 4] > threshold]
        return faces[nms(faces[:, :4], faces[:, 4], CALLER_OVERLAP)].numpy()


def load_syncnet_s3fd(path: str | Path) -> SyncNetS3FD:
    """The detector with the weights of a file, in eval mode, its parameters frozen.

    Raises:
        FileNotFoundError: there is no such file. It is never replaced by random weights.
        ValueError: the file is not a state dict with exactly the expected entries and shapes.
    """
    expected = "sfd_face.pth, the face detector of the SyncNet evaluation (65 tensors)"
    return load_weights(
        SyncNetS3FD(),
        Path(path),
        expected,
        "Name it with --weights sfd_face=PATH, or run: bench weights fetch sfd_face",
    )
