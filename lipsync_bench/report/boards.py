# SPDX-License-Identifier: Apache-2.0
"""The leaderboards of the first page: one for each protocol."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from lipsync_bench.metrics.metric import Column
from lipsync_bench.report.contents import Line, Results
from lipsync_bench.report.numbers import NOTHING, Heading, headings, interval_text, value_text

__all__ = ["Board", "BoardCell", "Entry", "boards", "number"]


@dataclass(frozen=True)
class BoardCell:
    """One number of a leaderboard.

    Args:
        text: The mean.
        value: The mean, for sorting; None where there is none.
        interval: 95% interval; empty where there is none.
        count: "n of N", clips in the mean of those there were; for a pooled metric the frames.
        rank: With the group's letters; empty where there is none.
        best: No competitor is better, and one is worse; never the floor.
    """

    text: str
    value: float | None
    interval: str
    count: str
    rank: str
    best: bool


@dataclass(frozen=True)
class Entry:
    """One line of a leaderboard."""

    line: Line
    clips: int
    failures: int
    fallback_frames: int
    cells: Sequence[BoardCell]


@dataclass(frozen=True)
class Board:
    """One leaderboard.

    Args:
        protocol: Of all its lines.
        headings: Of the cells.
        competitors: Sorted by the first metric.
        floor: Lines of the real video.
        sorted_by: Number of the cell by which the competitors are sorted; None if there is none.
    """

    protocol: str
    headings: Sequence[Heading]
    competitors: Sequence[Entry]
    floor: Sequence[Entry]
    sorted_by: int | None


def number(line: Mapping[str, Any], name: str) -> float:
    """A number of a leaderboard's line, NaN where the column or the value is missing."""
    value = line.get(name)
    return math.nan if value is None or pd.isna(value) else float(value)


def _rank(line: Mapping[str, Any], name: str) -> str:
    rank, group = number(line, f"{name}_rank"), line.get(f"{name}_group")
    parts = ["" if math.isnan(rank) else f"rank {rank:.0f}", group if isinstance(group, str) else ""]
    return " ".join(filter(None, parts))


def _cell(line: Mapping[str, Any], column: Column, tried: int, best: float | None) -> BoardCell:
    value, low, high = (number(line, column.name + suffix) for suffix in ("", "_low", "_high"))
    n = number(line, f"{column.name}_n")
    if math.isnan(value):
        return BoardCell(NOTHING, None, "", "", "", False)
    interval = interval_text(low, high, column.digits)
    count = "" if math.isnan(n) else f"{n:.0f} frames" if column.kind == "pooled" else f"{n:.0f} of {tried}"
    return BoardCell(value_text(value, column.digits), value, interval, count, _rank(line, column.name), value == best)


def _best(lines: Sequence[Mapping[str, Any]], column: Column) -> float | None:
    values = [value for line in lines if not math.isnan(value := number(line, column.name))]
    if column.higher_is_better is None or len(set(values)) < 2:
        return None
    return max(values) if column.higher_is_better else min(values)


def _place(cell: int, higher_is_better: bool, entry: Entry) -> float:
    """Where an entry is sorted to: best first, those without a value last."""
    value = entry.cells[cell].value
    return math.inf if value is None else -value if higher_is_better else value


def _board(results: Results, protocol: str) -> Board:
    columns = results.columns(protocol)
    known = results.board_of(protocol)
    lines = [line for line in results.lines_of(protocol) if line.key in known]
    best = {c.name: _best([known[line.key] for line in lines if not line.floor], c) for c in columns}

    def entry(line: Line) -> Entry:
        values = known[line.key]
        clips, failures = int(values["clips"]), int(values["failures"])
        cells = [_cell(values, c, clips + failures, None if line.floor else best[c.name]) for c in columns]
        fallback = number(values, "fallback_frames")
        return Entry(line, clips, failures, 0 if math.isnan(fallback) else int(fallback), cells)

    first = next((i for i, c in enumerate(columns) if c.higher_is_better is not None), None)
    competitors = [entry(line) for line in lines if not line.floor]
    if first is not None:
        competitors.sort(key=partial(_place, first, bool(columns[first].higher_is_better)))
    floor = [entry(line) for line in lines if line.floor]
    return Board(protocol, headings(results, protocol, columns), competitors, floor, first)


def boards(results: Results) -> list[Board]:
    """One leaderboard for each protocol."""
    return [_board(results, protocol) for protocol in results.protocols]
