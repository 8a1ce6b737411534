# SPDX-License-Identifier: Apache-2.0
"""A paper's table joined with numbers of ours: cell by cell, each of ours in the column of its own protocol."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from lipsync_bench.evaluation.rows import GROUND_TRUTH
from lipsync_bench.tables.paper_metrics import PAPER_METRICS
from lipsync_bench.tables.paper_table import PaperRow, PaperTable, Printed
from lipsync_bench.tables.sources import Score, Source

__all__ = ["NOT_RUN", "PAPER_ONLY", "Cell", "Comparison", "Line", "compare"]

PAPER_ONLY = "paper only"
NOT_RUN = "not run"


@dataclass(frozen=True)
class Cell:
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
class Line:
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
    cells: dict[str, Cell]


@dataclass(frozen=True)
class Comparison:
    """The joined table.

    Args:
        table: The paper's.
        sources: Columns of ours.
        lines: The paper's rows in order, with the floor (the truth against itself) added where the paper prints none.
        notes: What to know, as sentences: the table's notes, where ours come from, what is missing and why.
    """

    table: PaperTable
    sources: tuple[Source, ...]
    lines: tuple[Line, ...]
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

    def frame(self) -> pd.DataFrame:
        """One line for each row, metric and source; one with empty `ours` where there is none.

        Columns: table, dataset, row, method, metric, better (side), paper (as printed), source, ours, low, high (95%
        bootstrap interval), n, tried, counts (what n counts), comparable, why, and what made ours: place, protocol,
        hashes, version. A diagnostic is a metric by itself, without a better side, where a source has it.
        """
        return pd.DataFrame(self._records(), columns=list(_FIELDS))

    def _records(self) -> Iterator[dict[str, object]]:
        for line in self.lines:
            for metric, cell in line.cells.items():
                better = "higher" if PAPER_METRICS[metric].higher_is_better else "lower"
                base: dict[str, object] = {
                    "table": self.table.id,
                    "dataset": line.row.dataset,
                    "row": line.row.label,
                    "method": line.row.name,
                    "metric": metric,
                    "better": better,
                    "paper": "" if cell.paper is None else cell.paper.text,
                }
                for source, score, mark in zip(self.sources, cell.ours, line.marks, strict=True):
                    yield base | {"source": source.heading, **_numbers(score, mark, source.counts)}
                if not self.sources:
                    yield base
                for source, score in zip(self.sources, cell.diagnostics, strict=False):
                    if score is not None:
                        name = PAPER_METRICS[metric].diagnostic
                        other = {"metric": name, "better": "", "paper": "", "source": source.heading}
                        yield base | other | _numbers(score, "", source.counts)


_FIELDS = (
    *("table", "dataset", "row", "method", "metric", "better", "paper", "source"),
    *("ours", "low", "high", "n", "tried", "counts", "comparable", "why"),
    *("place", "protocol", "generator_sha256", "paste", "lse_sha256", "expert_sha256", "lpips_alex_sha256"),
    *("fid_sha256", "package_version"),
)


def _numbers(score: Score | None, mark: str, counts: str) -> dict[str, object]:
    if score is None:
        return {"why": mark, "counts": counts}
    numbers = {"ours": score.value, "low": score.low, "high": score.high, "n": score.n}
    of = {"counts": "frames"} if score.pooled else {"counts": counts, "tried": score.tried}
    return {**numbers, **of, "comparable": score.verdict.comparable, "why": score.verdict.why, **score.identity}


def _line(table: PaperTable, row: PaperRow, sources: Sequence[Source], in_paper: bool) -> Line:
    covered = [source.covers(table, row) for source in sources]
    cells = {
        metric: Cell(
            row.values[metric],
            tuple(s.score(table, row, metric) if own else None for s, own in zip(sources, covered, strict=True)),
            tuple(s.diagnostic(row, metric) if own else None for s, own in zip(sources, covered, strict=True)),
        )
        for metric in table.metrics
    }
    missing = NOT_RUN if row.method in table.trained_here | {GROUND_TRUTH} else PAPER_ONLY
    nowhere = not any(covered)  # then no other source has it either
    marks = tuple(
        missing if nowhere or (own and row.name not in source.names) else ""
        for source, own in zip(sources, covered, strict=True)
    )
    return Line(row, in_paper, marks, cells)


def _floors(table: PaperTable, sources: Sequence[Source]) -> Iterator[Line]:
    """The truth's lines where the paper has none and we have numbers."""
    there = {row.dataset for row in table.rows if row.method == GROUND_TRUTH}
    for dataset in dict.fromkeys(row.dataset for row in table.rows if row.dataset not in there):
        row = PaperRow(GROUND_TRUTH, GROUND_TRUTH, dataset, ("not in the paper",), dict.fromkeys(table.metrics))
        line = _line(table, row, sources, in_paper=False)
        if any(score is not None for cell in line.cells.values() for score in cell.ours):
            yield line


def _pooled(comparison: Comparison) -> Iterator[str]:
    """What to know of metrics that are no means over clips."""
    for metric in comparison.table.metrics:
        facts = PAPER_METRICS[metric]
        if facts.pooled and comparison.measured(metric):
            yield f"{facts.title} is one value of all frames together: it has no interval and counts frames."
            floors = [line.cells[metric].ours for line in comparison.lines if line.row.name == GROUND_TRUTH]
            if any(score is not None for ours in floors for score in ours):
                yield (
                    f"{facts.title} of {GROUND_TRUTH} is one half of the real videos against the other: the floor of "
                    "real against real, of half as many frames, which alone makes it a little higher."
                )


def _notes(comparison: Comparison) -> Iterator[str]:
    table, sources = comparison.table, comparison.sources
    yield from table.notes
    for source in sources:
        yield f"{source.heading}: {source.legend}"
    shown = [metric for metric in table.metrics if comparison.measured(metric)]
    yield from (PAPER_METRICS[m].unstated for m in shown if PAPER_METRICS[m].unstated)
    for i, source in enumerate(sources):
        absent = [PAPER_METRICS[m] for m in table.metrics if i not in comparison.measured(m)]
        if absent:
            needs = sorted({metric.need for metric in absent if metric.need})
            because = f" (needs {' and '.join(needs)})" if needs else ""
            yield f"{source.heading}: not measured: {', '.join(metric.title for metric in absent)}{because}."
        others = sorted(set(source.names) - {line.row.name for line in comparison.lines})
        if others:
            yield f"{source.heading}: also there, but in no row of this table: {', '.join(others)}."
    yield from _pooled(comparison)
    if any(GROUND_TRUTH in source.names for source in sources):
        yield f"{GROUND_TRUTH} is the real video against itself: the floor of each metric under that protocol."


def compare(table: PaperTable, sources: Sequence[Source] = (), notes: Sequence[str] = ()) -> Comparison:
    """Join a paper's table with numbers of ours.

    Args:
        table: The paper's.
        sources: Leaderboards (`results.read_sources`), or for a user study `ratings.Ratings`.
        notes: More sentences for below the table, such as why something was not run.
    """
    lines = [_line(table, row, sources, in_paper=True) for row in table.rows]
    for floor in _floors(table, sources):  # behind the last row of its data set
        last = max(i for i, line in enumerate(lines) if line.row.dataset == floor.row.dataset)
        lines.insert(last + 1, floor)
    bare = Comparison(table, tuple(sources), tuple(lines), ())
    return Comparison(table, bare.sources, bare.lines, tuple(dict.fromkeys([*_notes(bare), *notes])))
