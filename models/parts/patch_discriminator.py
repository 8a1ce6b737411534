# SPDX-License-Identifier: Apache-2.0
"""The 70 x 70 patch discriminator of pix2pix, written from the paper.

Isola, Zhu, Zhou, Efros: Image-to-Image Translation with Conditional Adversarial Networks. CVPR 2017.
https://arxiv.org/abs/1611.07004 (6.1.2). VideoReTalking's E-Net cites it for its adversarial loss.
"""

from torch import Tensor, nn

from lipsync_bench.models.parts.layers import scaled

_CHANNELS = (64, 128, 256, 512)

__all__ = ["PatchDiscriminator"]


class PatchDiscriminator(nn.Module):
    """Says of overlapping patches whether they look real.

    Convolutions 4x4 with padding 1: 64, 128 and 256 channels of stride 2, then 512 and 1 of stride 1; leaky ReLU 0.2
    between; instance norm after the second to the fourth.

    Args:
        width: factor on the channels; 1.0 is published.

    Differs: it sees one image, not the pair of input and output, as E-Net's adversarial loss has no condition. Instance
    norms take the place of batch norms, whose statistics of five frames of one face would mean little.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for number, channels in enumerate(_CHANNELS):
            outputs = scaled(channels, width)
            layers.append(nn.Conv2d(inputs, outputs, 4, 2 if number < 3 else 1, 1))
            layers += [nn.InstanceNorm2d(outputs)] if number else []
            layers.append(nn.LeakyReLU(0.2))
            inputs = outputs
        self.model = nn.Sequential(*layers, nn.Conv2d(inputs, 1, 4, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Images (N,3,H,W) in [-1, 1] -> logits (N,1,H/8-2,W/8-2), above 0 for real."""
        return self.model(images)
