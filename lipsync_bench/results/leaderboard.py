# SPDX-License-Identifier: Apache-2.0
"""leaderboard.csv: means over clips with intervals, ranks and groups. Derived from rows, never edited."""

import math
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from rich.markup import escape
from rich.table import Table

from lipsync_bench.datamodules.files.disk import printable, write_atomic
from lipsync_bench.datamodules.weights.registry import whose
from lipsync_bench.metrics.metric import Column
from lipsync_bench.metrics.registry import COLUMNS, NETWORKS, RANKED
from lipsync_bench.results.csv_tables import csv_text, read_table
from lipsync_bench.results.ranks import intervals, paired_tests, ranks
from lipsync_bench.results.rows import ENTRY, GROUND_TRUTH, NETWORK_HASHES
from lipsync_bench.results.statistics import Estimate

HEAD = ("protocol", "method", "clips", "failures", "fallback_frames")
_WEIGHTS = {f"{n.name}_weights": n for _, n in NETWORKS if n.recorded and n.weights}
"""Columns that say whose weights a metric network has. They follow from its hash, which is why rows have none."""
_FED = ("recipe_text", "published", "trained_otherwise", "steps_left_out")
NEWER = ("split", "generator_weights", *_WEIGHTS, "recipe", *_FED)
"""Columns that leaderboards of earlier versions lack."""
TAIL = ("generator_sha256", "paste", *NETWORK_HASHES, *NEWER, "package_version")
_OF_ROWS = (*NETWORK_HASHES, "split", "generator_weights", *_FED, "package_version")
_DETAILS = ("generator_sha256", "paste", "recipe")
_ONE_LINE = 4  # up to so many methods 120 characters hold mean and interval in one line
_PIECES = ("", "_low", "_high", "_n")
_NONE = Estimate(math.nan, math.nan, math.nan, 0, "clips", 0)  # for a metric that only another protocol has

__all__ = [
    "HEAD",
    "NEWER",
    "TAIL",
    "leaderboard",
    "metric_columns",
    "read_leaderboard",
    "rich_table",
    "with_weights",
    "write_leaderboard",
]


def metric_columns(column: Column) -> tuple[str, ...]:
    """Names of the leaderboard's columns for one metric, in order; a pooled metric has no rank."""
    ranked = () if column.kind == "pooled" else ("_rank", "_group")
    return tuple(column.name + suffix for suffix in (*_PIECES, *ranked))


_NAMES = tuple(name for column in COLUMNS for name in metric_columns(column))
GROUPS = tuple(name for name in _NAMES if name.endswith("_group"))
RANKS = tuple(name for name in _NAMES if name.endswith("_rank"))
COUNTS = (*HEAD[2:], *(f"{column.name}_n" for column in COLUMNS), *RANKS)
NUMBERS = tuple(name for name in _NAMES if name not in (*GROUPS, *COUNTS))


def _pooled_values(
    pooled: pd.DataFrame | None, entries: set[tuple[str, ...]]
) -> dict[str, dict[tuple[str, ...], tuple]]:
    """Value and count of each pooled metric, by entry."""
    if pooled is None:
        return {}
    names = [c.name for c in COLUMNS if c.kind == "pooled" and c.name in pooled and pooled[c.name].notna().any()]
    missing = [n for n in (*ENTRY, *(f"{name}_n" for name in names)) if n not in pooled]
    if missing:
        raise ValueError(f"pooled values have no column {', '.join(missing)}. Expected {', '.join(ENTRY)}, fid, fid_n.")
    keys = [tuple(entry) for entry in pooled[list(ENTRY)].fillna("").astype(str).itertuples(index=False)]
    other = sorted(set(keys) - entries)
    if other or len(set(keys)) < len(keys):
        raise ValueError(
            f"pooled values of {len(keys)} entries, {len(set(keys))} of them different; without rows: "
            f"{other or 'none'}. Expected one for each entry with rows. Evaluate again: bench evaluate --out NEW"
        )
    return {n: dict(zip(keys, zip(pooled[n], pooled[f"{n}_n"], strict=True), strict=True)) for n in names}


def _metric(column: Column, estimate: object, rank: object) -> dict[str, object]:
    """One metric of one entry, by the names of `metric_columns`."""
    mean, low, high, n = (getattr(estimate, name) for name in ("mean", "low", "high", "n"))
    place = (getattr(rank, "rank", None), getattr(rank, "group", ""))
    return dict(zip(metric_columns(column), (mean, low, high, n, *place), strict=True))


def leaderboard(rows: pd.DataFrame, pooled: pd.DataFrame | None = None) -> pd.DataFrame:
    """One entry for each combination of protocol, method, weights, recipe and way of pasting.

    Intervals and ranks: `lipsync_bench.results.statistics` and `ranks`. The ground truth is not ranked, and an entry
    that shares no clip with another has no rank.

    Args:
        rows: As returned by `read_rows`, in any order.
        pooled: Values of all clips together (FID): `ENTRY`, `fid` and `fid_n` (frames), one table row an entry.

    Returns:
        Columns: protocol, method, clips (scored), failures, fallback frames; then for each metric that any row has its
        mean, `_low` and `_high` (95% bootstrap interval), `_n` (clips in the mean), `_rank` (from 1; empty without one)
        and `_group` (letters; entries that share a letter are not separated); then the SHA-256 of the weights of
        generator and metric networks, the way of pasting, whose these weights are ("official", "unofficial", or "" for
        none and for networks that have no official file) and the package version. `fid` has no interval (NaN), frames
        as `_n`, and neither rank nor group.

    Raises:
        ValueError: A row occurs twice, or `pooled` is not as described.
    """
    rows = rows.assign(**{name: rows[name].fillna("").astype(str) for name in ENTRY})
    groups = {tuple(entry): group for entry, group in rows.groupby(list(ENTRY), sort=True)}
    pooled_values = _pooled_values(pooled, set(groups))
    size = len(ENTRY)
    means = {(tuple(e[:size]), e.metric): e for e in intervals(rows).itertuples(index=False)}
    places = {(tuple(r[:size]), r.metric): r for r in ranks(paired_tests(rows, ends=False)).itertuples(index=False)}
    present = {metric for _, metric in means}
    entries = []
    for key, group in groups.items():
        good = group[group["status"] == "ok"]
        entry: dict[str, object] = {
            "protocol": key[0],
            "method": key[1],
            "clips": len(good),
            "failures": len(group) - len(good),
            "fallback_frames": int(good["fallback_frames"].sum()),
        }
        for c in COLUMNS:
            if c.name in present:
                entry |= _metric(c, means.get((key, c.name), _NONE), places.get((key, c.name)))
            elif c.name in pooled_values:
                value, count = pooled_values[c.name].get(key, (math.nan, 0))
                entry |= dict(zip(metric_columns(c), (float(value), math.nan, math.nan, int(count)), strict=True))
        entry["generator_sha256"], entry["paste"], recipe = key[2:]
        # Of failed clips too: an entry without a score had networks.
        values = {name: sorted({str(v) for v in group[name].dropna() if v != ""}) for name in _OF_ROWS}
        values["recipe"] = [recipe]
        entries.append(entry | {name: " ".join(values.get(name, ())) for name in TAIL[2:]})
    table = with_weights(pd.DataFrame(entries) if entries else pd.DataFrame(columns=[*HEAD, *TAIL]))
    order = [name for name in table if str(name).endswith("_rank")]
    return table.astype(dict.fromkeys(order, "Int64"))


def with_weights(table: pd.DataFrame) -> pd.DataFrame:
    """A leaderboard with the columns that say whose weights its metric networks have."""
    hashes = {name: table[n.sha256_field].fillna("").astype(str) for name, n in _WEIGHTS.items()}
    return table.assign(**{name: [whose(h.split(), _WEIGHTS[name].weights) for h in hashes[name]] for name in hashes})


def read_leaderboard(path: Path) -> pd.DataFrame:
    """A leaderboard.csv; empty cells are missing values. It may have columns that this version does not know.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else, or numbers of a metric are missing.
    """
    expected, repair = (
        "a leaderboard.csv as written by: bench evaluate",
        "Remove the file; it is derived again from the rows",
    )
    table = read_table(
        path,
        expected,
        repair,
        texts=(*HEAD[:2], *TAIL, *GROUPS),
        numbers=NUMBERS,
        counts=COUNTS,
        filled=HEAD[:4],
        exact=True,
    )
    halves = [c.name + piece for c in COLUMNS if c.name in table for piece in _PIECES if c.name + piece not in table]
    if halves:
        raise ValueError(f"{path} has no column {', '.join(halves)}. Expected {expected}. {repair}")
    return table


def write_leaderboard(rows: pd.DataFrame, path: Path, pooled: pd.DataFrame | None = None) -> pd.DataFrame:
    """Derive the leaderboard of these rows and write it atomically. Arguments and errors as in `leaderboard`."""
    table = leaderboard(rows, pooled)
    write_atomic(path, csv_text(table))
    return table


def _best(table: pd.DataFrame, column: Column) -> dict[str, float]:
    """The best ranked method's value in each protocol."""
    if column.higher_is_better is None:
        return {}
    values = table[table["method"] != GROUND_TRUTH].dropna(subset=[column.name]).groupby("protocol")[column.name]
    return dict(values.max() if column.higher_is_better else values.min())


def _letters(entry: pd.Series, column: Column) -> str:
    letters = entry.get(f"{column.name}_group")
    return letters if isinstance(letters, str) else ""  # NaN when read from a file


def _separated(table: pd.DataFrame, column: Column) -> bool:
    """Whether any two entries are separated: then there is a second letter."""
    return bool({"", "a"} < {_letters(entry, column) for _, entry in table.iterrows()} | {"", "a"})


def _cell(entry: pd.Series, column: Column, best: float | None, letters: str, stacked: bool) -> str:
    value, low, high = (float(entry[column.name + suffix]) for suffix in ("", "_low", "_high"))
    if math.isnan(value):
        return "–"
    mean = "identical" if math.isinf(value) else f"{value:.{column.digits}f}"
    half = f"±{(high - low) / 2:.{column.digits}f}" if math.isfinite(low) and high > low else ""
    clips = int(entry["clips"])
    n = clips if column.kind == "pooled" else int(entry[f"{column.name}_n"])
    missing = "" if n == clips else f"({n} of {clips})"
    first = [mean, letters] if stacked else [mean, half, letters, missing]
    text = "\n".join(part for part in (" ".join(filter(None, first)), *((half, missing) if stacked else ())) if part)
    return f"[bold]{text}[/bold]" if value == best else text


def _headings(table: pd.DataFrame, stacked: bool) -> Iterator[str]:
    """The methods' names; protocol and weights below them where the name is not unique."""
    protocols, names = table["protocol"].nunique() > 1, table[["protocol", "method"]].apply(tuple, axis=1).tolist()
    details = zip(*(table[name] for name in _DETAILS if name in table), strict=True)
    for (protocol, method), texts in zip(names, details, strict=True):
        below = [protocol] if protocols else []
        if names.count((protocol, method)) > 1:
            below += [str(text)[:12] for text in texts if isinstance(text, str) and text]
        name = printable(method)
        yield escape("\n".join([name.replace("_", "_\n") if stacked else name, *map(printable, below)]))


def _caption(table: pd.DataFrame, shown: list[Column]) -> str:
    lines = ["± half of the 95% bootstrap interval, over speakers where known, else clips; (n of N): clips in the mean"]
    ranked = [c for c in shown if any(_letters(entry, c) for _, entry in table.iterrows())]
    apart = [c for c in ranked if _separated(table, c)]
    same = ", ".join(c.title for c in ranked if c not in apart)
    if apart:
        lines.append("a, b ...: methods that share a letter do not differ significantly (Wilcoxon, Holm, 5%)")
    if same and not apart:
        lines.append("No two methods differ significantly in any metric")
    elif same:
        lines.append(f"No two methods differ significantly in {same}")
    if not ranked and (table["method"] != GROUND_TRUTH).sum() > 1:
        lines.append("No ranks: an entry came without its rows, or no two methods share a clip")
    return "\n".join(lines)


def rich_table(table: pd.DataFrame, title: str) -> Table:
    """The leaderboard for the screen, a column for each entry; each metric's best value is bold (not the reference's).

    Means are followed by letters in metrics that separate any two methods; the caption names the other metrics.
    Diagnostic columns are left out. From five methods on intervals are below the means, so that eight fit 120 columns.

    Args:
        table: As returned by `leaderboard`, or read from leaderboard.csv.
        title: Printed above the table.
    """
    stacked = len(table) > _ONE_LINE
    shown = [c for c in RANKED if c.name in table]
    out = Table(title=escape(printable(title)), caption=_caption(table, shown))
    out.add_column("")
    for heading in _headings(table, stacked):
        out.add_column(heading, justify="right", overflow="fold")
    counts = zip(table["clips"], table["failures"], strict=True)
    out.add_row("clips", *(f"{good} of {good + failed}" if failed else str(good) for good, failed in counts))
    for c in shown:
        best, letters = _best(table, c), _separated(table, c)
        cells = (
            _cell(entry, c, best.get(entry["protocol"]), _letters(entry, c) if letters else "", stacked)
            for _, entry in table.iterrows()
        )
        out.add_row(escape(c.heading), *cells)
    return out
