# SPDX-License-Identifier: Apache-2.0
"""Files of official form and full width, whose values are made up: `weights/` and torchvision's cache."""

from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from torch import Tensor

from tests.golden import filled, names_and_shapes

__all__ = ["make_backbones", "make_weights"]


def _saved_by_training(state: dict[str, Tensor], prefix: str) -> dict[str, object]:
    """What the training scripts of Wav2Lip and HyperLips save."""
    named = {f"{prefix}{name}": value for name, value in state.items()}
    return {"state_dict": named, "optimizer": None, "global_step": 250000, "global_epoch": 12}


def make_weights(folder: Path) -> None:
    """wav2lip.pth, wav2lip_gan.pth, lipsync_expert.pth, hyperlipsbase_lrs2.pth and syncnet_v2.model."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, kind, prefix in (
        ("wav2lip.pth", "wav2lip", "module."),
        ("wav2lip_gan.pth", "wav2lip", "module."),
        ("lipsync_expert.pth", "sync_expert", ""),
        ("hyperlipsbase_lrs2.pth", "hyperlips_base", ""),
    ):
        state = filled(names_and_shapes(kind))
        if name == "wav2lip_gan.pth":  # another file than wav2lip.pth
            state = {key: value * 0.999 if value.is_floating_point() else value for key, value in state.items()}
        torch.save(_saved_by_training(state, prefix), folder / name)
    torch.save(filled(names_and_shapes("syncnet_v2")), folder / "syncnet_v2.model")


def make_backbones(folder: Path) -> None:
    """AlexNet, VGG-16 and VGG-19 as torchvision's cache has them, without the classifiers, which nothing here reads."""
    folder.mkdir(parents=True, exist_ok=True)
    networks: dict[str, Callable[[], torch.nn.Module]] = {
        "alexnet-owt-7be5be79.pth": torchvision.models.alexnet,
        "vgg16-397923af.pth": torchvision.models.vgg16,
        "vgg19-dcbb9e9d.pth": torchvision.models.vgg19,
    }
    for name, build in networks.items():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            state = build().state_dict()
        torch.save({key: value for key, value in state.items() if not key.startswith("classifier.")}, folder / name)
