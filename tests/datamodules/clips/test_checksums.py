# SPDX-License-Identifier: Apache-2.0
"""A prepared clip that was changed is refused by its manifest's checksum."""

import shutil
from pathlib import Path

import pytest

from lipsync_bench.datamodules.clip_datamodule import prepared_clips
from lipsync_bench.datamodules.clips.checksums import verify_clip
from lipsync_bench.datamodules.errors import ClipError


def test_one_changed_bit_is_noticed(corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus / "clips", tmp_path / "clips")
    first, *others = prepared_clips(tmp_path / "clips")
    for path in (first, *others):
        verify_clip(path)
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 1
    first.write_bytes(data)
    with pytest.raises(ClipError, match=rf"{first.name}: its SHA-256 is not the one in .*manifest\.json.*--overwrite"):
        verify_clip(first)
    verify_clip(others[0])
    (tmp_path / "clips" / "manifest.json").unlink()
    verify_clip(first)  # nothing says what it was
    (tmp_path / "clips" / "manifest.json").write_text("[" * 100_000)
    verify_clip(first)  # nor does this, and it is read within bounds
