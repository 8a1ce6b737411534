# SPDX-License-Identifier: Apache-2.0
"""Metrics of which all clips together make one value, such as FID: from the files that their scorers left.

Such a value is no mean over clips. As files what it needs of each row survives a killed run, and adds up over ranks.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lipsync_bench.evaluation.videos import row_path
from lipsync_bench.metrics.metric import Column, Description
from lipsync_bench.metrics.registry import METRICS
from lipsync_bench.results.rows import GROUND_TRUTH, LINE

__all__ = ["has_files", "pooled_values", "remove_files"]


def _file(folder: Path, metric: Description, line: tuple[str, str, str], clip: str, audio_clip: str) -> Path:
    kind, suffix = metric.files
    return row_path(folder / kind, line, clip, audio_clip, suffix)


def _pooled(networks: Mapping[str, Any]) -> list[tuple[Description, Column]]:
    """The pooled columns that can be computed."""
    return [
        (metric, column)
        for metric in METRICS
        for column in metric.columns
        if column.kind == "pooled" and (not column.network or column.network in networks)
    ]


def remove_files(folder: Path, line: tuple[str, str, str], clip: str, audio_clip: str) -> None:
    """Remove what scorers left for a row of a results folder; arguments as in the row."""
    for metric in METRICS:
        if metric.files[0]:
            _file(folder, metric, line, clip, audio_clip).unlink(missing_ok=True)


def has_files(
    folder: Path, networks: Mapping[str, Any], line: tuple[str, str, str], clip: str, audio_clip: str, crops: int
) -> bool:
    """Whether all is there that pooled columns need of a row in which so many crops were compared."""
    for metric, column in _pooled(networks):
        path = _file(folder, metric, line, clip, audio_clip)
        if not path.is_file() or not metric.whole(networks.get(column.network), path, crops):
            return False
    return True


def _files(folder: Path, metric: Description, rows: pd.DataFrame) -> list[Path]:
    rows = rows.sort_values(["clip", "audio_clip"])
    names = zip(*(rows[name].astype(str) for name in (*LINE[1:], "clip", "audio_clip")), strict=True)
    return [_file(folder, metric, (method, sha, paste), clip, audio) for method, sha, paste, clip, audio in names]


def pooled_values(folder: Path, rows: pd.DataFrame, networks: Mapping[str, Any]) -> pd.DataFrame:
    """Pooled columns of each line over all its scored frames against the real frames of the same videos, each once.

    The value of the ground truth compares two halves of the real videos: what sampling alone makes of it.

    Args:
        folder: Results folder with the files.
        rows: As `read_rows` gives them.
        networks: Those that were loaded, by name; a column without its network is left out.

    Returns:
        Columns of `LINE`, and of each pooled column its value and `_n` (frames on the smaller side).
    """
    pooled = _pooled(networks)
    good = rows[rows["status"] == "ok"]
    out = []
    for line, own in good.groupby(list(LINE), sort=True):
        protocol, method = line[:2]
        real = good[(good["protocol"] == protocol) & (good["method"] == GROUND_TRUTH)]
        if method == GROUND_TRUTH:
            sides = real.iloc[0::2], real.iloc[1::2]
        else:
            sides = own, real[real["clip"].isin(own["clip"])]
        values: dict[str, object] = dict(zip(LINE, line, strict=True))
        for metric, column in pooled:
            pred, target = (_files(folder, metric, side) for side in sides)
            value, frames = metric.pool(networks.get(column.network), pred, target)
            values |= {column.name: value, f"{column.name}_n": frames}
        out.append(values)
    return pd.DataFrame(out, columns=[*LINE, *(name for _, c in pooled for name in (c.name, f"{c.name}_n"))])
