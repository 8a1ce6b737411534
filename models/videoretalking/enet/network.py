# SPDX-License-Identifier: Apache-2.0
"""E-Net, the network of VideoReTalking that enlarges L-Net's face four times and keeps the person's identity.

Layers, names and constants are those of the official weights (ENet.pth).
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_bench.models.parts.layers import from_time_major, scaled, to_time_major
from lipsync_bench.models.parts.stylegan2 import ResBlock, StyleConv, ToRGB, leaky, resized

SIZE = 384
"""Height and width of the faces that it makes."""
SCALE = 4
"""How much larger they are than L-Net's."""
_IDENTITY_SIZE = 256  # of the reference
_PAD = 2  # at L-Net's size; cut off again at the end
_LAST_PX = 4

__all__ = ["SCALE", "SIZE", "ENet"]


def _to(images: Tensor, size: int) -> Tensor:
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False)


class ENet(nn.Module):
    """E-Net: an L-Net's face of 96 pixels and a reference become a face of 384 pixels.

    ```
    masked target and gt (N,6,H,W) - 96 pixels - low_res, with the audio - face (N,3,96,96), padded to 100
    reference (N,3,H,W) - 256 pixels - conv_body_first, conv_body_down x 6, final_conv, final_linear - style w (N,512)
    face - style_convs.0, .1 - 200 pixels - style_convs.2, .3 - 400 pixels, each steered by w
           + to_rgbs.0       + to_rgbs.1  - colours (N,3,400,400), cut to (N,3,384,384)
    ```
    Args:
        low_res: L-Net, or any network that is called as it is and gives faces of 96 pixels.
        width: factor on the channels of all but `low_res`; 1.0 is published.
        low_size: height and width of L-Net's faces, a multiple of 8 from 16 on; 96 is published.

    Differs: `low_res` gets no gradient. The official code means that, too, but its calls have no effect.
    """

    def __init__(self, low_res: nn.Module, width: float = 1.0, low_size: int = SIZE // SCALE) -> None:
        super().__init__()
        down = [scaled(channels, width) for channels in (256, 256, 512, 512, 512, 512, 512)]
        last, style = down[-1], scaled(512, width)
        up = [3, scaled(256, width), scaled(128, width)]
        self.low_res, self.low_size = low_res, low_size
        self.conv_body_first = nn.Conv2d(3, down[0], 1)
        self.conv_body_down = nn.ModuleList(ResBlock(*pair, 0.5) for pair in pairwise(down))
        self.final_linear = nn.Linear(last * _LAST_PX**2, style)
        self.final_conv = nn.Conv2d(last, last, 3, padding=1)
        self.style_convs, self.to_rgbs = nn.ModuleList(), nn.ModuleList()
        for inputs, outputs in pairwise(up):
            self.style_convs.extend([StyleConv(inputs, outputs, style), StyleConv(outputs, outputs, style)])
            self.to_rgbs.append(ToRGB(outputs, style))

    def forward(
        self, audio: Tensor, face: Tensor, gt: Tensor, noise: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The face and L-Net's, both in BGR as the inputs are.

        Args:
            audio: (B,1,80,16) or (B,T,1,80,16).
            face: (B,6,H,W) or (B,6,T,H,W) in [0, 1]: channels 0-2 the frame with its lower half zeroed, 3-5 a
                reference for the identity. Any height and width; 384 is published.
            gt: (B,3,H,W) or (B,3,T,H,W) in [0, 1]: L-Net's reference. In training the whole frame itself, in inference
                the reference.
            noise: four maps (N,1,h,h) with h = 200, 200, 400, 400, for N = B or B*T images, all of frame 0 first; None
                draws them anew from N(0, 1), in evaluation, too. With zeros the result is reproducible.

        Returns:
            (B,3,384,384) without a limit to its values, and (B,3,96,96) in [0, 1]; for windows (B,3,T,384,384) twice,
            L-Net's image enlarged to the nearest pixels.

        Raises:
            ValueError: `face` and `gt` differ in size; another number of noise maps.
        """
        if face.shape[2:] != gt.shape[2:] or face.shape[1] != 6 or gt.shape[1] != 3:
            raise ValueError(
                f"ENet: face is {tuple(face.shape)}, gt is {tuple(gt.shape)}. Expected 6 and 3 channels (axis 1), and "
                "the same in what follows. Resize the images"
            )
        if noise is not None and len(noise) != len(self.style_convs):
            raise ValueError(
                f"ENet: {len(noise)} noise maps. Expected {len(self.style_convs)}, or None for random ones. Set noise"
            )
        frames = face.shape[2] if face.ndim == 5 else None
        if frames is not None:
            audio, face, gt = to_time_major(audio, 1), to_time_major(face, 2), to_time_major(gt, 2)
        low = self.lips(audio, torch.cat([face[:, :3], gt], dim=1))
        image = self.enlarged(low, self.style(face[:, 3:]), noise)
        if frames is None:
            return image, low
        return from_time_major(image, frames), from_time_major(F.interpolate(low, scale_factor=SCALE), frames)

    def no_noise(self, like: Tensor) -> list[Tensor]:
        """Maps of zeros for `forward`, as many as there are images (N,...), in their dtype."""
        sides = [factor * (self.low_size + 2 * _PAD) for factor in (2, 2, 4, 4)]
        return [like.new_zeros(len(like), 1, side, side) for side in sides]

    @torch.no_grad()
    def lips(self, audio: Tensor, faces: Tensor) -> Tensor:
        """L-Net's faces (N,3,96,96) for audio (N,1,80,16) and faces (N,6,H,W), always in evaluation mode."""
        if self.low_res.training:  # its batch norms and spectral norms would move
            self.low_res.eval()
        return self.low_res(audio, _to(faces, self.low_size))

    def style(self, reference: Tensor) -> Tensor:
        """(N,3,H,W) -> the code of the identity (N,512)."""
        x = leaky(self.conv_body_first(_to(reference, _IDENTITY_SIZE)))
        for block in self.conv_body_down:
            x = block(x)
        return self.final_linear(leaky(self.final_conv(x)).flatten(1))

    def enlarged(self, low: Tensor, style: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor:
        """Faces (N,3,96,96) and codes (N,512) -> (N,3,384,384); noise as in `forward`."""
        x = colours = F.pad(low, (_PAD, _PAD, _PAD, _PAD), mode="reflect")
        maps = iter(noise or ())
        for index, layer in enumerate(self.style_convs):
            x = resized(x, 2) if index % 2 == 0 else x
            grain = x.new_empty(len(x), 1, *x.shape[2:]).normal_() if noise is None else next(maps)
            x = layer(x, style, grain)
            if index % 2:
                colours = self.to_rgbs[index // 2](x, style, colours)
        border = _PAD * SCALE
        return colours[..., border:-border, border:-border]
