# SPDX-License-Identifier: Apache-2.0
"""Checkpoints and weight files that somebody changed, packed, or took for something else."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lipsync_bench.datamodules.files.weights import load_weights, read_torch
from lipsync_bench.models import Wav2Lip, load_method
from lipsync_bench.models.core.checkpoints import load_checkpoint, save_module
from lipsync_bench.weights import import_official

Checkpoint = dict[str, Any]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("good") / "m.ckpt"
    save_module(Wav2Lip(width=0.125), path)
    return path.read_bytes()


def first(checkpoint: Checkpoint) -> str:
    return next(iter(checkpoint["state_dict"]))


def arguments(**values: object) -> Callable[[Checkpoint], None]:
    return lambda c: c["hyper_parameters"].update(values)


def weight(change: Callable[[torch.Tensor], object]) -> Callable[[Checkpoint], None]:
    return lambda c: c["state_dict"].update({first(c): change(c["state_dict"][first(c)])})


CHANGES: dict[str, Callable[[Checkpoint], object]] = {
    "record text": lambda c: c.update(lipsync_bench="x"),
    "record none": lambda c: c.update(lipsync_bench=None),
    "record empty": lambda c: c.update(lipsync_bench={}),
    "class a list": lambda c: c["lipsync_bench"].update(class_path=[1]),
    "class of another": lambda c: c["lipsync_bench"].update(class_path="os.system"),
    "arguments none": lambda c: c.update(hyper_parameters=None),
    "arguments by number": lambda c: c.update(hyper_parameters={1: 2}),
    "argument unknown": arguments(unknown=3),
    "argument huge": arguments(width=1e9),
    "argument large": arguments(width=60.0),
    "argument infinite": arguments(width=float("inf")),
    "argument not a number": arguments(width=float("nan")),
    "argument a text": arguments(width="x"),
    "argument a list": arguments(width=[1]),
    "no weights": lambda c: c.pop("state_dict"),
    "weights a list": lambda c: c.update(state_dict=[1]),
    "weight a number": weight(lambda _: 1.0),
    "weight of whole numbers": weight(lambda t: t.int()),
    "weight complex": weight(lambda t: t.to(torch.complex64)),
    "weight of another shape": weight(lambda _: torch.zeros(1)),
    "weight of no bytes": weight(lambda _: torch.zeros(1).expand(10**10)),
    "weight unknown": lambda c: c["state_dict"].update(extra=torch.zeros(1)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_record_is_an_error_that_names_the_file(good: bytes, name: str, tmp_path: Path) -> None:
    checkpoint = torch.load(io.BytesIO(good), weights_only=True)
    CHANGES[name](checkpoint)
    torch.save(checkpoint, tmp_path / "m.ckpt")
    with pytest.raises(ValueError, match=r"m\.ckpt: .*Expected") as told:
        load_method(tmp_path / "m.ckpt")
    assert "\n" not in str(told.value)


def test_one_of_another_version_says_both(good: bytes, tmp_path: Path) -> None:
    checkpoint = torch.load(io.BytesIO(good), weights_only=True)
    ours = checkpoint["lipsync_bench"]["version"]
    checkpoint["lipsync_bench"]["version"] = "9.8.7"
    torch.save(checkpoint, tmp_path / "m.ckpt")
    load_method(tmp_path / "m.ckpt")  # where it fits, it is read
    checkpoint["hyper_parameters"]["of_version_9"] = True
    torch.save(checkpoint, tmp_path / "m.ckpt")
    with pytest.raises(ValueError, match=rf"written by version 9\.8\.7, this is {ours}\).*of_version_9"):
        load_method(tmp_path / "m.ckpt")


def packed(data: bytes) -> dict[str, bytes]:
    inside, tar = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(inside, "w") as archive:
        archive.writestr("weights/wav2lip.pth", data)
    with tarfile.open(fileobj=tar, mode="w") as archive_:
        archive_.addfile(tarfile.TarInfo("wav2lip.pth"))
    bomb = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, bytes(50_000_000) if entry.filename.endswith("data/0") else old.read(entry))
    return {
        r"ZIP archive that holds weights/wav2lip\.pth.*Unpack": inside.getvalue(),
        r"TAR archive.*Unpack": tar.getvalue(),
        r"gzip archive.*Unpack": gzip.compress(data[:999]),
        r"an archive of [\d,]+ bytes that would become [\d,]+": bomb.getvalue(),
        r"Git LFS pointer.*git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        r"a web page.*Download": b"<!DOCTYPE html><html></html>",
    }


def test_what_holds_weights_or_is_none_is_called_what_it_is(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    for found, data in packed(good).items():
        path.write_bytes(data)
        for read in (load_checkpoint, lambda p: read_torch(p, "x", "y"), lambda p: import_official("s3fd", p)):
            with pytest.raises(ValueError, match=rf"a\.pth: is .*{found}"):
                read(path)


def test_safetensors_under_another_name_are_read(tmp_path: Path) -> None:
    network = nn.Linear(3, 2)
    save_file(network.state_dict(), tmp_path / "a.pth")
    loaded = load_weights(nn.Linear(3, 2), tmp_path / "a.pth", "x", "y")
    assert torch.equal(loaded.weight, network.weight)
    assert set(read_torch(tmp_path / "a.pth", "x", "y")) == {"weight", "bias"}
    with pytest.raises(ValueError, match=r"a\.pth: has no entry 'lipsync_bench'.*bench import"):
        load_checkpoint(tmp_path / "a.pth")
