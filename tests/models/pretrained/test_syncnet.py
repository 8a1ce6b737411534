# SPDX-License-Identifier: Apache-2.0
"""SyncNet v2 against stored outputs of the official class, and the loading of its weight file."""

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


def test_counters_of_batches_may_be_missing(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    old = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.model")
    network = load_syncnet(str(tmp_path / "old.model"))
    assert torch.equal(network.state_dict()["netcnnaud.0.weight"], weights["netcnnaud.0.weight"])


def test_other_names_and_shapes_are_listed(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    changed = dict(weights)
    changed["netfcaud.9.weight"] = changed.pop("netfcaud.0.weight")
    changed["netfclip.0.bias"] = torch.zeros(3)
    torch.save(changed, tmp_path / "changed.model")
    with pytest.raises(
        ValueError, match=r"Missing: netfcaud\.0\.weight\. Unknown: netfcaud\.9\.weight\..*netfclip"
    ) as e:
        load_syncnet(tmp_path / "changed.model")
    assert "(3,) instead of (512,)" in str(e.value)


def test_missing_file_says_where_to_get_it_and_which_flag_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"software/lipsync/data/syncnet_v2\.model.*--weights syncnet_v2=PATH"):
        load_syncnet(tmp_path / "none.model")


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"])
def test_damaged_file_is_reported_with_its_path(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged.model"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged\.model: (cannot be read|is a web page)"):
        load_syncnet(path)


def test_wrapped_state_dict_is_refused(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({"state_dict": weights}, tmp_path / "wrapped.model")
    with pytest.raises(ValueError, match="no flat mapping"):
        load_syncnet(tmp_path / "wrapped.model")
