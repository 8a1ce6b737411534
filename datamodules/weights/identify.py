# SPDX-License-Identifier: Apache-2.0
"""What a file is that may be an official weight file, in one phrase; nothing in it is run."""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

from lipsync_bench.datamodules.files.other_files import other_file, script_root
from lipsync_bench.datamodules.weights.registry import WeightFile, official_files

_LFS = re.compile(rb"version https://git-lfs[^\n]*\noid sha256:([0-9a-f]{64})")
_TEXT_BYTES = 4096

__all__ = ["identify", "refuted"]


def _told(files: Mapping[str, WeightFile], digest: str) -> str:
    """What the registry says of a SHA-256; "" if it says nothing."""
    for file in files.values():
        if digest == file.sha256:
            return f"the official {file.id}{f' ({file.what})' if file.what else ''}"
        if digest in file.other:
            return f"not the official {file.id}: {file.other[digest]}"
    return ""


def refuted(path: Path, digest: str, files: Mapping[str, WeightFile] | None = None) -> str:
    """What a file is that cannot be one whose hash is not public: known by its hash, empty, a web page, an archive ...;
    "" if it may be one.
    """
    files = official_files() if files is None else files
    known = _told(files, digest)
    if known:
        return known
    size = path.stat().st_size
    if not size:
        return "empty"
    with path.open("rb") as file:
        head = file.read(_TEXT_BYTES)
    pointer = _LFS.match(head)
    if pointer:
        target = _told(files, pointer[1].decode())
        return f"a Git LFS pointer to {target or 'another file'}, not the file itself"
    other = other_file(path)
    if other is not None:
        return other[0]
    text = head.decode("ascii", "replace")
    if all(char.isprintable() or char.isspace() for char in text) and "\ufffd" not in text:
        return f"a text of {size} bytes that begins {' '.join(text.split())[:60]!r}"
    return ""


def _is_script(path: Path) -> bool:
    try:
        return script_root(path) is not None
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def identify(
    path: Path, digest: str, wanted: WeightFile | None = None, files: Mapping[str, WeightFile] | None = None
) -> str:
    """What a file is, in a phrase such as "a web page that asks to sign in".

    Args:
        path: The file.
        digest: Its SHA-256.
        wanted: The official file that it was taken for.
        files: The registry, if not the package's.
    """
    files = official_files() if files is None else files
    other = refuted(path, digest, files if wanted is None else {**files, wanted.id: wanted})
    if other:
        return other
    size = path.stat().st_size
    script = "a TorchScript archive, " if _is_script(path) else ""
    if wanted is not None and wanted.size is not None and size != wanted.size:
        cut = "; truncated" if size < wanted.size and not script else ""
        return f"{script or 'another file, '}{size} bytes instead of {wanted.size}{cut}"
    return f"{script or 'an unknown file, '}{size} bytes, sha256 {digest[:12]}"
