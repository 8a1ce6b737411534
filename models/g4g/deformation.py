# SPDX-License-Identifier: Apache-2.0
"""Spatially adaptive deformation: every channel of the references' features is turned, scaled and moved by itself."""

import torch
from torch import Tensor, nn

from lipsync_bench.models.parts.layers import scaled
from lipsync_bench.models.parts.sampling import sample_bilinear

__all__ = ["Deformation", "affine_offsets"]


def affine_offsets(
    scale: Tensor, angle: Tensor, translation: Tensor, size_hw: tuple[int, int], isotropic: bool
) -> Tensor:
    """Where each cell of each channel is sampled, relative to the cell itself (Eq. 11).

    The cell at (x, y) from the middle is sampled at s R(theta) (x, y) + t. The ends of the coordinates are the centres
    of the border's cells.

    Args:
        scale, angle: (N,C).
        translation: (N,C,2), x then y; 1 is half of the map, from the middle to the border's cells.
        size_hw: Height and width of the map in cells.
        isotropic: Turn in cells. False turns in coordinates of [-1, 1], which shears a map that is not square.

    Returns:
        (N,C,2,H,W) in cells, x then y; 0 everywhere for the identity, exactly.
    """
    height, width = size_hw
    half_y, half_x = (height - 1) / 2, (width - 1) / 2
    y = torch.arange(height, device=scale.device, dtype=scale.dtype)[:, None] - half_y
    x = torch.arange(width, device=scale.device, dtype=scale.dtype) - half_x
    s, cos, sin = (value[..., None, None] for value in (scale, angle.cos(), angle.sin()))
    stretch = 1.0 if isotropic else half_x / half_y
    to_x = s * (cos * x - sin * (y * stretch)) + translation[..., 0, None, None] * half_x
    to_y = s * (sin * (x / stretch) + cos * y) + translation[..., 1, None, None] * half_y
    return torch.stack([to_x - x, to_y - y], dim=2)


class Deformation(nn.Module):
    """AdaAT (Zhang and Ding, ACM MM 2022), which G4G's operator is: code -> linear, ReLU -> scale, angle, translation.

    s = 2 sigmoid, theta = pi tanh, t = tanh, so that a head of zeros is the identity.

    Args:
        channels: C of the features.
        code: values of the code.
        isotropic: as for `affine_offsets`.
        identity_init: heads start at zero; False leaves them as they are drawn, as DINet does.

    Differs: DINet samples the volume of all channels with three coordinates, whose ends are centres of cells in the
    grid and edges of cells in the sampling, with zeros outside: an identity moves all by up to half a cell and mixes
    neighbouring channels. Here each channel is sampled in its own plane, in one convention, and the border's cells go
    on outside.
    """

    def __init__(
        self, channels: int, code: int, isotropic: bool = True, identity_init: bool = True, width: float = 1.0
    ):
        super().__init__()
        hidden = scaled(256, width)
        self.isotropic = isotropic
        self.common = nn.Sequential(nn.Linear(code, hidden), nn.ReLU())
        self.scale, self.angle = nn.Linear(hidden, channels), nn.Linear(hidden, channels)
        self.translation = nn.Linear(hidden, 2 * channels)
        for head in (self.scale, self.angle, self.translation) if identity_init else ():
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def forward(self, features: Tensor, code: Tensor) -> Tensor:
        """Features (N,C,h,w) and code (N,V) -> (N,C,h,w)."""
        size_hw = features.shape[-2], features.shape[-1]
        with torch.autocast(features.device.type, enabled=False):  # places need more digits than 16 bits have
            common = self.common(code.float() if code.dtype != torch.float64 else code)
            scale, angle = 2 * self.scale(common).sigmoid(), torch.pi * self.angle(common).tanh()
            moved = self.translation(common).tanh().unflatten(1, (-1, 2))
            offsets = affine_offsets(scale, angle, moved, size_hw, self.isotropic)
            planes = features.to(offsets.dtype).flatten(0, 1)[:, None]
            return sample_bilinear(planes, offsets.flatten(0, 1)).view_as(features).to(features.dtype)
