# SPDX-License-Identifier: Apache-2.0
"""leaderboard.csv: means over clips with their intervals. Derived from rows, never edited."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table
from scipy.stats import bootstrap

from datamodules.files import atomic_path
from lipsync_bench.evaluation.columns import COLUMNS, Column

CONFIDENCE = 0.95
RESAMPLES = 9999

__all__ = ["interval", "leaderboard", "rich_table", "write_leaderboard"]


def interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95% percentile bootstrap interval of the mean over clips.

    Args:
        values: (N,) one value a clip, all finite.
        seed: Of the resampling, so that the same rows give the same interval.

    Returns:
        Lower and upper end; both NaN for fewer than two clips.
    """
    if len(values) < 2:
        return math.nan, math.nan
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    result = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _summary(values: np.ndarray) -> dict[str, float]:
    """Mean, interval and count of one metric. Infinite values (identical images) stay out of the mean."""
    known = values[~np.isnan(values)]
    finite = known[np.isfinite(known)]
    if len(finite) == 0:
        mean = math.inf if len(known) else math.nan
        return {"": mean, "_low": math.nan, "_high": math.nan, "_n": len(known)}
    low, high = interval(finite)
    return {"": float(finite.mean()), "_low": low, "_high": high, "_n": len(finite)}


def leaderboard(rows: pd.DataFrame) -> pd.DataFrame:
    """One line for each protocol, method, weights and way of pasting.

    Args:
        rows: As `read_rows` gives them.

    Returns:
        Columns: protocol, method, clips (scored), failures, frames made by a method's second choice, then for each
        metric that any row holds its mean, `_low` and `_high` (95% bootstrap interval over clips) and `_n` (clips in
        the mean), then the identities of generator and scorer weights, the way of pasting and the package version.
    """
    present = [c for c in COLUMNS if rows[c.name].notna().any()]
    lines = []
    for (protocol, method, sha, paste), group in rows.groupby(
        ["protocol", "method", "generator_sha256", "paste"], sort=True
    ):
        good = group[group["status"] == "ok"]
        line: dict[str, object] = {
            "protocol": protocol,
            "method": method,
            "clips": len(good),
            "failures": len(group) - len(good),
            "fallback_frames": int(good["fallback_frames"].sum()),
        }
        for c in present:
            summary = _summary(good[c.name].to_numpy(dtype=float))
            line |= {c.name + suffix: value for suffix, value in summary.items()}
        line["generator_sha256"], line["paste"] = sha, paste
        for name in ("lse_sha256", "expert_sha256", "package_version"):
            line[name] = " ".join(sorted({str(v) for v in good[name].dropna()}))
        lines.append(line)
    return pd.DataFrame(lines)


def write_leaderboard(rows: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Derive the leaderboard of these rows and write it, whole or not at all."""
    table = leaderboard(rows)
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)
    return table


def _best(table: pd.DataFrame, column: Column) -> float | None:
    values = table[column.name].dropna()
    if column.higher_is_better is None or values.empty:
        return None
    return float(values.max() if column.higher_is_better else values.min())


def _cell(line: pd.Series, column: Column, best: float | None) -> str:
    value, low, high = (float(line[column.name + suffix]) for suffix in ("", "_low", "_high"))
    if math.isnan(value):
        return "–"
    text = "identical" if math.isinf(value) else f"{value:.{column.digits}f}"
    if math.isfinite(low) and high > low:
        text += f" ±{(high - low) / 2:.{column.digits}f}"
    missing = int(line["clips"]) - int(line[column.name + "_n"])
    if missing:
        text += f" ({int(line['clips']) - missing} of {int(line['clips'])})"
    return f"[bold]{text}[/bold]" if value == best else text


def rich_table(table: pd.DataFrame, title: str) -> Table:
    """The leaderboard for the screen, a column for each method; the best value of each metric is bold."""
    out = Table(title=title, caption="± half of the 95% bootstrap interval over clips; (n of N): clips the metric saw")
    out.add_column("")
    for name in table["method"]:
        out.add_column(str(name), justify="right")
    counts = zip(table["clips"], table["failures"], strict=True)
    out.add_row("clips", *(f"{good} of {good + failed}" if failed else str(good) for good, failed in counts))
    for c in (c for c in COLUMNS if c.name in table):
        best = _best(table, c)
        out.add_row(c.heading, *(_cell(line, c, best) for _, line in table.iterrows()))
    return out
