# SPDX-License-Identifier: Apache-2.0
"""GANimation, which changes a face by the action units of its muscles: VideoReTalking's emotions of the upper face.

Pumarola, Agudo, Martinez, Sanfeliu, Moreno-Noguer: GANimation: Anatomically-aware Facial Animation from a Single Image.
ECCV 2018. https://arxiv.org/abs/1807.09251. Layers are facts of the weight file that VideoReTalking names
(30_net_gen.pth). Its state-dict names are not published: tensors are taken in the order of the file.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_bench.datamodules.files.weights import load_weights
from lipsync_bench.datamodules.weights.official_weights import OfficialWeights
from lipsync_bench.models.parts.layers import scaled

UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)
"""Number of each action unit, in the network's order (Ekman and Friesen's coding)."""
EMOTIONS: Mapping[str, Mapping[int, float]] = {"sad": {}, "angry": {4: 0.3}, "surprise": {5: 0.2}}
"""Intensity of action units for each emotion, as released; of all others 0."""
SIZE = 128
"""Height and width of the faces."""
_CHANNELS = (64, 128, 256)
_BLOCKS = 6
_EXPECTED = "30_net_gen.pth, documented at github.com/OpenTalker/video-retalking"
_REPAIR = "Name it with --weights ganimation=PATH, or run: bench weights fetch ganimation"

__all__ = ["EMOTIONS", "SIZE", "UNITS", "GANimation", "emotional_faces", "load_ganimation", "shared_ganimation"]


def _normed(layer: nn.Module, channels: int) -> list[nn.Module]:
    return [layer, nn.InstanceNorm2d(channels), nn.ReLU()]


class _Block(nn.Module):
    """Two convolutions, added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first = _normed(nn.Conv2d(channels, channels, 3, padding=1), channels)
        self.layers = nn.Sequential(*first, nn.Conv2d(channels, channels, 3, padding=1), nn.InstanceNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class GANimation(nn.Module):
    """Faces (N,3,H,W), RGB in [-1, 1], and intensities (N,17) of `UNITS` to faces of the same size in [-1, 1].

    Args:
        width: Factor on the channels; 1.0 is published.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        first, middle, last = (scaled(channels, width) for channels in _CHANNELS)
        layers = _normed(nn.Conv2d(3 + len(UNITS), first, 7, padding=3), first)
        for inputs, outputs in ((first, middle), (middle, last)):
            layers += _normed(nn.Conv2d(inputs, outputs, 4, 2, 1), outputs)
        layers += [_Block(last) for _ in range(_BLOCKS)]
        for inputs, outputs in ((last, middle), (middle, first)):
            layers += _normed(nn.ConvTranspose2d(inputs, outputs, 4, 2, 1), outputs)
        self.trunk = nn.Sequential(*layers)
        self.colour = nn.Conv2d(first, 3, 7, padding=3, bias=False)
        self.mask = nn.Conv2d(first, 1, 7, padding=3, bias=False)

    def forward(self, faces: Tensor, intensities: Tensor) -> Tensor:
        """See the class; where the mask is 1 the face stays as it is."""
        planes = intensities[:, :, None, None].expand(-1, -1, *faces.shape[2:])
        features = self.trunk(torch.cat([faces, planes], dim=1))
        mask = self.mask(features).sigmoid()
        return mask * faces + (1 - mask) * self.colour(features).tanh()


@torch.inference_mode()
def emotional_faces(network: GANimation, faces: Tensor, emotion: str) -> Tensor:
    """Faces (N,3,H,W), RGB in [0, 1], with an emotion; through 128 x 128 pixels, as released.

    Args:
        network: With its weights, in evaluation mode.
        faces: On the network's device.
        emotion: A key of `EMOTIONS`.
    """
    wanted = faces.new_tensor([EMOTIONS[emotion].get(unit, 0.0) for unit in UNITS])
    small = F.interpolate(faces, (SIZE, SIZE), mode="bilinear", align_corners=False)
    made = network(small * 2 - 1, wanted.expand(len(faces), -1))
    return F.interpolate(made / 2 + 0.5, faces.shape[2:], mode="bilinear", align_corners=False)


def load_ganimation(path: Path | str) -> GANimation:
    """The network with the weights of a file, frozen, on the CPU.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file holds something else, or other shapes.
    """
    return load_weights(GANimation(), Path(path), _EXPECTED, _REPAIR, by_order=True)


@lru_cache(maxsize=1)
def shared_ganimation(path: Path, sha256: str, device: str) -> GANimation:
    """One for all methods of an evaluation, on its device. Raises as `load_ganimation`."""
    return load_ganimation(path).to(device)


OFFICIAL = (
    OfficialWeights(
        name="ganimation",
        use="emotions of VideoReTalking's upper face, with --weights ganimation={out}",
        build=lambda _: GANimation(),
        by_order=True,
    ),
)
