# SPDX-License-Identifier: Apache-2.0
"""Files of official form and full width, whose values are made up: `weights/` and torchvision's cache."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchvision
from scipy.io import savemat
from torch import Tensor

from lipsync_bench.datamodules.faces.s3fd import S3FD
from lipsync_bench.models.pretrained.face_coefficients import FaceCoefficients
from lipsync_bench.models.pretrained.syncnet_s3fd import SyncNetS3FD
from tests.golden import filled, names_and_shapes

__all__ = ["make_backbones", "make_expression", "make_faces_everywhere", "make_weights"]


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


def make_faces_everywhere(folder: Path) -> None:
    """s3fd.pth and sfd_face.pth that find the same face in every frame of 256 x 256 pixels, whatever it shows.

    All weights are 0. The biases of the largest scale give every cell a face; that of the first cell lies on the face.
    """
    for name, network, shift, side in (
        # cells of 128 pixels, anchors of 512: from the first cell's middle (64, 64) to (128, 144)
        ("s3fd.pth", S3FD(), (64 / 51.2, 80 / 51.2), 150 / 512),
        # of a frame resized to 64 x 64, the only cell's middle (64, 64) to (32, 36)
        ("sfd_face.pth", SyncNetS3FD(), (-32 / 51.2, -28 / 51.2), 38 / 512),
    ):
        state = {key: torch.zeros_like(value) for key, value in network.state_dict().items()}
        scores, places = ([key for key in state if key.endswith("bias") and part in key] for part in ("conf", "loc"))
        for key in scores:
            state[key][-1] = -9.0
        state[scores[-1]][-1] = 9.0
        state[places[-1]].copy_(torch.tensor([*shift, *[5 * math.log(side)] * 2]))
        torch.save(state, folder / name)


def make_expression(folder: Path) -> None:
    """Deep3DFaceRecon's network, of made-up values, and VideoReTalking's templates of an expression."""
    network = {name: list(value.shape) for name, value in FaceCoefficients().state_dict().items()}
    torch.save({"net_recon": filled(network)}, folder / "deep3d_face.pth")
    rng = np.random.default_rng(0)
    rows = {name: rng.normal(0, 0.3, (2, 64)) for name in ("expression_center", "expression_mouth")}
    savemat(folder / "expression.mat", rows)
