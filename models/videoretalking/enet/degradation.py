# SPDX-License-Identifier: Apache-2.0
"""Faces as a poor video would have them, from which E-Net learns to restore good ones."""

import numpy as np
import simplejpeg
import torch
from torch import Tensor

QUALITIES = (50, 95)
"""Of the JPEG files, both included. Not published."""

__all__ = ["QUALITIES", "through_jpeg"]


def through_jpeg(images: Tensor, qualities: list[int]) -> Tensor:
    """Images that were stored as JPEG files.

    Args:
        images: (N,3,H,W) RGB in [0, 1]; no gradient flows through them.
        qualities: N numbers from 1 to 100.

    Returns:
        (N,3,H,W) in [0, 1], in the dtype and on the device of the images.
    """
    rgb = (images.detach().float() * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    stored = [
        simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(image, quality=quality, colorsubsampling="420"))
        for image, quality in zip(rgb.cpu().numpy(), qualities, strict=True)
    ]
    return torch.from_numpy(np.stack(stored)).to(images.device).permute(0, 3, 1, 2).to(images.dtype) / 255
