# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of this package and weight files from elsewhere, of small networks with fixed weights."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from scipy.io import savemat
from torch import nn

from benchmarks.fuzz.kinds import Kind
from lipsync_bench.datamodules.files.weights import load_weights, read_torch
from lipsync_bench.models import Wav2Lip, load_expert, load_method
from lipsync_bench.models.core.checkpoints import BenchModule, save_module
from lipsync_bench.models.core.weight_files import WeightsFile
from lipsync_bench.models.videoretalking.expressions import stored_template
from lipsync_bench.models.wav2lip.sync_expert import SyncExpertModule
from lipsync_bench.weights.systems import read_system

_EXPECTED, _REPAIR = "the weights of a small network", "Download it again."

__all__ = ["KINDS"]


def _network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()


def _filled() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return _network().state_dict()


def _make_checkpoint(folder: Path) -> None:
    torch.manual_seed(0)
    _save(Wav2Lip(width=0.0625, recipe={"crop": "mesh"}), folder / "a.ckpt")


def _make_expert(folder: Path) -> None:
    torch.manual_seed(0)
    _save(SyncExpertModule(width=0.0625), folder / "a.ckpt")


def _save(module: BenchModule, path: Path) -> None:
    save_module(module, path, {"kind": "fuzz"})


def _make_flat(folder: Path) -> None:
    torch.save(_filled(), folder / "a.pth")


def _make_old(folder: Path) -> None:
    torch.save(_filled(), folder / "a.model", _use_new_zipfile_serialization=False)


def _make_nested(folder: Path) -> None:
    state = {f"module.{name}": value for name, value in _filled().items()}
    torch.save({"state_dict": state, "optimizer": {"state": {}, "lr": 0.1}, "global_step": 3}, folder / "a.pth")


def _make_script(folder: Path) -> None:
    torch.manual_seed(0)
    torch.jit.save(torch.jit.script(_network()), folder / "a.pth")


def _make_safetensors(folder: Path) -> None:
    save_file(_filled(), folder / "a.safetensors", {"format": "pt"})


def _make_expressions(folder: Path) -> None:
    savemat(folder / "a.mat", {name: np.zeros((2, 64)) for name in ("expression_center", "expression_mouth")})


def _expressions(path: Path) -> None:
    stored_template(path, "smile")


def _make_system(folder: Path) -> None:
    parts = {"enet": "a.ckpt", "dnet": "official", "share": 0.5}
    text = json.dumps({"class_path": "lipsync_bench.models.VideoReTalking", "init_args": parts})
    (folder / "a.yaml").write_text(text)


def _entries(path: Path) -> None:
    read_torch(path, _EXPECTED, _REPAIR)


def _weights(path: Path) -> None:
    load_weights(_network(), path, _EXPECTED, _REPAIR)


def _published(path: Path) -> None:
    """Read a file as LPIPS and FID do."""
    file, network = WeightsFile(path.name, str(path.parent), _EXPECTED, _REPAIR), _network()
    file.fill(network, {name: name for name in network.state_dict()}, file.read())


KINDS = (
    Kind("checkpoint", "a.ckpt", _make_checkpoint, load_method, "torch"),
    Kind("checkpoint_of_expert", "a.ckpt", _make_expert, load_expert, "torch"),
    Kind("weights", "a.pth", _make_flat, _weights, "torch"),
    Kind("weights_of_old", "a.model", _make_old, _weights, "torch"),
    Kind("weights_published", "a.pth", _make_flat, _published, "torch"),
    Kind("weights_to_import", "a.pth", _make_nested, _entries, "torch"),
    Kind("weights_old_to_import", "a.model", _make_old, _entries, "torch"),
    Kind("weights_script", "a.pth", _make_script, _entries, "torch"),
    Kind("weights_of_expressions", "a.mat", _make_expressions, _expressions),
    Kind("system", "a.yaml", _make_system, read_system, "yaml"),
    Kind("weights_safetensors", "a.safetensors", _make_safetensors, _entries, accepted=False),
)
