# SPDX-License-Identifier: Apache-2.0
"""The Inception network of FID, and how its input images are resized and scaled.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016, in TensorFlow's version of
2015-12-05 with 1008 outputs, which Heusel et al. took for FID. It is torchvision's network but for two poolings
(below); the state-dict names are torchvision's, and those of the published file.
"""

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models import inception

from lipsync_bench.metrics.image.checks import checked_images
from lipsync_bench.models.core.weight_files import TORCHVISION, WeightsFile

__all__ = ["FILE", "InceptionFeatures", "inception_input"]

FILE = "pt_inception-2015-12-05-6726825d.pth"

_INPUT_PX = 299
_CLASSES = 1008
_BATCH_IMAGES = 16


def inception_input(images: Tensor) -> Tensor:
    """Resize images to 299 x 299 and scale them to -1..1, as pytorch-fid 0.3 does, which Wav2Lip used.

    Bilinear, half-pixel centres, no antialias; 2 x / 255 - 1. torch-fidelity and torchmetrics do it otherwise, so
    that their FID is another.

    Args:
        images: (B, 3, H, W), RGB, 0..255.

    Returns:
        (B, 3, 299, 299) float32.
    """
    x = images.to(torch.float32) / 255
    return 2 * F.interpolate(x, size=(_INPUT_PX, _INPUT_PX), mode="bilinear", align_corners=False) - 1


def _mean_of_neighbours(x: Tensor) -> Tensor:
    """3 x 3 average whose divisor, unlike torchvision's, leaves out the padding."""
    return F.avg_pool2d(x, kernel_size=3, stride=1, padding=1, count_include_pad=False)


class _BlockA(inception.InceptionA):
    def forward(self, x: Tensor) -> Tensor:
        fives = self.branch5x5_2(self.branch5x5_1(x))
        threes = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), fives, threes, self.branch_pool(_mean_of_neighbours(x))], dim=1)


class _BlockC(inception.InceptionC):
    def forward(self, x: Tensor) -> Tensor:
        sevens = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return torch.cat([self.branch1x1(x), sevens, twice, self.branch_pool(_mean_of_neighbours(x))], dim=1)


class _BlockE(inception.InceptionE):
    def forward(self, x: Tensor) -> Tensor:
        threes = self.branch3x3_1(x)
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        parts = [self.branch1x1(x), self.branch3x3_2a(threes), self.branch3x3_2b(threes)]
        parts += [self.branch3x3dbl_3a(twice), self.branch3x3dbl_3b(twice), self.branch_pool(self.pooled(x))]
        return torch.cat(parts, dim=1)

    def pooled(self, x: Tensor) -> Tensor:
        return _mean_of_neighbours(x)


class _LastBlockE(_BlockE):
    def pooled(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, kernel_size=3, stride=1, padding=1)  # the 2015 network's slip, as it was trained


class InceptionFeatures(nn.Module):
    """RGB images -> the 2048 features of the last average pooling ("pool3").

    It is frozen, stays in eval mode, and may be shared by any number of metrics.

    Args:
        weights: Where the file `pt_inception-2015-12-05-6726825d.pth` is: "torchvision" for torchvision's cache of
            downloads (where pytorch-fid leaves it), else a folder.

    Attributes:
        weights: SHA-256 of the file.
        size: Length of a feature vector.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be read or does not hold this network (torchvision's ImageNet weights do not).
    """

    size: int = 2048

    def __init__(self, weights: str = TORCHVISION) -> None:
        super().__init__()
        file = WeightsFile(
            FILE,
            weights,
            f"the weights of pytorch-fid, {FILE}",
            "Run where there is a network: bench weights fetch inception_fid; or name its folder with "
            "InceptionFeatures(weights=DIR)",
        )
        state = file.read()
        blocks = [
            inception.BasicConv2d,
            _BlockA,
            inception.InceptionB,
            _BlockC,
            inception.InceptionD,
            _BlockE,
            inception.InceptionAux,
        ]
        network = torchvision.models.Inception3(_CLASSES, aux_logits=False, inception_blocks=blocks, init_weights=False)
        network.Mixed_7c = _LastBlockE(network.Mixed_7c.branch1x1.conv.in_channels)
        # Files of 2018 do not hold how many batches a normalisation has seen; nothing reads it.
        names = [name for name in network.state_dict() if not name.endswith("num_batches_tracked")]
        self.weights = file.fill(network, {name: name for name in names}, state)
        self.layers = nn.Sequential()
        for name, layer in network.named_children():
            if name == "avgpool":
                break
            self.layers.add_module(name, layer)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "InceptionFeatures":
        """Stay in eval mode: the features are those of the stored statistics."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features of frames.

        Args:
            images: (B, 3, H, W), RGB, uint8 or float in 0..255, of any size. They are moved to the network's device.

        Returns:
            (B, 2048) float32, on the network's device.

        Raises:
            ValueError: wrong shape, dtype or range, or gray.
        """
        if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
            found = f"shape {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
            raise ValueError(
                f"images: {found}. Expected a tensor (B, 3, H, W), RGB, and nothing empty. Use "
                "frames.permute(0, 3, 1, 2) for frames as a video decoder gives them, "
                "images.expand(-1, 3, -1, -1) for gray ones"
            )
        device = next(self.parameters()).device
        # One at a time as far as 299 x 299: as float64 a chunk of full frames would take 700 MB.
        fit = [inception_input(checked_images("images", one).to(device)) for one in images.split(1)]
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            parts = [self.layers(part).mean(dim=(2, 3)) for part in torch.cat(fit).split(_BATCH_IMAGES)]
        return torch.cat(parts)
