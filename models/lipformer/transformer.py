# SPDX-License-Identifier: Apache-2.0
"""LipFormer's Transformer: for each frame it chooses lip codes from the codebook, by the audio and the reference."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Queries = Literal["state", "reference"]
_CONDITION_STD = 0.02  # of the condition's weights at the start, as Transformers have it

__all__ = ["ConditionalLayerNorm", "LipTransformer", "Queries"]


class ConditionalLayerNorm(nn.Module):
    """gamma'(a) * normalised(x) + beta'(a) (Eq. 10); gamma' starts near 1 and beta' near 0.

    Not exactly at them: the output would ignore the audio until the first steps have moved the weights. The audio
    vector is normalised too, a choice of this project: an untrained encoder's is a thirtieth of a trained one's.

    Args:
        channels: of x.
        condition: length of a.
    """

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.scale_and_shift = nn.Linear(condition, 2 * channels)
        nn.init.normal_(self.scale_and_shift.weight, std=_CONDITION_STD)
        with torch.no_grad():
            self.scale_and_shift.bias[:channels] = 1
            self.scale_and_shift.bias[channels:] = 0

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (N,L,d), condition (N,a) -> (N,L,d)."""
        condition = F.layer_norm(condition, condition.shape[-1:])
        scale, shift = self.scale_and_shift(condition)[:, None].chunk(2, dim=-1)
        return scale * F.layer_norm(x, x.shape[-1:]) + shift


class _Layer(nn.Module):
    """Attention from positions to codebook entries, residual, conditional layer norm, feed-forward net, residual."""

    def __init__(self, channels: int, heads: int, condition: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_query = nn.Linear(channels, channels)
        self.to_key = nn.Linear(channels, channels)
        self.to_value = nn.Linear(channels, channels)
        self.to_out = nn.Linear(channels, channels)
        self.norm = ConditionalLayerNorm(channels, condition)
        self.feed_forward = nn.Sequential(
            nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
        )

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)  # (..., heads, L, d / heads)

    def forward(self, state: Tensor, queries: Tensor, entries: Tensor, audio: Tensor) -> Tensor:
        """Z_i and what the queries come from, (N,L,d); C_B (n,d); F_Aud (N,a) -> Z_{i+1} (N,L,d)."""
        keys, values = (
            self._split(project(entries)).expand(len(state), -1, -1, -1) for project in (self.to_key, self.to_value)
        )
        found = F.scaled_dot_product_attention(self._split(self.to_query(queries)), keys, values)
        state = state + self.to_out(found.transpose(1, 2).flatten(2))
        state = self.norm(state, audio)
        return state + self.feed_forward(state)


class LipTransformer(nn.Module):
    """Warped reference and audio -> scores of every codebook entry at every position (Eq. 8 to 10).

    Paper: queries from the encoding, keys and values from the codebook, conditional layer norm, linear and softmax
    behind the last layer. Choices of this project: 6 layers, 8 heads, scaled scores, learned positions, a feed-forward
    net of 4 d with GELU.

    Args:
        shape: (h, w) of an encoded half.
        channels: d of the encodings.
        entries: n of the codebook.
        audio_channels: length of the audio vector.
        layers, heads: as they say.
        queries: what the queries of layer i come from: "state", Z_i as in other Transformers, or "reference", the
            warped reference in every layer, as Eq. 8 is printed.

    Raises:
        ValueError: d is no multiple of the heads, or `queries` has another value.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        channels: int = 256,
        entries: int = 1024,
        audio_channels: int = 512,
        layers: int = 6,
        heads: int = 8,
        queries: Queries = "state",
    ) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(
                f"code_channels is {channels} and heads {heads}. Expected a multiple of the heads. Set "
                "--model.init_args.heads."
            )
        if queries not in get_args(Queries):
            raise ValueError(f"queries is {queries!r}. Expected state or reference. Set --model.init_args.queries.")
        self.queries = queries
        self.positions = nn.Parameter(torch.randn(shape[0] * shape[1], channels) * _CONDITION_STD)
        self.layers = nn.ModuleList([_Layer(channels, heads, audio_channels) for _ in range(layers)])
        self.to_scores = nn.Linear(channels, entries)

    def forward(self, reference: Tensor, entries: Tensor, audio: Tensor) -> Tensor:
        """Scores before the softmax.

        Args:
            reference: (N,d,h,w), the warped encoding of the reference's lower half.
            entries: (n,d), the codebook C_B.
            audio: (N,a), F_Aud.

        Returns:
            (N,n,h,w).
        """
        start = reference.flatten(2).transpose(1, 2) + self.positions
        state = start
        for layer in self.layers:
            state = layer(state, state if self.queries == "state" else start, entries, audio)
        return self.to_scores(state).transpose(1, 2).unflatten(2, reference.shape[-2:])
