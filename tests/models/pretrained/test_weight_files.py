# SPDX-License-Identifier: Apache-2.0
"""The weight files of SyncNet and of the face parser: what is accepted, and what is said of files that are not."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lipsync_bench.models.pretrained.face_parsing import load_face_parser
from lipsync_bench.models.pretrained.syncnet import load_syncnet
from tests import golden


@dataclass(frozen=True)
class Network:
    """A network with an official weight file.

    Args:
        load: Reads the file.
        shapes: Name of the golden list of its tensors.
        weight: A weight, which a wrong file calls otherwise.
        bias: A bias, which a wrong file has with three values.
        size: Its true number of values.
        file: Its official name.
        repair: What a message says about where the file comes from and which option names it.
    """

    load: Callable[[Path | str], nn.Module]
    shapes: str
    weight: str
    bias: str
    size: int
    file: str
    repair: str


NETWORKS = {
    "syncnet": Network(
        load_syncnet,
        "syncnet_v2",
        "netfcaud.0.weight",
        "netfclip.0.bias",
        512,
        r"syncnet_v2\.model",
        r"software/lipsync/data/syncnet_v2\.model.*--weights syncnet_v2=PATH",
    ),
    "face_parsing": Network(
        load_face_parser,
        "hyperlips_parsing",
        "ffm.conv1.weight",
        "cp.resnet.bn1.bias",
        64,
        r"face_segmentation\.pth",
        r"face_segmentation\.pth.*HyperLips.*face-parsing.*--weights face_segmentation=PATH",
    ),
}


@pytest.fixture(scope="module", params=list(NETWORKS))
def network(request: pytest.FixtureRequest) -> Network:
    return NETWORKS[request.param]


@pytest.fixture(scope="module")
def weights(network: Network) -> dict[str, Tensor]:
    return golden.filled(golden.names_and_shapes(network.shapes))


def test_counters_of_batches_may_be_missing(network: Network, weights: dict[str, Tensor], tmp_path: Path) -> None:
    old = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    loaded = network.load(str(tmp_path / "old.pth"))
    assert torch.equal(loaded.state_dict()[network.weight], weights[network.weight])


def test_other_names_and_shapes_are_listed(network: Network, weights: dict[str, Tensor], tmp_path: Path) -> None:
    changed = {**weights, network.bias: torch.zeros(3)}
    changed["another.weight"] = changed.pop(network.weight)
    torch.save(changed, tmp_path / "changed.pth")
    with pytest.raises(
        ValueError, match=rf"Missing: {network.weight}\. Unknown: another\.weight\..*{network.repair}"
    ) as error:
        network.load(tmp_path / "changed.pth")
    assert f"{network.bias} (3,) instead of ({network.size},)" in str(error.value)


def test_missing_file_says_where_to_get_it_and_which_flag_names_it(network: Network, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=network.repair):
        network.load(tmp_path / "none.pth")


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"])
def test_damaged_file_is_reported_with_its_path(network: Network, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "damaged.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"damaged\.pth: (cannot be read|is a web page).*the file {network.file}"):
        network.load(path)


def test_wrapped_state_dict_is_refused(network: Network, weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"state_dict": weights}, tmp_path / "wrapped.pth")
    with pytest.raises(ValueError, match="no flat mapping"):
        network.load(tmp_path / "wrapped.pth")
