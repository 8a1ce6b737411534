# SPDX-License-Identifier: Apache-2.0
"""A paper's table with numbers of ours beside it, cell by cell: what every output prints.

A `Comparison` holds the values as they were read; a `Grid` is the table to print, whose cells have their texts. Text,
CSV, Markdown and LaTeX (render.py) and the report's page differ in how they put the cells down, not in what is in them.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

import pandas as pd

from lipsync_bench.metrics.registry import column as our_column
from lipsync_bench.papers.printed.paper_metrics import PAPER_METRICS
from lipsync_bench.papers.printed.paper_table import PaperRow, PaperTable, Printed
from lipsync_bench.papers.scores import Score, ScoreSource
from lipsync_bench.results.printing import NOTHING, fixed, value_text

__all__ = ["ComparedCell", "ComparedRow", "Comparison", "Grid", "GridCell", "GridColumn"]

_FIELDS = (
    *("table", "dataset", "row", "method", "metric", "better", "paper", "source"),
    *("ours", "low", "high", "n", "tried", "counts", "comparable", "why"),
    *("place", "protocol", "generator_sha256", "paste", "lse_sha256", "expert_sha256", "lpips_alex_sha256"),
    *("fid_sha256", "package_version"),
)


@dataclass(frozen=True)
class ComparedCell:
    """One row and metric.

    Args:
        paper: As printed; None where the paper reports nothing.
        ours: One for each source; None where it has nothing.
        diagnostics: Beside each of ours, a value of ours that may explain the paper's; None where there is none.
    """

    paper: Printed | None
    ours: tuple[Score | None, ...]
    diagnostics: tuple[Score | None, ...] = ()


@dataclass(frozen=True)
class ComparedRow:
    """One row.

    Args:
        row: Of the paper; without values where only we have it.
        in_paper: Whether the paper has it.
        marks: What stands for a missing number, for each source: `PAPER_ONLY` (a method that this suite does not have,
            and nobody gave its videos), `NOT_RUN` (one it has, or the truth), empty where the source has the row or the
            row is of a data set that another source is of.
        cells: By metric.
    """

    row: PaperRow
    in_paper: bool
    marks: tuple[str, ...]
    cells: dict[str, ComparedCell]


@dataclass(frozen=True)
class GridColumn:
    """One column.

    Args:
        metric: Of the paper.
        kind: The paper's value, ours, or one of ours that may explain the paper's and compares nothing.
        head: Below the metric's heading.
        source: Number of the source of ours.
    """

    metric: str
    kind: Literal["paper", "ours", "diagnostic"]
    head: str
    source: int = 0

    @property
    def heading(self) -> str:
        """Of the metric, which columns of one metric have in common."""
        return PAPER_METRICS[self.metric].heading


@dataclass(frozen=True)
class GridCell:
    """One cell.

    Args:
        column: Its column.
        text: The value, or what stands for it.
        why: Of a number of ours: whether it may be compared, as a sentence. Of none: why there is none, may be empty.
        comparable: None where there is no number of ours.
        interval: Ends of the 95% interval; None without one. A diagnostic has none, for want of room.
        count: How much is in the number, such as "79 of 80"; as the interval.
        score: What the source gave.
    """

    column: GridColumn
    text: str
    why: str = ""
    comparable: bool | None = None
    interval: tuple[str, str] | None = None
    count: str = ""
    score: Score | None = None


@dataclass(frozen=True)
class Grid:
    """A table to print.

    Args:
        columns: Of the cells; those of a metric are neighbours.
        sections: Data set (empty if the table has only one) with its rows.
        reasons: Every sentence on comparing, in the order of the cells.
    """

    columns: tuple[GridColumn, ...]
    sections: tuple[tuple[str, tuple[tuple[PaperRow, tuple[GridCell, ...]], ...]], ...]
    reasons: tuple[str, ...]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Heading of each metric and the number of columns below it."""
        return [(heading, len(list(own))) for heading, own in groupby(column.heading for column in self.columns)]

    def reason(self, cell: GridCell) -> int:
        """Number of the sentence on comparing, from 1; 0 where there is nothing to compare."""
        return 0 if cell.comparable is None else self.reasons.index(cell.why) + 1

    def of(self, metric: str) -> "Grid":
        """The columns of one metric, with the numbers of this table's sentences."""
        kept = [k for k, column in enumerate(self.columns) if column.metric == metric]
        sections = tuple(
            (part, tuple((row, tuple(cells[k] for k in kept)) for row, cells in rows)) for part, rows in self.sections
        )
        return replace(self, columns=tuple(self.columns[k] for k in kept), sections=sections)


@dataclass(frozen=True)
class Comparison:
    """The joined table.

    Args:
        table: The paper's.
        sources: Columns of ours.
        lines: The paper's rows in order, with the floor (the truth against itself) added where the paper prints none.
        notes: What to know, as sentences: how the paper measured, the table's notes, where ours come from, what is
            missing and why.
    """

    table: PaperTable
    sources: tuple[ScoreSource, ...]
    lines: tuple[ComparedRow, ...]
    notes: tuple[str, ...]

    def measured(self, metric: str) -> tuple[int, ...]:
        """Numbers of the sources that have this metric in at least one row."""
        return tuple(
            i for i in range(len(self.sources)) if any(line.cells[metric].ours[i] is not None for line in self.lines)
        )

    def diagnosed(self, metric: str) -> tuple[int, ...]:
        """Numbers of the sources that have the metric's diagnostic in at least one row."""
        return tuple(
            i
            for i in self.measured(metric)
            if any(line.cells[metric].diagnostics[i] is not None for line in self.lines)
        )

    def grid(self, diagnostics: bool = True) -> Grid:
        """The table to print: of ours, the columns that have a value in at least one row.

        Args:
            diagnostics: With the columns that explain only.
        """
        columns = [column for column in self._columns() if diagnostics or column.kind != "diagnostic"]
        rows = [(line.row, self._cells(line, columns)) for line in self.lines]
        parts = dict.fromkeys(row.dataset for row, _ in rows)
        return Grid(
            tuple(columns),
            tuple(
                (part if len(parts) > 1 else "", tuple((row, cells) for row, cells in rows if row.dataset == part))
                for part in parts
            ),
            tuple(dict.fromkeys(cell.why for _, cells in rows for cell in cells if cell.comparable is not None)),
        )

    def _columns(self, empty: bool = False) -> Iterator[GridColumn]:
        """All columns, with `empty` those without any value too."""
        for metric in self.table.metrics:
            diagnostic, diagnosed = PAPER_METRICS[metric].diagnostic, self.diagnosed(metric)
            yield GridColumn(metric, "paper", "paper")
            for i in range(len(self.sources)) if empty else self.measured(metric):
                source = self.sources[i]
                yield GridColumn(metric, "ours", f"ours: {source.heading}", i)
                if diagnostic and (empty or i in diagnosed):
                    whose = f": {source.heading}" if len(diagnosed) > 1 else ""
                    yield GridColumn(metric, "diagnostic", f"{our_column(diagnostic).title}, ours{whose}", i)

    def _cells(self, line: ComparedRow, columns: Iterable[GridColumn]) -> tuple[GridCell, ...]:
        return tuple(_cell(line, column, self.table.digits(column.metric)) for column in columns)

    def frame(self) -> pd.DataFrame:
        """One line for each row, metric and source; one with empty `ours` where there is none.

        Columns: table, dataset, row, method, metric, better (side), paper (as printed), source, ours, low, high (95%
        bootstrap interval), n, tried, counts (what n counts), comparable, why, and what made ours: place, protocol,
        hashes, version. A diagnostic is a metric by itself, without a better side, where a source has it.
        """
        return pd.DataFrame(self._records(), columns=list(_FIELDS))

    def _records(self) -> Iterator[dict[str, object]]:
        columns = list(self._columns(empty=True))
        for line in self.lines:
            for metric, cells in groupby(self._cells(line, columns), lambda cell: cell.column.metric):
                paper, *others = cells
                base = {
                    "table": self.table.id,
                    "dataset": line.row.dataset,
                    "row": line.row.label,
                    "method": line.row.name,
                    "metric": metric,
                    "better": "higher" if PAPER_METRICS[metric].higher_is_better else "lower",
                    "paper": "" if paper.text == NOTHING else paper.text,
                }
                if not others:
                    yield base
                for cell in others:
                    source = self.sources[cell.column.source]
                    ours = {"source": source.heading, "counts": source.counts, **_numbers(cell)}
                    if cell.column.kind == "ours":
                        yield base | ours
                    elif cell.score is not None:
                        yield base | {"metric": PAPER_METRICS[metric].diagnostic, "better": "", "paper": ""} | ours


def _cell(line: ComparedRow, column: GridColumn, digits: int) -> GridCell:
    found = line.cells[column.metric]
    if column.kind == "paper":
        return GridCell(column, NOTHING if found.paper is None else found.paper.text)
    ours = column.kind == "ours"
    score = (found.ours if ours else found.diagnostics)[column.source]
    if score is None or math.isnan(score.value):
        why = line.marks[column.source] if ours else ""
        return GridCell(column, why or NOTHING, why, score=score)
    text, verdict = value_text(score.value, digits), score.verdict
    if not ours:
        return GridCell(column, text, verdict.why, verdict.comparable, score=score)
    ends = (score.low, score.high)
    interval = (fixed(score.low, digits), fixed(score.high, digits)) if all(map(math.isfinite, ends)) else None
    return GridCell(column, text, verdict.why, verdict.comparable, interval, score.seen, score)


def _numbers(cell: GridCell) -> dict[str, object]:
    """A cell's score with all its digits, and what made it."""
    score = cell.score
    if score is None:
        return {"why": cell.why}
    numbers = {"ours": score.value, "low": score.low, "high": score.high, "n": score.n}
    of = {"counts": "frames"} if score.pooled else {"tried": score.tried}
    return {**numbers, **of, "comparable": score.verdict.comparable, "why": score.verdict.why, **score.identity}
