# SPDX-License-Identifier: Apache-2.0
"""The leaderboards of the first page, one for each protocol."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from lipsync_bench.metrics.metric import Column
from lipsync_bench.report.contents import Entry, Results, seconds_a_frame
from lipsync_bench.report.numbers import SECONDS, Heading, headings, interval_text
from lipsync_bench.results.printing import NOTHING, value_text

__all__ = ["Board", "BoardCell", "BoardEntry", "boards", "number"]


@dataclass(frozen=True)
class BoardCell:
    """One number of a leaderboard.

    Args:
        text: The mean.
        value: The mean, for sorting; None without a value.
        interval: 95% interval; empty without one.
        count: "n of N", clips in the mean of all clips; for a pooled metric the frames.
        rank: Rank and group letters; empty without a rank.
        best: No ranked entry is better, and at least one is worse; never the reference.
    """

    text: str
    value: float | None
    interval: str
    count: str
    rank: str
    best: bool


@dataclass(frozen=True)
class BoardEntry:
    """An entry with its numbers in a leaderboard.

    Args:
        recipe: How the method was fed; "" where the suite fed nothing.
        fed: In what that differs from its paper and its training, a line for each.
        weights: Whose the method's are: "official", "unofficial" or "".
    """

    entry: Entry
    recipe: str
    fed: Sequence[str]
    weights: str
    clips: int
    failures: int
    fallback_frames: int
    cells: Sequence[BoardCell]


@dataclass(frozen=True)
class Board:
    """One leaderboard.

    Args:
        protocol: The protocol of all its entries.
        headings: Headings of the cells: the metrics, and the seconds a frame took.
        competitors: The ranked entries, sorted by the first metric.
        references: The entries of the real video.
        sorted_by: Index of the cell by which the ranked entries are sorted; None if there is none.
    """

    protocol: str
    headings: Sequence[Heading]
    competitors: Sequence[BoardEntry]
    references: Sequence[BoardEntry]
    sorted_by: int | None


def number(entry: Mapping[str, Any], name: str) -> float:
    """A number of a leaderboard's entry, NaN if the column or the value is missing."""
    value = entry.get(name)
    return math.nan if value is None or pd.isna(value) else float(value)


def _text(entry: Mapping[str, Any], name: str) -> str:
    """A text of a leaderboard's entry; earlier versions' leaderboards lack some."""
    value = entry.get(name)
    return value if isinstance(value, str) else ""


def _rank(entry: Mapping[str, Any], name: str) -> str:
    rank = number(entry, f"{name}_rank")
    parts = ["" if math.isnan(rank) else f"rank {rank:.0f}", _text(entry, f"{name}_group")]
    return " ".join(filter(None, parts))


def _fed(entry: Mapping[str, Any]) -> list[str]:
    published, trained, left_out = (_text(entry, name) for name in ("published", "trained_otherwise", "steps_left_out"))
    lines = (
        "as published" if published == "yes" else published.replace("no: ", "not as published: ", 1),
        trained and f"trained otherwise: {trained}",
        left_out and f"left out: {left_out}",
    )
    return [line for line in lines if line]


def _cell(entry: Mapping[str, Any], column: Column, tried: int, best: float | None) -> BoardCell:
    value, low, high = (number(entry, column.name + suffix) for suffix in ("", "_low", "_high"))
    n = number(entry, f"{column.name}_n")
    if math.isnan(value):
        return BoardCell(NOTHING, None, "", "", "", False)
    interval = interval_text(low, high, column.digits)
    count = "" if math.isnan(n) else f"{n:.0f} frames" if column.kind == "pooled" else f"{n:.0f} of {tried}"
    return BoardCell(value_text(value, column.digits), value, interval, count, _rank(entry, column.name), value == best)


def _best(entries: Sequence[Mapping[str, Any]], column: Column) -> float | None:
    values = [value for entry in entries if not math.isnan(value := number(entry, column.name))]
    if column.higher_is_better is None or len(set(values)) < 2:
        return None
    return max(values) if column.higher_is_better else min(values)


def _place(cell: int, higher_is_better: bool, shown: BoardEntry) -> float:
    """The sort key of an entry: best first, those without a value last."""
    value = shown.cells[cell].value
    return math.inf if value is None else -value if higher_is_better else value


def _board(results: Results, protocol: str) -> Board:
    columns = results.columns(protocol)
    known = results.board_of(protocol)
    entries = [entry for entry in results.entries_of(protocol) if entry.key in known]
    seconds = seconds_a_frame(results.rows_of(protocol))
    best = {c.name: _best([known[entry.key] for entry in entries if not entry.is_reference], c) for c in columns}

    def shown(entry: Entry) -> BoardEntry:
        values = known[entry.key]
        clips, failures = int(values["clips"]), int(values["failures"])
        cells = [_cell(values, c, clips + failures, None if entry.is_reference else best[c.name]) for c in columns]
        took = seconds.get(entry.key, math.nan)
        cells.append(BoardCell(value_text(took, SECONDS.digits), seconds.get(entry.key), "", "", "", False))
        fallback = number(values, "fallback_frames")
        return BoardEntry(
            entry,
            _text(values, "recipe_text"),
            _fed(values),
            _text(values, "generator_weights"),
            clips,
            failures,
            0 if math.isnan(fallback) else int(fallback),
            cells,
        )

    first = next((i for i, c in enumerate(columns) if c.higher_is_better is not None), None)
    competitors = [shown(entry) for entry in entries if not entry.is_reference]
    if first is not None:
        competitors.sort(key=partial(_place, first, bool(columns[first].higher_is_better)))
    references = [shown(entry) for entry in entries if entry.is_reference]
    return Board(protocol, [*headings(results, protocol, columns), SECONDS], competitors, references, first)


def boards(results: Results) -> list[Board]:
    """One leaderboard for each protocol."""
    return [_board(results, protocol) for protocol in results.protocols]
