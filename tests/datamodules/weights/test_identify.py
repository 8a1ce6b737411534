# SPDX-License-Identifier: Apache-2.0
"""What a wrong file is, in a phrase; nothing in it is run."""

import gzip
import hashlib
import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from lipsync_bench.datamodules.weights.identify import identify
from tests.small_registry import ALPHA, BETA, OLD, small_registry

FILES = small_registry()
PAGE = b"\xef\xbb\xbf\n <!DOCTYPE html>\n<html><head><title>%s</title></head><body>%s</body></html>"
SIGN_IN = PAGE % (b"Sign in to your account", b"<a href='https://login.microsoftonline.com/'>")
DRIVE = PAGE % (b"Google Drive - Virus scan warning", b"Google Drive can't scan this file for viruses.")


def tar(name: str, mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for member in ("readme.txt", name):
            archive.addfile(tarfile.TarInfo(member), io.BytesIO())
    return buffer.getvalue()


def zipped(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "x")
        archive.writestr(name, b"1234")
    return buffer.getvalue()


def script() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{FILES['alpha'].sha256}\nsize 300000\n".encode()


@pytest.mark.parametrize(
    ("content", "phrase"),
    [
        (ALPHA, "the official alpha (a network)"),
        (BETA, "the official beta"),
        (OLD, "not the official alpha: the version of last year"),
        (b"", "empty"),
        (PAGE % (b"Page", b"Not here"), "a web page"),
        (SIGN_IN, "a web page that asks to sign in"),
        (DRIVE, "a web page, Google Drive's warning of large files"),
        (POINTER, "a Git LFS pointer to the official alpha (a network), not the file itself"),
        (POINTER.replace(b"sha256:", b"sha256:00")[:127], "a Git LFS pointer to another file, not the file itself"),
        (ALPHA[:1000], "another file, 1000 bytes instead of 300000; truncated"),
        (ALPHA + b"!", "another file, 300001 bytes instead of 300000"),
        (ALPHA[:-1] + b"!", "an unknown file, 300000 bytes, sha256 ..."),
        (zipped("in/alpha.pth"), "a ZIP archive that holds in/alpha.pth"),
        (tar("in/alpha.pth", "w"), "a TAR archive that holds in/alpha.pth"),
        (tar("in/alpha.pth", "w:gz"), "a gzip archive of a TAR archive that holds readme.txt"),
        (gzip.compress(ALPHA), "a gzip archive"),
        (b'{"error": "Repository not found"}', "a text of 33 bytes that begins '{..."),
    ],
)
def test_each_kind_has_its_phrase(content, phrase, tmp_path):
    path = tmp_path / "alpha.pth"
    path.write_bytes(content)
    said = identify(path, hashlib.sha256(content).hexdigest(), FILES["alpha"], FILES)
    assert said == phrase or (phrase.endswith("...") and said.startswith(phrase[:-3]))


def test_a_torchscript_archive_is_named_under_any_name(tmp_path):
    path = tmp_path / "alpha.pth"
    path.write_bytes(script())
    said = identify(path, "0" * 64, FILES["alpha"], FILES)
    assert said == f"a TorchScript archive, {path.stat().st_size} bytes instead of 300000"


@pytest.mark.parametrize("form", [saved, pickle.dumps], ids=["torch", "pickle"])
def test_nothing_is_run(form, tmp_path):
    path, proof = tmp_path / "alpha.pth", tmp_path / "proof"
    path.write_bytes(form({"x": _Touch(proof)}))
    assert "another file" in identify(path, "0" * 64, FILES["alpha"], FILES)
    assert not proof.exists()


@pytest.mark.parametrize("make", [lambda: zipped("alpha.pth"), lambda: tar("alpha.pth", "w:gz"), script])
def test_damaged_archives_have_a_phrase_too(make, tmp_path):
    path, whole = tmp_path / "alpha.pth", make()
    for length in range(1, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:length])
        assert identify(path, "0" * 64, FILES["alpha"], FILES)
