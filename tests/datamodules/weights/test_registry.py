# SPDX-License-Identifier: Apache-2.0
"""The registry of official weight files: each entry well-formed, nothing twice, everything that the package needs."""

import pytest

from lipsync_bench.datamodules.weights import registry
from lipsync_bench.datamodules.weights.registry import chosen_files, official_file, official_files
from lipsync_bench.metrics.registry import NETWORKS
from lipsync_bench.models.parts.perceptual import BACKBONES, backbone_file
from lipsync_bench.weights import KINDS

FILES = official_files()


def test_it_has_the_files_of_the_field():
    assert len(FILES) > 50
    assert sum(file.sources >= 2 for file in FILES.values()) >= 40
    syncnet = FILES["syncnet_v2"]
    assert (syncnet.file, syncnet.size, syncnet.sha256[:12]) == ("syncnet_v2.model", 54573114, "961e8696f888")
    assert FILES["s3fd"].sha256.startswith("619a316812")
    assert FILES["sfd_face"].sha256 != FILES["s3fd"].sha256


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_entries_are_well_formed(file):
    assert file.licence
    assert file.what
    assert file.use
    assert file.documented
    assert bool(file.sha256) == (file.sources > 0)  # a hash has a source
    assert file.official or file.mirrors or not file.sha256
    assert not set(file.official) & set(file.mirrors)
    assert file.file not in file.aliases
    assert max(len(text) for text in (file.what, file.licence, file.use, file.note, *file.other.values())) <= 100


def test_no_hash_is_there_twice():
    hashes = [digest for file in FILES.values() for digest in (file.sha256, *file.other) if digest]
    assert len(hashes) == len(set(hashes))


def test_every_kind_of_bench_import_has_files():
    assert {kind: bool(record.files) for kind, record in KINDS.items()} == dict.fromkeys(KINDS, True)
    assert {file.kind for file in FILES.values()} - {""} <= set(KINDS)


def test_networks_of_metrics_and_losses_are_there():
    names = {file.file for file in FILES.values()}
    assert {network.file for _, network in NETWORKS if network.home == "torchvision"} <= names
    assert {backbone_file(name).name for name in BACKBONES} <= names


def test_groups_and_ids_are_chosen_once():
    assert [file.id for file in chosen_files(["vgg16"], ["lpips"])] == ["vgg16", "alexnet"]
    assert [file.id for file in chosen_files([], ["lse"])] == ["syncnet_v2", "sfd_face"]
    with pytest.raises(ValueError, match=r"--for lips: no such group\. Expected one of wav2lip, .*Run: bench"):
        chosen_files([], ["lips"])
    with pytest.raises(ValueError, match=r"'syncnet_v1': no such id\. Expected .*syncnet_v2.*Run: bench weights list"):
        official_file("syncnet_v1")


@pytest.mark.parametrize(
    "entry",
    [
        "{file: a.pth, licence: x, sha256: 12ab}",
        "{file: ../a.pth, licence: x}",
        "{file: a.pth}",
        "{file: a.pth, licence: x, colour: red}",
        "{file: a.pth, licence: x, size: 1.5}",
        "{file: a.pth, licence: x, official: [ftp://a/b]}",
        "[]",
    ],
)
def test_a_damaged_registry_is_named(entry, tmp_path, monkeypatch):
    path = tmp_path / "registry.yaml"
    path.write_text(f"a: {entry}\n")
    monkeypatch.setattr(registry, "REGISTRY", path)
    with pytest.raises(ValueError, match=r"registry\.yaml: .*Expected a registry of weight files"):
        official_files.__wrapped__()
