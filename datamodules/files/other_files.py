# SPDX-License-Identifier: Apache-2.0
"""What people have instead of a weight file, told from its first bytes; nothing in it is run or unpacked."""

import re
import tarfile
import zipfile
from itertools import islice
from pathlib import Path

from lipsync_bench.datamodules.errors import of_reading

# The first bytes, what it is, what to do.
_UNPACK = "Unpack it and name the file inside"
_OTHERS = (
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"\xfd7zXZ\x00", "an xz archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", _UNPACK),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "Fetch it with: git lfs pull"),
    (b"\x89HDF\r\n", "an HDF5 file (Keras)", "Name a PyTorch file"),
    (b"GGUF", "a GGUF file", "Name a PyTorch file"),
)
_PAGE = re.compile(
    rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body)\b", re.I | re.S
)
# What a page says, in small letters: the first that is there counts.
_PAGES = (
    (rb"virus scan warning|can.t scan this file for viruses", "a web page, Google Drive's warning of large files"),
    (rb"quota exceeded|too many users have viewed", "a web page, on which Google Drive says that its quota is used up"),
    (
        rb"login\.microsoftonline|accounts\.google\.com|type=.password|sign[ -]?in\b|log[ -]?in\b",
        "a web page that asks to sign in",
    ),
)
_ZIP, _TAR, _TAR_AT = b"PK\x03\x04", b"ustar", 257
_WEIGHT_NAMES = (".pth", ".pt", ".ckpt", ".model", ".safetensors", ".bin", ".onnx", ".tar")
_HEAD_BYTES = 1 << 16
_MEMBERS = 1000  # of an archive at most, when the wanted one is looked for
_ZIP_FACTOR = 4  # weights hardly shrink; and PyTorch itself stores them as they are
_ZIP_SLACK = 1 << 24

__all__ = ["other_file", "script_root"]


def _holding(names: list[str]) -> str:
    weights = [name for name in names if name.lower().endswith(_WEIGHT_NAMES)]
    return f" that holds {', '.join((weights or names)[:3]) or 'nothing'}"


def _tar_names(path: Path, most: int = _MEMBERS) -> list[str]:
    """The first names in a TAR archive, also inside gzip, bzip2 or xz; none if it is no such archive or damaged."""
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r|*") as archive:
            return [member.name for member in islice(archive, most)]
    except Exception as error:  # damaged archives fail in every way there is
        if of_reading(error):
            raise
        return []


def other_file(path: Path) -> tuple[str, str] | None:
    """What a file is instead of one with weights, and what to do about it; None if it may be one."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if _PAGE.match(head):
        page = next((what for says, what in _PAGES if re.search(says, head.lower())), "a web page")
        return page, "Download the file itself"
    found = next(((what, way) for start, what, way in _OTHERS if head.startswith(start)), None)
    if head[_TAR_AT:].startswith(_TAR):
        found = f"a TAR archive{_holding(_tar_names(path))}", _UNPACK
    elif found is not None and found[1] == _UNPACK:
        inside = _tar_names(path, 1)  # no more is unpacked
        found = f"{found[0]} of a TAR archive{_holding(inside)}" if inside else found[0], _UNPACK
    if found is not None or not head.startswith(_ZIP):
        return found
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, UnicodeDecodeError):
        return None  # cut short: the reader says so
    names = [entry.filename for entry in entries]
    if not any(name.endswith("data.pkl") for name in names):
        return f"a ZIP archive{_holding(names)}", _UNPACK
    size = sum(entry.file_size for entry in entries)
    if size > _ZIP_FACTOR * path.stat().st_size + _ZIP_SLACK:
        return f"an archive of {path.stat().st_size:,} bytes that would become {size:,}", "Get the file anew"
    return None


def script_root(path: Path) -> str | None:
    """The folder inside a TorchScript archive that holds everything; None for other files."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
    roots = (name.removesuffix("/constants.pkl") for name in names if name.endswith("/constants.pkl"))
    return next((root for root in roots if f"{root}/data.pkl" in names), None)
