# SPDX-License-Identifier: Apache-2.0
"""Checks of the arguments of all image metrics, so that they refuse the same inputs with the same messages."""

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["DATA_RANGE", "checked_images", "checked_pair"]

DATA_RANGE = 255.0


def _check(name: str, images: Tensor) -> None:
    if not isinstance(images, Tensor):
        raise ValueError(f"{name} is {type(images).__name__}. Expected a torch.Tensor. Use torch.from_numpy(frames)")
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise ValueError(
            f"{name} has shape {tuple(images.shape)}. Expected (B, C, H, W) with C = 3 (RGB) or 1 (gray) and nothing "
            "empty. Use frames.permute(0, 3, 1, 2) for frames as a video decoder gives them"
        )
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise ValueError(
            f"{name} has dtype {images.dtype}. Expected uint8 or a floating type in 0..255. Use {name}.to(torch.uint8)"
        )


def _check_range(given: Mapping[str, Tensor]) -> None:
    """Float images have to be in 0..255, and to reach beyond 1: those that do not are nearly always in [0, 1]."""
    for name, images in given.items():
        if images.dtype == torch.uint8:
            continue
        low, high = (float(value) for value in torch.aminmax(images.detach()))
        if not (low >= 0.0 and high <= DATA_RANGE):  # written so that NaN fails too
            raise ValueError(f"{name} has values from {low:g} to {high:g}. Expected 0..255. Clamp or rescale it first")
    if any(images.is_floating_point() for images in given.values()):
        high = max(float(images.detach().max()) for images in given.values())
        if 0.0 < high <= 1.0:
            have, them = ("has", "it") if len(given) == 1 else ("have", "both")
            raise ValueError(
                f"{' and '.join(given)} {have} no value above {high:g}, as images in [0, 1] do. Expected 0..255. "
                f"Multiply {them} by 255 (or pass uint8 when the video really is that dark)"
            )


def checked_images(name: str, images: Tensor) -> Tensor:
    """One image batch (B, C, H, W) as float64 in 0..255, by the rules of `checked_pair`.

    Raises:
        ValueError: a shape, dtype or range is not as described, or a value is not finite.
    """
    _check(name, images)
    _check_range({name: images})
    return images.to(torch.float64)


def checked_pair(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The two image batches (B, C, H, W) as float64 in 0..255.

    Float images whose largest value lies in (0, 1] are refused: they are nearly always images in [0, 1], which would
    score 48 dB too much. A video as dark as that can be passed as uint8.

    Raises:
        ValueError: a shape, dtype or range is not as described, a value is not finite, or the two do not match.
    """
    for name, images in (("pred", pred), ("target", target)):
        _check(name, images)
    if pred.shape != target.shape:
        raise ValueError(
            f"pred has shape {tuple(pred.shape)}, target {tuple(target.shape)}. Expected the same frames at the same "
            "size. Resize or trim one of them first"
        )
    if pred.device != target.device:
        raise ValueError(f"pred is on {pred.device}, target on {target.device}. Expected one device. Use .to(device)")
    _check_range({"pred": pred, "target": target})
    return pred.to(torch.float64), target.to(torch.float64)
