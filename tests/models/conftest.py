# SPDX-License-Identifier: Apache-2.0
"""Files that the tests of several methods share."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision

from lipsync_bench.models.core.checkpoints import save_module
from lipsync_bench.models.hyperlips import HyperLipsBase
from tests import golden


@pytest.fixture(scope="session")
def imagenet_weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with files named as torchvision's ImageNet weights of VGG-16 and VGG-19, filled like golden networks.

    Of the classifiers, which nothing here reads, they have one bias. Read only.
    """
    folder = tmp_path_factory.mktemp("imagenet")
    for name, file in (("vgg16", "vgg16-397923af.pth"), ("vgg19", "vgg19-dcbb9e9d.pth")):
        with torch.device("meta"):
            network = getattr(torchvision.models, name)()
        shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
        wanted = {key: shape for key, shape in shapes.items() if key.startswith("features.")}
        torch.save(golden.filled({**wanted, "classifier.6.bias": shapes["classifier.6.bias"]}), folder / file)
    yield folder
    shutil.rmtree(folder)  # 140 MB


@pytest.fixture
def small_base(tmp_path: Path) -> Path:
    """A checkpoint of a narrow HyperLipsBase, for this test alone."""
    torch.manual_seed(2)
    save_module(HyperLipsBase(width=0.125), tmp_path / "base.ckpt")
    return tmp_path / "base.ckpt"
