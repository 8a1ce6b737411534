# SPDX-License-Identifier: Apache-2.0
"""A paper's table with our results beside it, cell by cell: the content of every output.

A `Comparison` holds the values; a `Grid` is the table to print, whose cells are texts. Text, CSV, Markdown, LaTeX
(render.py) and the report's page differ only in how they format the cells.
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
from lipsync_bench.papers.scores import IDENTITY, Score, ScoreSource
from lipsync_bench.results.printing import NOTHING, fixed, value_text

__all__ = ["ComparedCell", "ComparedRow", "Comparison", "Grid", "GridCell", "GridColumn"]

_FIELDS = (
    *("table", "dataset", "row", "method", "metric", "better", "paper", "source"),
    *("ours", "low", "high", "n", "tried", "counts", "comparable", "why"),
    *IDENTITY,
)


@dataclass(frozen=True)
class ComparedCell:
    """The values of one row and metric.

    Args:
        paper: The paper's, as printed; None where the paper reports nothing.
        ours: Ours, one for each source; None where the source has no value.
        diagnostics: For each source a value of ours that may explain the paper's; None where there is none.
    """

    paper: Printed | None
    ours: tuple[Score | None, ...]
    diagnostics: tuple[Score | None, ...] = ()


@dataclass(frozen=True)
class ComparedRow:
    """One row of the paper's table, with our values.

    Args:
        row: The paper's row; without values where only we have it.
        in_paper: Whether the paper has it.
        marks: The text in place of a missing value, for each source: `PAPER_ONLY` (a method that is not in this suite
            and whose videos were not given), `NOT_RUN` (a method of this suite, or the ground truth), empty where the
            source has the row, or the row is of another source's data set.
        cells: The values by metric.
        covered: Whether each source is of the row's data set.
    """

    row: PaperRow
    in_paper: bool
    marks: tuple[str, ...]
    cells: dict[str, ComparedCell]
    covered: tuple[bool, ...]

    def listed(self, source: int) -> bool:
        """Whether the row has a line for this source in a frame: a source of another data set has nothing to say."""
        return self.covered[source] or not any(self.covered)


@dataclass(frozen=True)
class GridColumn:
    """One column to print.

    Args:
        metric: The paper's metric.
        kind: The paper's value, ours, or a diagnostic of ours that may explain the paper's value.
        head: Printed below the metric's heading.
        source: Number of our source.
    """

    metric: str
    kind: Literal["paper", "ours", "diagnostic"]
    head: str
    source: int = 0

    @property
    def heading(self) -> str:
        """The metric's heading, shared by all columns of the metric."""
        return PAPER_METRICS[self.metric].heading


@dataclass(frozen=True)
class GridCell:
    """One cell to print.

    Args:
        column: Its column.
        text: The value, or a mark in its place.
        why: For a value of ours a sentence on whether it may be compared; else why it is missing, may be empty.
        comparable: None where there is no value of ours.
        interval: Ends of the 95% interval; None without one. Diagnostics have none, to save space.
        count: The number of clips or frames in the value, such as "79 of 80"; empty for diagnostics.
        score: The source's score.
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
        columns: The columns; those of a metric are neighbours.
        sections: Data set (empty if the table has only one) with its rows.
        reasons: All different sentences on comparability, in the order of the cells.
    """

    columns: tuple[GridColumn, ...]
    sections: tuple[tuple[str, tuple[tuple[PaperRow, tuple[GridCell, ...]], ...]], ...]
    reasons: tuple[str, ...]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Heading of each metric and the number of columns below it."""
        return [(heading, len(list(own))) for heading, own in groupby(column.heading for column in self.columns)]

    def reason(self, cell: GridCell) -> int:
        """Number of the cell's sentence on comparability, from 1; 0 where there is nothing to compare."""
        return 0 if cell.comparable is None else self.reasons.index(cell.why) + 1

    def of(self, metric: str) -> "Grid":
        """The columns of one metric; sentences keep their numbers."""
        kept = [k for k, column in enumerate(self.columns) if column.metric == metric]
        sections = tuple(
            (part, tuple((row, tuple(cells[k] for k in kept)) for row, cells in rows)) for part, rows in self.sections
        )
        return replace(self, columns=tuple(self.columns[k] for k in kept), sections=sections)


@dataclass(frozen=True)
class Comparison:
    """A paper's table joined with our results.

    Args:
        table: The paper's table.
        sources: Our columns.
        rows: The paper's rows in order; where the paper prints no ground truth, ours is added.
        notes: Notes as sentences: how the paper measured, the table's notes, where our values come from, what is
            missing and why.
    """

    table: PaperTable
    sources: tuple[ScoreSource, ...]
    rows: tuple[ComparedRow, ...]
    notes: tuple[str, ...]

    def measured(self, metric: str) -> tuple[int, ...]:
        """Numbers of the sources that have this metric in at least one row."""
        return tuple(
            i for i in range(len(self.sources)) if any(row.cells[metric].ours[i] is not None for row in self.rows)
        )

    def diagnosed(self, metric: str) -> tuple[int, ...]:
        """Numbers of the sources that have the metric's diagnostic in at least one row."""
        return tuple(
            i for i in self.measured(metric) if any(row.cells[metric].diagnostics[i] is not None for row in self.rows)
        )

    def grid(self, diagnostics: bool = True) -> Grid:
        """The table to print. Columns of ours without any value are left out.

        Args:
            diagnostics: Include diagnostic columns.
        """
        columns = [column for column in self._columns() if diagnostics or column.kind != "diagnostic"]
        rows = [(row.row, self._cells(row, columns)) for row in self.rows]
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
        """All columns; with `empty` also those without any value."""
        for metric in self.table.metrics:
            diagnostic, diagnosed = PAPER_METRICS[metric].diagnostic, self.diagnosed(metric)
            yield GridColumn(metric, "paper", "paper")
            for i in range(len(self.sources)) if empty else self.measured(metric):
                source = self.sources[i]
                yield GridColumn(metric, "ours", f"ours: {source.heading}", i)
                if diagnostic and (empty or i in diagnosed):
                    whose = f": {source.heading}" if len(diagnosed) > 1 else ""
                    yield GridColumn(metric, "diagnostic", f"{our_column(diagnostic).title}, ours{whose}", i)

    def _cells(self, row: ComparedRow, columns: Iterable[GridColumn]) -> tuple[GridCell, ...]:
        return tuple(_cell(row, column, self.table.digits(column.metric)) for column in columns)

    def frame(self) -> pd.DataFrame:
        """One line for each row, metric and source of the row's data set; one with empty `ours` where there is none.

        Columns: table, dataset, row, method, metric, better (direction), paper (as printed), source, ours, low, high
        (95% bootstrap interval), n, tried, counts (what n counts), comparable, why, and what produced ours: place,
        protocol, hashes, version. A diagnostic is a metric of its own without a better direction.
        """
        return pd.DataFrame(self._records(), columns=list(_FIELDS))

    def _records(self) -> Iterator[dict[str, object]]:
        columns = list(self._columns(empty=True))
        for row in self.rows:
            for metric, cells in groupby(self._cells(row, columns), lambda cell: cell.column.metric):
                paper, *others = cells
                base = {
                    "table": self.table.id,
                    "dataset": row.row.dataset,
                    "row": row.row.label,
                    "method": row.row.name,
                    "metric": metric,
                    "better": "higher" if PAPER_METRICS[metric].higher_is_better else "lower",
                    "paper": "" if paper.text == NOTHING else paper.text,
                }
                if not others:
                    yield base
                for cell in others:
                    source = self.sources[cell.column.source]
                    ours = {"source": source.heading, "counts": source.counts, **_numbers(cell)}
                    if cell.column.kind == "ours" and row.listed(cell.column.source):
                        yield base | ours
                    elif cell.column.kind == "diagnostic" and cell.score is not None:
                        yield base | {"metric": PAPER_METRICS[metric].diagnostic, "better": "", "paper": ""} | ours


def _cell(row: ComparedRow, column: GridColumn, digits: int) -> GridCell:
    found = row.cells[column.metric]
    if column.kind == "paper":
        return GridCell(column, NOTHING if found.paper is None else found.paper.text)
    ours = column.kind == "ours"
    score = (found.ours if ours else found.diagnostics)[column.source]
    if score is None or math.isnan(score.value):
        why = row.marks[column.source] if ours else ""
        return GridCell(column, why or NOTHING, why, score=score)
    text, verdict = value_text(score.value, digits), score.verdict
    if not ours:
        return GridCell(column, text, verdict.why, verdict.comparable, score=score)
    ends = (score.low, score.high)
    interval = (fixed(score.low, digits), fixed(score.high, digits)) if all(map(math.isfinite, ends)) else None
    return GridCell(column, text, verdict.why, verdict.comparable, interval, score.count_text, score)


def _numbers(cell: GridCell) -> dict[str, object]:
    """A cell's score with all its digits, and what produced it."""
    score = cell.score
    if score is None:
        return {"why": cell.why}
    numbers = {"ours": score.value, "low": score.low, "high": score.high, "n": score.n}
    of = {"counts": "frames"} if score.pooled else {"tried": score.tried}
    return {**numbers, **of, "comparable": score.verdict.comparable, "why": score.verdict.why, **score.identity}
