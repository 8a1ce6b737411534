# SPDX-License-Identifier: Apache-2.0
"""Random weights for the metric networks, in files of the published format and size.

Time and memory equal those of the published weights; scores are meaningless. They are only for temporary folders.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import torch
import torchvision
from torch import nn

from lipsync_bench.datamodules.weights.options import WeightOptions
from lipsync_bench.evaluation import MetricOptions
from lipsync_bench.models import SyncExpertModule
from lipsync_bench.models.core.checkpoints import save_module
from lipsync_bench.models.pretrained.syncnet import SyncNetV2

NetworkName = Literal["syncnet_v2", "expert", "alexnet", "inception_fid"]
NETWORKS: tuple[NetworkName, ...] = get_args(NetworkName)

__all__ = ["NETWORKS", "NetworkName", "RandomNetworks", "write_random_networks"]


@dataclass(frozen=True)
class RandomNetworks:
    """Options of an evaluation with random weights, and the networks that they name."""

    names: frozenset[str] = frozenset()
    metrics: MetricOptions = field(default_factory=MetricOptions)
    weights: WeightOptions = field(default_factory=WeightOptions)


def _inception() -> nn.Module:
    """He's initialisation: with torch's default the signal would vanish before the last of 94 convolutions."""
    network = torchvision.models.Inception3(1008, aux_logits=False, init_weights=False)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return network


def write_random_networks(folder: Path, names: Collection[NetworkName] = NETWORKS) -> RandomNetworks:
    """Write files for these networks, all at full width; for LPIPS only its AlexNet trunk.

    Args:
        folder: An empty folder.
        names: The expert, or ids of official files.
    """
    torch.manual_seed(0)
    builders = {"syncnet_v2": SyncNetV2, "alexnet": torchvision.models.alexnet, "inception_fid": _inception}
    files = {id: folder / f"{id}.pth" for id in builders if id in names}
    for id, path in files.items():
        torch.save(builders[id]().state_dict(), path)
    expert = folder / "expert.ckpt" if "expert" in names else None
    if expert is not None:
        save_module(SyncExpertModule(), expert)
    weights = WeightOptions(tuple(f"{id}={path}" for id, path in files.items()))
    return RandomNetworks(frozenset(names), MetricOptions(expert), weights)
