# SPDX-License-Identifier: Apache-2.0
"""Random weights for the metric networks, in files of the published format and size.

Time and memory equal those of the published weights; scores are meaningless. They are only for temporary folders.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Literal, get_args

import torch
import torchvision
from torch import nn

from lipsync_bench.evaluation import ScorerFiles
from lipsync_bench.metrics.image.inception import FILE as INCEPTION
from lipsync_bench.models import SyncExpertModule
from lipsync_bench.models.core.checkpoints import save_module
from lipsync_bench.models.pretrained.syncnet import SyncNetV2

ALEXNET = "alexnet-owt-7be5be79.pth"
NetworkName = Literal["syncnet", "expert", "lpips", "inception"]
NETWORKS: tuple[NetworkName, ...] = get_args(NetworkName)

__all__ = ["NETWORKS", "NetworkName", "write_random_networks"]


def _inception() -> nn.Module:
    """He's initialisation: with torch's default the signal would vanish before the last of 94 convolutions."""
    network = torchvision.models.Inception3(1008, aux_logits=False, init_weights=False)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return network


def write_random_networks(folder: Path, names: Collection[NetworkName] = NETWORKS) -> ScorerFiles:
    """Write files for these networks, all at full width; for LPIPS only its AlexNet trunk.

    Args:
        folder: An empty folder.
        names: The networks.

    Returns:
        Their paths, for an evaluation.
    """
    torch.manual_seed(0)
    syncnet, expert = folder / "syncnet_v2.model", folder / "expert.ckpt"
    if "syncnet" in names:
        torch.save(SyncNetV2().state_dict(), syncnet)
    if "expert" in names:
        save_module(SyncExpertModule(), expert)
    if "lpips" in names:
        torch.save(torchvision.models.alexnet().state_dict(), folder / ALEXNET)
    if "inception" in names:
        torch.save(_inception().state_dict(), folder / INCEPTION)
    return ScorerFiles(
        syncnet=syncnet if "syncnet" in names else None,
        expert=expert if "expert" in names else None,
        lpips=str(folder) if "lpips" in names else None,
        inception=str(folder) if "inception" in names else None,
    )
