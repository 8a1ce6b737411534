# SPDX-License-Identifier: Apache-2.0
"""Losses of the Wav2Lip family, small and stateless.

Symbols: G generated frames, Y true frames, D the discriminator's probability that an image is real, a and v the
lip-sync expert's embeddings of audio and video. BCE(p, y) = -y log p - (1 - y) log(1 - p), with both logarithms cut
at -100 (the framework's rule). Names like L_recon are those of Prajwal et al., "A Lip Sync Expert Is All You Need for
Speech to Lip Generation In The Wild", ACM MM 2020.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_bench.models.parts.layers import stack_lower_halves

__all__ = ["AdversarialLoss", "CosineBCE", "DiscriminatorLoss", "ReconstructionLoss", "SyncLoss", "check_weights"]


def check_weights(weights: Mapping[str, float]) -> None:
    """Refuse lambdas below 0.

    Args:
        weights: by name; the argument of the constructor is called NAME_weight.

    Raises:
        ValueError: one of them is negative or not a number.
    """
    for name, value in weights.items():
        if not value >= 0:
            raise ValueError(
                f"{name}_weight is {value}. Expected 0, which leaves the term out, or more. Set "
                f"--model.init_args.{name}_weight."
            )


def _bce(probability: Tensor, label: float | Tensor) -> Tensor:
    """Mean BCE in float32: 16-bit probabilities are too coarse near 0 and 1, and autocast refuses this function."""
    with torch.autocast(device_type=probability.device.type, enabled=False):
        probability = probability.float()
        if not isinstance(label, Tensor):
            label = torch.full_like(probability, label)
        return F.binary_cross_entropy(probability, label.float())


class ReconstructionLoss(nn.Module):
    """L_recon = mean |G - Y| over all elements: whole face, all frames of the window."""

    def forward(self, generated: Tensor, target: Tensor) -> Tensor:
        """Images of any one shape -> scalar."""
        return F.l1_loss(generated, target)


class CosineBCE(nn.Module):
    """BCE(d, y) with d = cos(a, v), mean over the batch (d is P_sync, the probability that a and v are in sync).

    d is clamped to [0, 1]: rounding makes it 1.0000001 for nearly identical embeddings, for which BCE raises (and
    stops a CUDA process). Embeddings end in a ReLU, so d is not negative, and nothing else changes.
    """

    @staticmethod
    def cosine(audio: Tensor, video: Tensor) -> Tensor:
        """Embeddings (B, E) twice -> d (B,) float32 in [0, 1]."""
        return F.cosine_similarity(audio.float(), video.float(), dim=1).clamp(0, 1)

    def forward(self, audio: Tensor, video: Tensor, label: float | Tensor) -> Tensor:
        """Embeddings (B, E) twice, label y a number or (B,) -> scalar."""
        return _bce(self.cosine(audio, video), label)


class SyncLoss(nn.Module):
    """E_sync = BCE(cos(a, v), 1) = mean of -log cos(a, v), on the lower halves of a whole window."""

    def __init__(self) -> None:
        super().__init__()
        self.cosine_bce = CosineBCE()

    def forward(self, expert: nn.Module, mel: Tensor, frames: Tensor) -> Tensor:
        """Scalar, differentiable in `frames`.

        Args:
            expert: network that maps (mel, lower halves (B, 3T, H/2, W)) to two embeddings (B, E).
            mel: (B, 1, 80, 16), the window's mel.
            frames: (B, T, 3, H, W) in the expert's colour order and at its size.
        """
        if expert.training and len(mel) == 1:
            raise ValueError(
                "the lip-sync expert is in training mode and got a batch of one window. Expected two or more: its "
                "batch norms use the statistics of a batch. Set --data.init_args.batch_size higher, or "
                "--model.init_args.expert_mode eval"
            )
        audio, video = expert(mel, stack_lower_halves(frames))
        return self.cosine_bce(audio, video, 1.0)


class AdversarialLoss(nn.Module):
    """L_gen = BCE(D(G), 1) = mean of -log D(G): the non-saturating form that the official code trains with, where it is
    called perceptual loss.

    Differs: the paper prints log(1 - D(G)), to be minimised.
    """

    def forward(self, fake: Tensor) -> Tensor:
        """D(G), any shape -> scalar."""
        return _bce(fake, 1.0)


class DiscriminatorLoss(nn.Module):
    """L_disc = BCE(D(Y), 1) + BCE(D(G), 0) with the sign of a loss; the sum is not halved."""

    def forward(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """D(Y) and D(G) with G detached -> the scalar terms `disc_real` and `disc_fake`, to be added."""
        return {"disc_real": _bce(real, 1.0), "disc_fake": _bce(fake, 0.0)}
