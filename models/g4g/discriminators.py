# SPDX-License-Identifier: Apache-2.0
"""Least-squares discriminators of single frames and of five consecutive ones; their layers are DINet's."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_bench.models.parts.layers import scaled

__all__ = ["G4GDiscriminators", "PatchDiscriminator", "least_squares"]


class PatchDiscriminator(nn.Module):
    """Images (N, inputs, H, W) -> a map of scores (N, 1, h, w), 1 for real and 0 for generated. No normalisation.

    Args:
        inputs: channels of the images.
        width: factor on the channels.
    """

    def __init__(self, inputs: int, width: float = 1.0) -> None:
        super().__init__()
        channels = [inputs, *(scaled(c, width) for c in (128, 256, 256, 256))]
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 4) for i, o in pairwise(channels))
        self.last = nn.Conv2d(channels[-1], 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        for number, conv in enumerate(self.convs):
            images = F.leaky_relu(conv(images), 0.2)
            if number < len(self.convs) - 1:
                images = F.avg_pool2d(images, 2)
        return self.last(images)


class G4GDiscriminators(nn.Module):
    """Of clips (B,T,3,H,W): every frame by itself, and the T frames stacked where T is more than one.

    Args:
        frames: T.
        width: factor on the channels.
    """

    def __init__(self, frames: int = 5, width: float = 1.0) -> None:
        super().__init__()
        self.frame = PatchDiscriminator(3, width)
        self.clip = PatchDiscriminator(3 * frames, width) if frames > 1 else None

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """Maps of scores by name: `frame`, and `clip` where there is one."""
        scores = {"frame": self.frame(clips.flatten(0, 1))}
        if self.clip is not None:
            scores["clip"] = self.clip(clips.flatten(1, 2))
        return scores

    def logit(self, clips: Tensor) -> Tensor:
        """All scores, in one piece (`WatchAdversarial`)."""
        return torch.cat([scores.flatten() for scores in self(clips).values()])


def least_squares(scores: Tensor, wanted: float) -> Tensor:
    """mean (D - wanted)^2 (Eq. 14, LS-GAN)."""
    return F.mse_loss(scores, scores.new_full((), wanted).expand_as(scores))
