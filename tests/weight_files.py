# SPDX-License-Identifier: Apache-2.0
"""Weight files of tests in the place of official ones."""

from pathlib import Path

import pytest

from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.datamodules.weights import registry, store
from lipsync_bench.datamodules.weights.options import WeightOptions

__all__ = ["given", "make_official"]


def given(**files: Path) -> WeightOptions:
    """As `--weights ID=FILE` for each."""
    return WeightOptions(tuple(f"{id}={file}" for id, file in files.items()))


def make_official(patch: pytest.MonkeyPatch, id: str, what: Path | str) -> str:
    """Have the registry call a file official, or a SHA-256; the file of that id if it has none yet. The SHA-256."""
    known = registry.official_files()
    changes: dict[str, object] = {"sha256": what if isinstance(what, str) else sha256(what)}
    if isinstance(what, Path):
        changes["size"] = what.stat().st_size
    files = {**known, id: known[id].model_copy(update=changes)}
    for module in (registry, store):
        patch.setattr(module, "official_files", lambda: files)
    return str(changes["sha256"])
