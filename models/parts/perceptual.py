# SPDX-License-Identifier: Apache-2.0
"""Perceptual losses: distances between the features of frozen ImageNet networks.

The networks are torchvision's VGG; LPIPS is the package `lpips`, which brings its own linear heads and no VGG. Their
ImageNet weights come from torchvision's cache of downloads or the store of official weights, and are never downloaded
or replaced silently: `"random"` has to be asked for, for smoke runs, and the names of the logged terms say so then.
"""

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Literal

import lpips
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from lipsync_bench.models.core.weight_files import RANDOM, TORCHVISION, WeightsFile

Backbone = Literal["vgg16", "vgg19"]
Perceptual = Literal["lpips", "pyramid"]
_FILES: dict[Backbone, str] = {"vgg16": "vgg16-397923af.pth", "vgg19": "vgg19-dcbb9e9d.pth"}
BACKBONES: tuple[Backbone, ...] = tuple(_FILES)
_VGG19_LAYERS = 35  # up to conv5_4, before its ReLU
_PYRAMID_LAYERS = (1, 6, 11, 20, 29)  # relu1_1, relu2_1, relu3_1, relu4_1, relu5_1
_PYRAMID_SCALES = 4  # image sizes at most; those too small for the deepest layer are left out (96 pixels have three)
_DEEPEST_STRIDE = 16  # of relu5_1, behind four poolings
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet, RGB
_log = logging.getLogger(__name__)

__all__ = [
    "BACKBONES",
    "RANDOM",
    "TORCHVISION",
    "Backbone",
    "LPIPSLoss",
    "Perceptual",
    "VGGLoss",
    "VGGPyramidLoss",
    "backbone_file",
    "gram_matrix",
    "load_features",
    "make_perceptual",
    "perceptual_term",
]


def backbone_file(name: Backbone, weights: str = TORCHVISION) -> Path:
    """Where the ImageNet weights of a network are expected.

    Args:
        name: The network.
        weights: "torchvision" for torchvision's cache of downloads; else a folder with files of the same names.
    """
    return _file(name, weights).path


def _file(name: Backbone, weights: str) -> WeightsFile:
    return WeightsFile(
        _FILES[name],
        weights,
        f"torchvision's ImageNet weights of {name}, {_FILES[name]}",
        f"Run where there is a network: bench weights fetch {name}; or name its folder with "
        "--model.init_args.perceptual_weights DIR; for smoke runs only: --model.init_args.perceptual_weights random",
    )


def load_features(features: nn.Sequential, name: Backbone, weights: str) -> str:
    """Fill the layers `features` of a VGG; returns the SHA-256 of the file, or "random".

    Args:
        features: torchvision's `features` or its first layers, numbered alike.
        name: The network.
        weights: "torchvision", "random" (leaves the layers as they are), or a folder.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be read or does not hold this network.
    """
    if weights == RANDOM:
        _log.warning("%s has RANDOM weights, as asked for: its loss means nothing and serves smoke runs only", name)
        return RANDOM
    file = _file(name, weights)
    return file.fill(features, {key: f"features.{key}" for key in features.state_dict()}, file.read())


class VGGLoss(nn.Module):
    """Mean absolute difference of VGG-19's conv5_4 features, taken before their ReLU (HyperLips, Eq. 13).

    Args:
        weights: As for `load_features`.
        normalised: Normalise RGB images by ImageNet's mean and deviation, as the network was trained. False feeds them
            as they come (the released HyperLips code: BGR, not normalised).

    Differs: Eq. 13 names neither network depth nor layer; conv5_4 before its ReLU is the released code's.
    """

    def __init__(self, weights: str = TORCHVISION, normalised: bool = True) -> None:
        super().__init__()
        self.features = torchvision.models.vgg19(init_weights=False).features[:_VGG19_LAYERS]
        self.source_sha256 = load_features(self.features, "vgg19", weights)
        self.normalised = normalised
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, generated: Tensor, target: Tensor) -> Tensor:
        """Images (N,3,H,W) in [0, 1], RGB if normalised -> scalar, differentiable in `generated`."""
        if self.normalised:
            generated, target = ((x - self.mean) / self.std for x in (generated, target))
        with torch.no_grad():
            wanted = self.features(target)
        return F.l1_loss(self.features(generated), wanted)


def gram_matrix(maps: Tensor) -> Tensor:
    """(N,C,H,W) -> (N,C,C): products of channels, summed over pixels, by C H W."""
    flat = maps.flatten(2)
    return flat @ flat.transpose(1, 2) / maps[0].numel()


class VGGPyramidLoss(nn.Module):
    """Mean absolute differences of VGG-19's relu1_1, 2_1, 3_1, 4_1 and 5_1, summed over layers and image sizes.

    L_perc = sum over scales s and layers l of mean |f_l(G_s) - f_l(Y_s)|, images halved bilinearly from scale to scale.
    VideoReTalking (Eq. 6) prints a VGG loss without its layers, weights and scales; these are the public configuration
    of PIRenderer (Ren et al., ICCV 2021), the parent of VideoReTalking's D-Net.

    Args:
        weights: As for `load_features`.
    """

    def __init__(self, weights: str = TORCHVISION) -> None:
        super().__init__()
        self.features = torchvision.models.vgg19(init_weights=False).features[: _PYRAMID_LAYERS[-1] + 1]
        self.source_sha256 = load_features(self.features, "vgg19", weights)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, generated: Tensor, target: Tensor) -> Tensor:
        """RGB images (N,3,H,W) in [0, 1] -> scalar, differentiable in `generated`.

        Raises:
            ValueError: images smaller than 16 pixels.
        """
        if min(generated.shape[-2:]) < _DEEPEST_STRIDE:
            raise ValueError(
                f"images of {tuple(generated.shape[-2:])} pixels. Expected {_DEEPEST_STRIDE} or more on each side "
                "for a perceptual loss. Set a larger image_size or --model.init_args.perceptual_weight 0."
            )
        generated, target = ((x - self.mean) / self.std for x in (generated, target))
        terms: list[Tensor] = []
        for scale in range(_PYRAMID_SCALES):
            if scale:
                generated, target = (F.interpolate(x, scale_factor=0.5, mode="bilinear") for x in (generated, target))
            if min(generated.shape[-2:]) < _DEEPEST_STRIDE:
                break
            with torch.no_grad():
                wanted = self._maps(target)
            terms += [F.l1_loss(seen, true) for seen, true in zip(self._maps(generated), wanted, strict=True)]
        return torch.stack(terms).sum()

    def gram(self, generated: Tensor, target: Tensor) -> Tensor:
        """RGB images (N,3,H,W) in [0, 1] -> mean absolute difference of Gram matrices, summed over layers (PIRenderer:
        at the full size alone); differentiable in `generated`.
        """
        generated, target = ((x - self.mean) / self.std for x in (generated, target))
        with torch.no_grad():
            wanted = [gram_matrix(maps) for maps in self._maps(target)]
        seen = [gram_matrix(maps) for maps in self._maps(generated)]
        return torch.stack([F.l1_loss(own, true) for own, true in zip(seen, wanted, strict=True)]).sum()

    def _maps(self, images: Tensor) -> list[Tensor]:
        maps = []
        for number, layer in enumerate(self.features):
            images = layer(images)
            if number in _PYRAMID_LAYERS:
                maps.append(images)
        return maps


class LPIPSLoss(nn.Module):
    """LPIPS v0.1 with VGG-16 (Zhang et al., CVPR 2018, arXiv 1801.03924), by the package `lpips`.

    Args:
        weights: As for `load_features`.
        normalised: Map images from [0, 1] to [-1, 1], as the package expects. False feeds them as they are (the
            released HyperLips code).

    Differs: HyperLips' Eq. 6 and 15 do not name the network of LPIPS. VGG-16 is the released code's for the lips of
    Eq. 15, and this project's choice for Eq. 6, which the released code leaves out.
    """

    def __init__(self, weights: str = TORCHVISION, normalised: bool = True) -> None:
        super().__init__()
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # the package calls torchvision in an outdated way
            self.network = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
        slices = (layer for part in self.network.net.children() for layer in part)
        self.source_sha256 = load_features(nn.Sequential(*slices), "vgg16", weights)
        self.normalised = normalised
        self.requires_grad_(False).eval()

    def forward(self, generated: Tensor, target: Tensor) -> Tensor:
        """Images (N,3,H,W) in [0, 1], RGB if normalised -> (N,), differentiable in `generated`."""
        return self.network(generated, target, normalize=self.normalised).flatten()


_LOSSES: dict[Perceptual, tuple[str, type[LPIPSLoss] | type[VGGPyramidLoss]]] = {
    "lpips": ("lpips", LPIPSLoss),
    "pyramid": ("perceptual", VGGPyramidLoss),
}
"""The name in logs and the class of each loss that a module lets one choose."""


def perceptual_term(name: Perceptual) -> str:
    """What the term of a perceptual loss is called in logs, where a name means one thing.

    Raises:
        ValueError: There is no such loss.
    """
    if name not in _LOSSES:
        raise ValueError(f"perceptual is {name!r}. Expected {' or '.join(_LOSSES)}. Set --model.init_args.perceptual")
    return _LOSSES[name][0]


def make_perceptual(name: Perceptual, weights: str) -> LPIPSLoss | VGGPyramidLoss:
    """The perceptual loss of that name; `weights` as for `load_features`."""
    return _LOSSES[name][1](weights)
