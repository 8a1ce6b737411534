# SPDX-License-Identifier: Apache-2.0
"""Pooled metrics: one value of all clips together, such as FID, from files that their scorers wrote.

Such a value is not a mean over clips. Its data of each row are files, so that they survive a killed run and all ranks
share them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lipsync_bench.evaluation.videos import row_path
from lipsync_bench.metrics.metric import Column, Description
from lipsync_bench.metrics.registry import METRICS
from lipsync_bench.results.rows import ENTRY, GROUND_TRUTH

__all__ = ["has_files", "pooled_values", "remove_files"]


def _file(folder: Path, metric: Description, entry: tuple[str, str, str, str], clip: str, audio_clip: str) -> Path:
    kind, suffix = metric.files
    return row_path(folder / kind, entry, clip, audio_clip, suffix)


def _pooled(networks: Mapping[str, Any]) -> list[tuple[Description, Column]]:
    """The pooled columns that can be computed."""
    return [
        (metric, column)
        for metric in METRICS
        for column in metric.columns
        if column.kind == "pooled" and (not column.network or column.network in networks)
    ]


def remove_files(folder: Path, entry: tuple[str, str, str, str], clip: str, audio_clip: str) -> None:
    """Remove the files that scorers wrote for a row of a results folder; arguments as in the row."""
    for metric in METRICS:
        if metric.files[0]:
            _file(folder, metric, entry, clip, audio_clip).unlink(missing_ok=True)


def has_files(
    folder: Path, networks: Mapping[str, Any], entry: tuple[str, str, str, str], clip: str, audio_clip: str, crops: int
) -> bool:
    """Whether all files that pooled columns need for a row are complete; `crops` is how many crops were compared."""
    for metric, column in _pooled(networks):
        path = _file(folder, metric, entry, clip, audio_clip)
        if not path.is_file() or not metric.is_complete(networks.get(column.network), path, crops):
            return False
    return True


def _files(folder: Path, metric: Description, rows: pd.DataFrame) -> list[Path]:
    rows = rows.sort_values(["clip", "audio_clip"])
    names = zip(*(rows[name].astype(str) for name in (*ENTRY[1:], "clip", "audio_clip")), strict=True)
    return [
        _file(folder, metric, (method, sha, paste, recipe), clip, audio)
        for method, sha, paste, recipe, clip, audio in names
    ]


def pooled_values(folder: Path, rows: pd.DataFrame, networks: Mapping[str, Any]) -> pd.DataFrame:
    """Pooled columns of each entry: all its scored frames against the real frames of the same videos, each used once.

    The value of the ground truth compares two halves of the real videos: the value expected from sampling alone.

    Args:
        folder: Results folder with the files.
        rows: As returned by `read_rows`.
        networks: The loaded networks by name; a column without its network is left out.

    Returns:
        Columns of `ENTRY`, and for each pooled column its value and `_n` (frames on the smaller side).
    """
    pooled = _pooled(networks)
    good = rows[rows["status"] == "ok"]
    out = []
    for entry, own in good.groupby(list(ENTRY), sort=True):
        protocol, method = entry[:2]
        real = good[(good["protocol"] == protocol) & (good["method"] == GROUND_TRUTH)]
        if method == GROUND_TRUTH:
            sides = real.iloc[0::2], real.iloc[1::2]
        else:
            sides = own, real[real["clip"].isin(own["clip"])]
        values: dict[str, object] = dict(zip(ENTRY, entry, strict=True))
        for metric, column in pooled:
            pred, target = (_files(folder, metric, side) for side in sides)
            value, frames = metric.pool(networks.get(column.network), pred, target)
            values |= {column.name: value, f"{column.name}_n": frames}
        out.append(values)
    return pd.DataFrame(out, columns=[*ENTRY, *(name for _, c in pooled for name in (c.name, f"{c.name}_n"))])
