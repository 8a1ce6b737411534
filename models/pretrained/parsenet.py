# SPDX-License-Identifier: Apache-2.0
"""ParseNet, GPEN's and facexlib's face parser, with which VideoReTalking pastes faces.

Chen et al.: Progressive Semantic-Aware Style Transformation for Blind Face Restoration. CVPR 2021
(https://arxiv.org/abs/2009.08709). Layers and names are facts of the weight file, which facexlib (MIT) ships, too.
"""

from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_bench.datamodules.files.weights import load_weights
from lipsync_bench.datamodules.weights.official_weights import OfficialWeights
from lipsync_bench.models.parts.layers import scaled

CLASSES = (
    "background", "skin", "nose", "glasses", "left_eye", "right_eye", "left_brow", "right_brow", "left_ear",
    "right_ear", "mouth", "upper_lip", "lower_lip", "hair", "hat", "earring", "necklace", "neck", "cloth",
)  # fmt: skip
"""Name of each label: another order than `face_parsing`'s."""
SIZE = 512
"""Height and width that faces are parsed at."""
_DOWN = (64, 128, 256, 256, 256)
_BLOCKS = 10  # of one size, at the bottom
_EXPECTED = "ParseNet-latest.pth, documented at github.com/yangxy/GPEN, or facexlib's parsing_parsenet.pth"
_REPAIR = "Name it with --weights parsenet=PATH, or run: bench weights fetch parsenet"

__all__ = ["CLASSES", "SIZE", "ParseNet", "load_parsenet", "parse_aligned", "shared_parsenet"]


class _Norm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class _Conv(nn.Module):
    """Convolution 3x3 with mirrored borders; doubles the size before it, or halves it; norm and activation if asked."""

    def __init__(
        self, inputs: int, outputs: int, scale: float = 1, norm: bool = False, activated: bool = False
    ) -> None:
        super().__init__()
        self.scale, self.activated = scale, activated
        self.conv2d = nn.Conv2d(inputs, outputs, 3, 2 if scale < 1 else 1, bias=not norm)
        self.norm = _Norm(outputs) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.scale > 1:
            x = F.interpolate(x, scale_factor=self.scale, mode="nearest")
        x = self.norm(self.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect")))
        return F.leaky_relu(x, 0.2) if self.activated else x


class _Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, scale: float = 1) -> None:
        super().__init__()
        plain = inputs == outputs and scale == 1
        self.shortcut_func = nn.Identity() if plain else _Conv(inputs, outputs, scale)
        self.conv1 = _Conv(inputs, outputs, max(scale, 1), norm=True, activated=True)
        self.conv2 = _Conv(outputs, outputs, min(scale, 1), norm=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut_func(x) + self.conv2(self.conv1(x))


class ParseNet(nn.Module):
    """Faces (N,3,512,512), RGB in [-1, 1], to logits (N,19,512,512) and an image (N,3,512,512), which nobody uses.

    Args:
        width: Factor on the channels; 1.0 is published.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        down = [scaled(channels, width) for channels in _DOWN]
        steps = list(pairwise(down))
        self.encoder = nn.Sequential(_Conv(3, down[0]), *(_Block(a, b, 0.5) for a, b in steps))
        self.body = nn.Sequential(*(_Block(down[-1], down[-1]) for _ in range(_BLOCKS)))
        self.decoder = nn.Sequential(*(_Block(b, a, 2) for a, b in reversed(steps)))
        self.out_img_conv = _Conv(down[0], 3)
        self.out_mask_conv = _Conv(down[0], len(CLASSES))

    def features(self, faces: Tensor) -> Tensor:
        """Maps of the faces' size."""
        x = self.encoder(faces)
        return self.decoder(x + self.body(x))

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        x = self.features(faces)
        return self.out_mask_conv(x), self.out_img_conv(x)


@torch.inference_mode()
def parse_aligned(network: ParseNet, face: np.ndarray) -> np.ndarray:
    """Label of each pixel of a face, uint8 (512,512), indices into `CLASSES`.

    Args:
        network: With its weights, in evaluation mode.
        face: uint8 RGB (H,W,3), of any size.
    """
    pixels = cv2.resize(np.ascontiguousarray(face), (SIZE, SIZE))
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(network.out_mask_conv.conv2d.weight)
    logits = network.out_mask_conv(network.features(planes / 127.5 - 1))
    return logits.argmax(dim=1)[0].to(torch.uint8).cpu().numpy()


def load_parsenet(path: Path | str) -> ParseNet:
    """The network with the weights of a file, frozen, on the CPU.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file holds something else, or names or shapes differ.
    """
    return load_weights(ParseNet(), Path(path), _EXPECTED, _REPAIR)


@lru_cache(maxsize=1)
def shared_parsenet(path: Path, sha256: str, device: str) -> ParseNet:
    """One for all methods of an evaluation, on its device. Raises as `load_parsenet`."""
    return load_parsenet(path).to(device)


OFFICIAL = (
    OfficialWeights(
        name="parsenet",
        use="VideoReTalking's pasting, with --weights parsenet={out}",
        build=lambda _: ParseNet(),
    ),
)
