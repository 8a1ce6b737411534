# SPDX-License-Identifier: Apache-2.0
"""SyncNet v2 against stored outputs of the official class."""

from pathlib import Path

import pytest
import torch

from lipsync_bench.models.pretrained.syncnet import SyncNetV2, load_syncnet
from tests import golden

REFERENCE = golden.arrays("syncnet_v2")


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return golden.filled(golden.names_and_shapes("syncnet_v2"))


@pytest.fixture(scope="module")
def weight_file(weights: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("syncnet") / "syncnet_v2.model"
    torch.save(weights, path)
    return path


def test_names_and_shapes_are_the_official_ones_in_order() -> None:
    own = {name: list(value.shape) for name, value in SyncNetV2().state_dict().items()}
    assert list(own.items()) == list(golden.names_and_shapes("syncnet_v2").items())


def test_outputs_equal_the_official_ones(weight_file: Path) -> None:
    network = load_syncnet(weight_file)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    mfcc = torch.from_numpy(golden.uniform("syncnet_aud", (2, 1, 13, 20), -30, 30))
    lips = torch.from_numpy(golden.uniform("syncnet_lip", (2, 3, 5, 224, 224), 0, 255))
    with torch.no_grad():
        outputs = {
            "aud_out": network.forward_audio(mfcc),
            "lip_out": network.forward_lips(lips),
            "lipfeat_out": network.lip_features(lips),
        }
    for name, own in outputs.items():
        reference = torch.from_numpy(REFERENCE[name])
        assert own.shape == reference.shape
        assert (own - reference).abs().max() <= 1e-5 * reference.std(), name
