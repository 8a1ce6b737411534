# SPDX-License-Identifier: Apache-2.0
"""L-Net, the network of VideoReTalking that draws the mouth: encoder, cross-attention, decoder.

Layers, names and constants are those of the official weights (LNet.pth); where the paper says something else, the
docstrings of the classes tell.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_bench.models.parts.layers import audio_encoder, from_time_major, scaled, to_time_major
from lipsync_bench.models.videoretalking.blocks import (
    ConvBlock,
    DownBlock,
    Sides,
    SpectralConv2d,
    SteeredBlocks,
    UpBlock,
)
from lipsync_bench.models.videoretalking.lnet.ffc import FFCResidualBlock

SIZE = 96
"""Height and width of the published faces."""
_HEADS = 4
_LEVELS = 3  # halvings of height and width
SIDES = Sides(multiple_of=2**_LEVELS, least=16, published=SIZE)

__all__ = ["SIDES", "SIZE", "CrossTransformer", "LNet", "LNetDecoder", "LNetEncoder"]


class _FinalBlock(nn.Module):
    """Three channels in [0, 1]."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.model = nn.Sequential(SpectralConv2d(inputs, 3, 7), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class _CrossAttention(nn.Module):
    """x + out(softmax(q(x) k(x)^T / sqrt(d)) v(y)), x and y layer-normed. Query and key come both from x."""

    def __init__(self, dim: int, head: int) -> None:
        super().__init__()
        inner = _HEADS * head
        self.normx = nn.LayerNorm(dim)
        self.normy = nn.LayerNorm(dim)
        self.fn = nn.ModuleDict({name: nn.Linear(dim, inner, bias=False) for name in ("to_q", "to_k", "to_v")})
        self.fn["to_out"] = nn.Sequential(nn.Linear(inner, dim))

    def _heads(self, name: str, tokens: Tensor) -> Tensor:
        return self.fn[name](tokens).unflatten(-1, (_HEADS, -1)).transpose(1, 2)  # (N,heads,tokens,d)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        own, other = self.normx(x), self.normy(y)
        query, key, value = self._heads("to_q", own), self._heads("to_k", own), self._heads("to_v", other)
        attended = F.scaled_dot_product_attention(query, key, value)
        return x + self.fn["to_out"](attended.transpose(1, 2).flatten(2))


class _FeedForward(nn.Module):
    """x + W2 GELU(W1 LN(x)), the GELU in its tanh approximation."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        # The place between the linear layers that has no name in the weights was dropout of probability 0.
        net = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(approximate="tanh"), nn.Identity(), nn.Linear(hidden, dim))
        self.norm = nn.LayerNorm(dim)
        self.fn = nn.ModuleDict({"net": net})

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fn["net"](self.norm(x))


class CrossTransformer(nn.Module):
    """Two layers of attention and feed-forward on the pixels of one map, with values from another.

    No position code and no last norm; the other map is the same for both layers. The paper speaks of two
    cross-attention blocks.

    Args:
        dim: channels of both maps.
        head: channels of each of the four heads.
        hidden: of the feed-forward layers.
    """

    def __init__(self, dim: int, head: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList([_CrossAttention(dim, head), _FeedForward(dim, hidden)]) for _ in range(2)
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The map (N,C,H,W) that is changed, and the one that gives values -> (N,C,H,W)."""
        tokens, values = (image.flatten(2).transpose(1, 2) for image in (x, y))  # (N,H*W,C)
        for layer in self.layers:
            attend, feed_forward = layer.children()
            tokens = feed_forward(attend(tokens, values))
        return tokens.transpose(1, 2).unflatten(2, x.shape[2:])


class LNetEncoder(nn.Module):
    """Masked target and reference, each through its own blocks; at an eighth of the size the first attends.

    The paper has batch norms here; the official weights have layer norms and spectral norms.

    Args:
        width: factor on the channels; 1.0 is published.
        cross_attention: as for `LNet`.
    """

    def __init__(self, width: float = 1.0, cross_attention: bool = True) -> None:
        super().__init__()
        c = partial(scaled, width=width)
        channels = (c(64), c(128), c(256), c(512))
        self.first_inp = ConvBlock(3, channels[0], 7)
        self.first_ref = ConvBlock(3, channels[0], 7)
        for level in range(_LEVELS):
            if cross_attention and level == _LEVELS - 1:
                self.ca2 = CrossTransformer(channels[-1], c(64), c(256))
            # Named one by one: this is the order of the official state dict.
            self.add_module(f"ref_down{level}", DownBlock(channels[level], channels[level + 1]))
            self.add_module(f"inp_down{level}", DownBlock(channels[level], channels[level + 1]))
        self.cross_attention = cross_attention

    def forward(self, masked: Tensor, reference: Tensor) -> list[Tensor]:
        """Images (N,3,H,W) twice -> four maps.

        Of the masked branch (N,64,H,W), (N,128,H/2,W/2), (N,256,H/4,W/4); of both (N,1024,H/8,W/8).
        """
        masked, reference = self.first_inp(masked), self.first_ref(reference)
        maps = [masked]
        for level in range(_LEVELS):
            masked = getattr(self, f"inp_down{level}")(masked)
            reference = getattr(self, f"ref_down{level}")(reference)
            maps.append(masked)
        if self.cross_attention:
            masked = self.ca2(masked, reference)
        maps[-1] = torch.cat([masked, reference], dim=1)
        return maps


class LNetDecoder(nn.Module):
    """FFC residual blocks at three sizes, from an eighth up; after each the skip of the encoder is added.

    The skips come from the masked branch; the paper's Figure 5 has them from the reference's features.

    Args:
        width: factor on the channels; 1.0 is published.
        blocks: FFC residual blocks at each size (published: 9; the paper counts them once, the weights have as
            many at each size).
    """

    def __init__(self, width: float = 1.0, blocks: int = 9) -> None:
        super().__init__()
        c = partial(scaled, width=width)
        outputs = (c(64), c(128), c(256))
        inputs = (c(128), c(256), 2 * c(512))
        for level in reversed(range(_LEVELS)):
            self.add_module(f"up{level}", UpBlock(inputs[level], outputs[level]))
            self.add_module(
                f"res{level}", SteeredBlocks(FFCResidualBlock(inputs[level], c(512), c(128)) for _ in range(blocks))
            )
            self.add_module(f"jump{level}", ConvBlock(outputs[level], outputs[level]))
        self.final = _FinalBlock(c(64))

    def forward(self, maps: list[Tensor], code: Tensor) -> Tensor:
        """The encoder's four maps and the audio code (N,512) -> (N,3,H,W) in [0, 1]."""
        x = maps[-1]
        for level in reversed(range(_LEVELS)):
            x = getattr(self, f"res{level}")(x, code)
            x = getattr(self, f"jump{level}")(maps[level]) + getattr(self, f"up{level}")(x)
        return self.final(x)


class LNet(nn.Module):
    """L-Net: a face with a hidden mouth, a reference and audio become the face with the mouth.

    ```
    masked target (N,3,96,96) - 64@96, 128@48, 256@24, 512@12 - cross-attention -+
    reference (N,3,96,96) ----- 64@96, 128@48, 256@24, 512@12 --+----------------+- 1024@12
    audio (N,1,80,16) - audio_encoder - z (512), which steers the AdaIN of every block
    1024@12 - blocks, up, + 256@24 - blocks, up, + 128@48 - blocks, up, + 64@96 - final - (N,3,96,96)
    ```

    Args:
        width: factor on the channels; 1.0 is published.
        blocks: FFC residual blocks at each of the decoder's three sizes.
        cross_attention: False is the ablation of the paper's Table 3, "channel concatenation instead": the attention is
            left out, and the features of target and reference are joined as they are. The paper prints no layers for
            it; here the rest stays the same, as both are joined after the attention, too.

    Differs: the audio vector has 512 values, and each branch 512 channels at an eighth of the size, as in the official
    weights; the paper (3.2) has 256 of both.

    Raises:
        ValueError: fewer than one block, or a width that is not positive.
    """

    def __init__(self, width: float = 1.0, blocks: int = 9, cross_attention: bool = True) -> None:
        super().__init__()
        if blocks < 1:
            raise ValueError(f"blocks is {blocks}. Expected 1 or more (9 = published). Set --model.init_args.blocks.")
        self.encoder = LNetEncoder(width, cross_attention)
        self.decoder = LNetDecoder(width, blocks)
        self.audio_encoder = audio_encoder(width)

    def forward(self, audio: Tensor, faces: Tensor) -> Tensor:
        """Faces in [0, 1], of the same rank as the input.

        Args:
            audio: (B,1,80,16) or (B,T,1,80,16).
            faces: (B,6,H,W) or (B,6,T,H,W) in [0, 1]: channels 0-2 the frame with its lower half zeroed, 3-5 a
                reference. Height and width are multiples of 8 from 16 on; 96 is published.

        Returns:
            (B,3,H,W) or (B,3,T,H,W); frames of a window do not see each other.

        Raises:
            ValueError: faces of another size.
        """
        height, width = faces.shape[-2:]
        SIDES.check(f"LNet: faces of {height} x {width}", height, width)
        frames = faces.shape[2] if faces.ndim == 5 else None
        if frames is not None:
            audio, faces = to_time_major(audio, 1), to_time_major(faces, 2)
        code = self.audio_encoder(audio).flatten(1)
        x = self.decoder(self.encoder(faces[:, :3], faces[:, 3:]), code)
        return x if frames is None else from_time_major(x, frames)
