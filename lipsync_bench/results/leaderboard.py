# SPDX-License-Identifier: Apache-2.0
"""leaderboard.csv: means over clips with intervals, ranks and groups. Derived from rows, never edited."""

import math
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from rich.markup import escape
from rich.table import Table

from lipsync_bench.datamodules.files import printable, write_atomic
from lipsync_bench.metrics.metric import Column
from lipsync_bench.metrics.registry import COLUMNS, RANKED
from lipsync_bench.results.csv_tables import csv_text, read_table
from lipsync_bench.results.ranks import intervals, paired_tests, ranks
from lipsync_bench.results.rows import ENTRY, GROUND_TRUTH, SCORERS
from lipsync_bench.results.statistics import Estimate

HEAD = ("protocol", "method", "clips", "failures", "fallback_frames")
TAIL = ("generator_sha256", "paste", *SCORERS, "package_version")
_ONE_LINE = 4  # methods that a screen of 120 columns shows with mean and interval in one line
_PIECES = ("", "_low", "_high", "_n")
_NONE = Estimate(math.nan, math.nan, math.nan, 0, "clips", 0)  # of a metric that another protocol has

__all__ = ["HEAD", "TAIL", "leaderboard", "metric_columns", "read_leaderboard", "rich_table", "write_leaderboard"]


def metric_columns(column: Column) -> tuple[str, ...]:
    """Names of the leaderboard's columns for one metric, in order; one that is pooled over clips has no rank."""
    ranked = () if column.kind == "pooled" else ("_rank", "_group")
    return tuple(column.name + suffix for suffix in (*_PIECES, *ranked))


_NAMES = tuple(name for column in COLUMNS for name in metric_columns(column))
GROUPS = tuple(name for name in _NAMES if name.endswith("_group"))
RANKS = tuple(name for name in _NAMES if name.endswith("_rank"))
COUNTS = (*HEAD[2:], *(f"{column.name}_n" for column in COLUMNS), *RANKS)
NUMBERS = tuple(name for name in _NAMES if name not in (*GROUPS, *COUNTS))


def _pooled_values(pooled: pd.DataFrame | None, lines: set[tuple[str, ...]]) -> dict[str, dict[tuple[str, ...], tuple]]:
    """Value and count of each metric that has one value a line, by line."""
    if pooled is None:
        return {}
    names = [c.name for c in COLUMNS if c.kind == "pooled" and c.name in pooled and pooled[c.name].notna().any()]
    missing = [n for n in (*ENTRY, *(f"{name}_n" for name in names)) if n not in pooled]
    if missing:
        raise ValueError(f"pooled values have no column {', '.join(missing)}. Expected {', '.join(ENTRY)}, fid, fid_n.")
    keys = [tuple(line) for line in pooled[list(ENTRY)].fillna("").astype(str).itertuples(index=False)]
    other = sorted(set(keys) - lines)
    if other or len(set(keys)) < len(keys):
        raise ValueError(
            f"pooled values of {len(keys)} lines, {len(set(keys))} of them different; without rows: {other or 'none'}. "
            "Expected one for each line that rows have. Make the results anew: bench evaluate --out NEW"
        )
    return {n: dict(zip(keys, zip(pooled[n], pooled[f"{n}_n"], strict=True), strict=True)) for n in names}


def _metric(column: Column, estimate: object, rank: object) -> dict[str, object]:
    """One metric of one line, as `metric_columns` names it."""
    mean, low, high, n = (getattr(estimate, name) for name in ("mean", "low", "high", "n"))
    place = (getattr(rank, "rank", None), getattr(rank, "group", ""))
    return dict(zip(metric_columns(column), (mean, low, high, n, *place), strict=True))


def leaderboard(rows: pd.DataFrame, pooled: pd.DataFrame | None = None) -> pd.DataFrame:
    """One line for each protocol, method, weights and way of pasting.

    Intervals and ranks: `lipsync_bench.results.statistics` and `ranks`. The ground truth is not ranked, and a line
    that shares no clip with another has no rank.

    Args:
        rows: As `read_rows` gives them, in any order.
        pooled: Values of all clips together (FID): `ENTRY`, `fid` and `fid_n` (frames), one line each.

    Returns:
        Columns: protocol, method, clips (scored), failures, frames made by a method's second choice; then for each
        metric that any row holds its mean, `_low` and `_high` (95% bootstrap interval), `_n` (clips in the mean),
        `_rank` (from 1; empty without one) and `_group` (letters; lines with one in common are not separated); then the
        identities of generator and scorer weights, the way of pasting and the package version. `fid` has no interval
        (NaN), frames as `_n`, and neither rank nor group.

    Raises:
        ValueError: A row is there twice, or `pooled` is not as described.
    """
    rows = rows.assign(**{name: rows[name].fillna("").astype(str) for name in ENTRY})
    groups = {tuple(line): group for line, group in rows.groupby(list(ENTRY), sort=True)}
    whole = _pooled_values(pooled, set(groups))
    size = len(ENTRY)
    means = {(tuple(e[:size]), e.metric): e for e in intervals(rows).itertuples(index=False)}
    places = {(tuple(r[:size]), r.metric): r for r in ranks(paired_tests(rows, ends=False)).itertuples(index=False)}
    present = {metric for _, metric in means}
    lines = []
    for key, group in groups.items():
        good = group[group["status"] == "ok"]
        line: dict[str, object] = {
            "protocol": key[0],
            "method": key[1],
            "clips": len(good),
            "failures": len(group) - len(good),
            "fallback_frames": int(good["fallback_frames"].sum()),
        }
        for c in COLUMNS:
            if c.name in present:
                line |= _metric(c, means.get((key, c.name), _NONE), places.get((key, c.name)))
            elif c.name in whole:
                value, count = whole[c.name].get(key, (math.nan, 0))
                line |= dict(zip(metric_columns(c), (float(value), math.nan, math.nan, int(count)), strict=True))
        line["generator_sha256"], line["paste"] = key[2:]
        for name in (*SCORERS, "package_version"):  # of failed clips too: a line that failed everywhere had scorers
            line[name] = " ".join(sorted({str(value) for value in group[name].dropna() if value != ""}))
        lines.append(line)
    table = pd.DataFrame(lines) if lines else pd.DataFrame(columns=[*HEAD, *TAIL])
    order = [name for name in table if str(name).endswith("_rank")]
    return table.astype(dict.fromkeys(order, "Int64"))


def read_leaderboard(path: Path) -> pd.DataFrame:
    """A leaderboard.csv; empty cells are missing values. It may have columns that this version does not know.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is something else, or numbers of a metric are missing.
    """
    expected, repair = (
        "a leaderboard.csv as written by: bench evaluate",
        "Remove the file; it is derived anew from the rows",
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
    """Derive the leaderboard of these rows and write it, whole or not at all. Arguments and errors as `leaderboard`."""
    table = leaderboard(rows, pooled)
    write_atomic(path, csv_text(table))
    return table


def _best(table: pd.DataFrame, column: Column) -> dict[str, float]:
    """The best competitor's value in each protocol."""
    if column.higher_is_better is None:
        return {}
    values = table[table["method"] != GROUND_TRUTH].dropna(subset=[column.name]).groupby("protocol")[column.name]
    return dict(values.max() if column.higher_is_better else values.min())


def _letters(line: pd.Series, column: Column) -> str:
    letters = line.get(f"{column.name}_group")
    return letters if isinstance(letters, str) else ""  # NaN when read from a file


def _separated(table: pd.DataFrame, column: Column) -> bool:
    """Whether any two lines are: then there is a second letter."""
    return bool({"", "a"} < {_letters(line, column) for _, line in table.iterrows()} | {"", "a"})


def _cell(line: pd.Series, column: Column, best: float | None, letters: str, stacked: bool) -> str:
    value, low, high = (float(line[column.name + suffix]) for suffix in ("", "_low", "_high"))
    if math.isnan(value):
        return "–"
    mean = "identical" if math.isinf(value) else f"{value:.{column.digits}f}"
    half = f"±{(high - low) / 2:.{column.digits}f}" if math.isfinite(low) and high > low else ""
    clips = int(line["clips"])
    seen = clips if column.kind == "pooled" else int(line[f"{column.name}_n"])
    missing = "" if seen == clips else f"({seen} of {clips})"
    first = [mean, letters] if stacked else [mean, half, letters, missing]
    text = "\n".join(part for part in (" ".join(filter(None, first)), *((half, missing) if stacked else ())) if part)
    return f"[bold]{text}[/bold]" if value == best else text


def _headings(table: pd.DataFrame, stacked: bool) -> Iterator[str]:
    """The methods' names; protocol and weights beneath where the name does not tell lines apart."""
    protocols, names = table["protocol"].nunique() > 1, table[["protocol", "method"]].apply(tuple, axis=1).tolist()
    for (protocol, method), sha, paste in zip(names, table["generator_sha256"], table["paste"], strict=True):
        below = [protocol] if protocols else []
        if names.count((protocol, method)) > 1:
            below += [str(text)[:12] for text in (sha, paste) if isinstance(text, str) and text]
        name = printable(method)
        yield escape("\n".join([name.replace("_", "_\n") if stacked else name, *map(printable, below)]))


def _caption(table: pd.DataFrame, shown: list[Column]) -> str:
    lines = ["± half of the 95% bootstrap interval, over speakers where known, else clips; (n of N): clips it saw"]
    ranked = [c for c in shown if any(_letters(line, c) for _, line in table.iterrows())]
    apart = [c for c in ranked if _separated(table, c)]
    same = ", ".join(c.title for c in ranked if c not in apart)
    if apart:
        lines.append("a, b ...: methods with a letter in common are not separated (signed-rank tests, Holm, 5%)")
    if same and not apart:
        lines.append("Nothing is separated: in no metric can the data tell any two methods apart")
    elif same:
        lines.append(f"Nothing is separated in {same}")
    if not ranked and (table["method"] != GROUND_TRUTH).sum() > 1:
        lines.append("No ranks: a line came without its rows, or no two methods share a clip")
    return "\n".join(lines)


def rich_table(table: pd.DataFrame, title: str) -> Table:
    """The leaderboard for the screen, a column for each line; the best competitor's value of each metric is bold.

    Letters stand behind the means of metrics that separate any two methods; the caption names the others. Diagnostic
    columns are left out. From five methods on the interval stands below its mean, so that eight fit 120 columns.

    Args:
        table: As `leaderboard` gives it, or as read from leaderboard.csv.
        title: Above the table.
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
            _cell(line, c, best.get(line["protocol"]), _letters(line, c) if letters else "", stacked)
            for _, line in table.iterrows()
        )
        out.add_row(escape(c.heading), *cells)
    return out
