# SPDX-License-Identifier: Apache-2.0
"""Weights for the networks that judge, random, in files of the published form and size.

Time and memory are those of the published weights; no score means anything. They live in temporary folders only.
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
Judge = Literal["syncnet", "expert", "lpips", "inception"]
JUDGES: tuple[Judge, ...] = get_args(Judge)

__all__ = ["JUDGES", "Judge", "write_random_judges"]


def _inception() -> nn.Module:
    """He's initialisation: with torch's own the image would be lost before the last of its 94 convolutions."""
    network = torchvision.models.Inception3(1008, aux_logits=False, init_weights=False)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return network


def write_random_judges(folder: Path, judges: Collection[Judge] = JUDGES) -> ScorerFiles:
    """Write files for these judges, all at their full width; LPIPS with its AlexNet trunk alone.

    Args:
        folder: An empty one.
        judges: Which.

    Returns:
        Where they are, for an evaluation.
    """
    torch.manual_seed(0)
    syncnet, expert = folder / "syncnet_v2.model", folder / "expert.ckpt"
    if "syncnet" in judges:
        torch.save(SyncNetV2().state_dict(), syncnet)
    if "expert" in judges:
        save_module(SyncExpertModule(), expert)
    if "lpips" in judges:
        torch.save(torchvision.models.alexnet().state_dict(), folder / ALEXNET)
    if "inception" in judges:
        torch.save(_inception().state_dict(), folder / INCEPTION)
    return ScorerFiles(
        syncnet=syncnet if "syncnet" in judges else None,
        expert=expert if "expert" in judges else None,
        lpips=str(folder) if "lpips" in judges else None,
        inception=str(folder) if "inception" in judges else None,
    )
