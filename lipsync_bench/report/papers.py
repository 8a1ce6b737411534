# SPDX-License-Identifier: Apache-2.0
"""The papers' tables with ours beside them."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

from lipsync_bench.report.numbers import NOTHING, interval_text, value_text
from lipsync_bench.report.results import Results
from lipsync_bench.tables import compare, list_tables, load_table, read_sources
from lipsync_bench.tables.comparison import Comparison, Line
from lipsync_bench.tables.paper_metrics import PAPER_METRICS
from lipsync_bench.tables.paper_table import PaperTable
from lipsync_bench.tables.rules import DATASETS
from lipsync_bench.tables.sources import Score, Source

ALL = "all"

_log = logging.getLogger(__name__)

__all__ = ["ALL", "OurCell", "PaperGrid", "paper_grids"]


@dataclass(frozen=True)
class OurCell:
    """A number of ours, or what stands for it.

    Args:
        text: Mean, or why there is none.
        interval: 95% interval; empty where there is none.
        count: "n of N".
        comparable: None where there is no number.
        note: Number of the sentence that says why.
    """

    text: str
    interval: str = ""
    count: str = ""
    comparable: bool | None = None
    note: int = 0


@dataclass(frozen=True)
class PaperGrid:
    """One table.

    Args:
        table: The paper's.
        groups: Heading of each metric and the number of columns below it.
        heads: Heading of each column behind the first.
        sections: Data set ("" if there is one only) with its rows: label, cells (a text is the paper's).
        reasons: Sentences on comparing, by number from 1.
        notes: What else to know.
    """

    table: PaperTable
    groups: Sequence[tuple[str, int]]
    heads: Sequence[str]
    sections: Sequence[tuple[str, Sequence[tuple[str, Sequence[str | OurCell]]]]]
    reasons: Sequence[str]
    notes: Sequence[str]

    @property
    def source(self) -> str:
        """Paper, venue and year."""
        paper = self.table.paper
        year = "" if str(paper.year) in paper.ref else f", {paper.year}"
        return f"{paper.title}, {paper.ref}{year}"


def _ours(score: Score | None, mark: str, digits: int, reasons: list[str]) -> OurCell:
    if score is None or math.isnan(score.value):
        return OurCell(mark or NOTHING)
    if score.verdict.why not in reasons:
        reasons.append(score.verdict.why)
    return OurCell(
        value_text(score.value, digits),
        interval_text(score.low, score.high, digits),
        score.seen,
        score.verdict.comparable,
        reasons.index(score.verdict.why) + 1,
    )


def _protocol(table: PaperTable) -> str:
    """What the paper says about how it measured."""
    said = table.protocol
    parts = [f"data: {' and '.join(table.datasets)}"]
    parts += [f"clips: {table.clips}"] if table.clips else []
    parts += [f"as {' and '.join(said.same_as)}"] if said.same_as else []
    for pairing in ("paired", "unpaired"):
        named = [PAPER_METRICS[m].title for m in table.metrics if said.pairing.get(m) == pairing]
        parts += [f"{pairing}: {', '.join(named)}"] if named else []
    parts += [f"crop: {said.crop}"] if said.crop else []
    parts += [f"reference: {said.reference}"] if said.reference else []
    return f"The paper: {'; '.join(parts)}."


def _grid(comparison: Comparison) -> PaperGrid:
    table, reasons = comparison.table, list[str]()
    measured = {metric: comparison.measured(metric) for metric in table.metrics}

    def cells(line: Line) -> list[str | OurCell]:
        out: list[str | OurCell] = []
        for metric, own in measured.items():
            cell, digits = line.cells[metric], table.digits(metric)
            out.append(NOTHING if cell.paper is None else cell.paper.text)
            out += [_ours(cell.ours[i], line.marks[i], digits, reasons) for i in own]
        return out

    parts = list(dict.fromkeys(line.row.dataset for line in comparison.lines))
    sections = [
        (
            part if len(parts) > 1 else "",
            [(line.row.label, cells(line)) for line in comparison.lines if line.row.dataset == part],
        )
        for part in parts
    ]
    names = [source.heading for source in comparison.sources]
    return PaperGrid(
        table,
        [(PAPER_METRICS[metric].heading, 1 + len(own)) for metric, own in measured.items()],
        [head for own in measured.values() for head in ("paper", *(f"ours: {names[i]}" for i in own))],
        sections,
        reasons,
        [_protocol(table), *comparison.notes],
    )


def _chosen(results: Results, tables: Sequence[str]) -> list[PaperTable]:
    known = list_tables()
    own = DATASETS.get(results.dataset, results.dataset)
    # What people said of other videos is no measurement that a results folder could stand beside.
    names = [name for name, table in known.items() if own in table.datasets and not table.user_study]
    for name in tables:
        names += list(known) if name == ALL else [load_table(name).id]
    return [known[name] for name in dict.fromkeys(names)]


def paper_grids(results: Results, tables: Sequence[str] = ()) -> tuple[list[PaperGrid], str]:
    """The tables of the results' data set, and others by their ids.

    Args:
        results: Ours.
        tables: Ids, or "all".

    Returns:
        The tables, and why ours stand in none of them; "" if they do.

    Raises:
        FileNotFoundError: No table of that id.
    """
    chosen, problem = _chosen(results, tables), ""
    sources: Sequence[Source] = ()
    if chosen:
        try:
            sources = read_sources(results.folder)
        except ValueError as error:  # such as two weights of one method: no row of a paper is meant by both
            problem = str(error)
            _log.warning("the papers' tables stand without ours: %s", error)
    return [_grid(compare(table, () if table.user_study else sources)) for table in chosen], problem
