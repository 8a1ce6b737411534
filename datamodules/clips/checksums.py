# SPDX-License-Identifier: Apache-2.0
"""Checks by the manifest's SHA-256 that a clip file is still the one that the preparation wrote."""

from functools import lru_cache
from pathlib import Path

from lipsync_bench.datamodules.errors import ClipError
from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.datamodules.files.texts import read_json

__all__ = ["verify_clip"]


@lru_cache(maxsize=2)
def _digests(manifest: Path, changed_ns: int) -> dict[str, str]:
    """SHA-256 of each clip by its id; empty without a manifest that records them."""
    try:
        entries = read_json(manifest, "the manifest of prepared clips", "Run bench prepare again")["clips"]
        return {entry["id"]: entry["sha256"] for entry in entries}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def verify_clip(path: Path) -> None:
    """Refuse a clip whose bytes have changed since its preparation. It reads the whole file.

    A clip that the manifest of its folder does not name is accepted.

    Raises:
        ClipError: the file was changed.
    """
    manifest = path.parent.parent / "manifest.json"
    expected = (
        _digests(manifest, manifest.stat().st_mtime_ns).get(f"{path.parent.name}/{path.stem}")
        if manifest.is_file()
        else None
    )
    if expected is not None and sha256(path) != expected:
        raise ClipError(
            f"{path}: its SHA-256 is not the one in {manifest}: damaged, or made by another preparation. Expected the "
            "file that was prepared. Run: bench prepare again with --overwrite, or move the file away"
        )
