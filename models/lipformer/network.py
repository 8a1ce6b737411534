# SPDX-License-Identifier: Apache-2.0
"""LipFormer's second stage: the frozen codes of stage 1 and the generator that predicts and decodes lip codes."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_bench.models.lipformer.codebook.network import FaceDecoder, FaceEncoder, FacialCodebook
from lipsync_bench.models.lipformer.codebook.quantiser import Quantised, Quantiser
from lipsync_bench.models.lipformer.transformer import LipTransformer, Queries
from lipsync_bench.models.lipformer.warping import AdaptiveWarping
from lipsync_bench.models.parts.layers import audio_encoder, scaled

__all__ = ["FrozenCodes", "LipCodes", "LipFormerGenerator"]


class FrozenCodes(nn.Module):
    """Encoder and codebooks of stage 1, which stage 2 does not train.

    Args:
        codebook: A network of stage 1; its encoder and quantisers become part of this module.
    """

    encoder: FaceEncoder
    upper: Quantiser
    bottom: Quantiser

    def __init__(self, codebook: FacialCodebook) -> None:
        super().__init__()
        self.encoder, self.upper, self.bottom = codebook.encoder, codebook.upper, codebook.bottom
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def upper_half(self, images: Tensor) -> Tensor:
        """RGB images (N,3,H,W) in [0, 1], of which the upper half is read -> its codes (N,d,h,w)."""
        half = images[..., : images.shape[-2] // 2, :]
        return self.upper(self.encoder(2 * half - 1)).entries

    @torch.no_grad()
    def lower_half(self, images: Tensor) -> Quantised:
        """RGB images (N,3,H,W) in [0, 1], of which the lower half is read -> its codes and their indices (N,h,w)."""
        half = images[..., images.shape[-2] // 2 :, :]
        return self.bottom(self.encoder(2 * half - 1))


class LipCodes(NamedTuple):
    """What stage 2 predicts: `scores` (N,n,h,w) before the softmax, `codes` (N,d,h,w), the entries chosen."""

    scores: Tensor
    codes: Tensor


class LipFormerGenerator(nn.Module):
    """Audio encoder, warping, Transformer and decoder: the parts that stage 2 trains.

    ```
    mel (N,1,80,16) - audio_encoder - F_Aud (N,512) ----------------------------------+
    H_TU, H_RU (N,d,h,w) - warping - offsets - H_RB moved (N,d,h,w) - transformer - scores (N,n,h,w)
    C_B (n,d) --------------------------------------------------------+       one entry a position (N,d,h,w)
    H_TU (N,d,h,w) above it - decoder - (N,3,H,W)
    ```

    Args:
        image_size, width, entries, code_channels, channels, multipliers, residual_blocks: those of the codebook.
        keypoints: of the warping; 0 leaves it out (ablation).
        layers, heads, queries: of the Transformer.

    Raises:
        ValueError: the halves of the image are no multiple of the encoder's stride.
    """

    def __init__(
        self,
        image_size: int = 512,
        width: float = 1.0,
        entries: int = 1024,
        code_channels: int = 256,
        channels: int = 64,
        multipliers: tuple[int, ...] = (1, 2, 2, 4, 4, 8),
        residual_blocks: int = 2,
        keypoints: int = 16,
        layers: int = 6,
        heads: int = 8,
        queries: Queries = "state",
    ) -> None:
        super().__init__()
        stride = 2 ** (len(multipliers) - 1)
        if image_size % (2 * stride):
            raise ValueError(
                f"image_size is {image_size}. Expected a multiple of {2 * stride}: both halves go through an encoder "
                f"of stride {stride}. Set --model.init_args.image_size or --model.init_args.multipliers."
            )
        shape = image_size // (2 * stride), image_size // stride
        self.audio_encoder = audio_encoder(width)
        self.warping = AdaptiveWarping(code_channels, width, keypoints) if keypoints else None
        audio_channels = scaled(512, width)
        self.transformer = LipTransformer(shape, code_channels, entries, audio_channels, layers, heads, queries)
        self.decoder = FaceDecoder(width, code_channels, channels, multipliers, residual_blocks)

    def predict(
        self, audio: Tensor, target_upper: Tensor, reference_upper: Tensor, reference_bottom: Tensor, entries: Tensor
    ) -> LipCodes:
        """The lip codes of frames, chosen by their audio.

        In evaluation mode the entry with the highest score is taken. In training it is drawn with Gumbel noise, and
        gradients go through the softmax (straight-through and tau = 1, which are choices of this project).

        Args:
            audio: (N,1,80,16).
            target_upper, reference_upper, reference_bottom: H_TU, H_RU, H_RB (N,d,h,w).
            entries: C_B (n,d).
        """
        if self.warping is not None:
            reference_bottom = self.warping(target_upper, reference_upper, reference_bottom)
        scores = self.transformer(reference_bottom, entries, self.audio_encoder(audio).flatten(1))
        with torch.autocast(device_type=scores.device.type, enabled=False):
            if self.training:
                chosen = F.gumbel_softmax(scores.float(), tau=1.0, hard=True, dim=1)
            else:
                chosen = F.one_hot(scores.argmax(dim=1), scores.shape[1]).movedim(-1, 1).float()
            return LipCodes(scores, self.entries_of(chosen, entries))

    @staticmethod
    def entries_of(chosen: Tensor, entries: Tensor) -> Tensor:
        """Rows (N,n,h,w), one-hot over n, times C_B (n,d) -> (N,d,h,w)."""
        return torch.einsum("nehw,ed->ndhw", chosen.to(entries.dtype), entries)

    def decode(self, upper: Tensor, bottom: Tensor) -> Tensor:
        """Codes of both halves, (N,d,h,w) each -> RGB images (N,3,H,W), about in [0, 1]."""
        return (self.decoder(torch.cat([upper, bottom], dim=2)) + 1) / 2
