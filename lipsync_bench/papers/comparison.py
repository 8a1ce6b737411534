# SPDX-License-Identifier: Apache-2.0
"""Joins a paper's table with our results, cell by cell; each protocol of ours has its own column."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from lipsync_bench.papers.cells import ComparedCell, ComparedRow, Comparison
from lipsync_bench.papers.printed.paper_metrics import PAPER_METRICS
from lipsync_bench.papers.printed.paper_table import PaperRow, PaperTable
from lipsync_bench.papers.scores import ScoreSource
from lipsync_bench.results.rows import GROUND_TRUTH

__all__ = ["NOT_RUN", "PAPER_ONLY", "compare"]

PAPER_ONLY = "paper only"
NOT_RUN = "not run"


def _compared(table: PaperTable, row: PaperRow, sources: Sequence[ScoreSource], in_paper: bool) -> ComparedRow:
    covered = [source.covers(table, row) for source in sources]
    cells = {
        metric: ComparedCell(
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
    return ComparedRow(row, in_paper, marks, cells, tuple(covered))


def _added(table: PaperTable, sources: Sequence[ScoreSource]) -> Iterator[ComparedRow]:
    """Rows that the paper does not have: the ground truth's where we have values, and those that a source adds."""
    printed = {row.dataset for row in table.rows if row.method == GROUND_TRUTH}
    wanted = [(GROUND_TRUTH, row.dataset) for row in table.rows if row.dataset not in printed]
    own = {row.name for row in table.rows}
    wanted += [
        (name, table.datasets[-1]) for source in sources if source.adds_rows for name in source.names if name not in own
    ]
    for name, dataset in dict.fromkeys(wanted):
        row = PaperRow(name, name, dataset, ("not in the paper",), dict.fromkeys(table.metrics))
        compared = _compared(table, row, sources, in_paper=False)
        if any(score is not None for cell in compared.cells.values() for score in cell.ours):
            yield compared


def _pooled(comparison: Comparison) -> Iterator[str]:
    """Notes on pooled metrics, which are not means over clips."""
    for metric in comparison.table.metrics:
        facts = PAPER_METRICS[metric]
        if facts.pooled and comparison.measured(metric):
            yield f"{facts.title} is one value of all frames together: it has no interval and counts frames."
            references = [row.cells[metric].ours for row in comparison.rows if row.row.name == GROUND_TRUTH]
            if any(score is not None for ours in references for score in ours):
                yield (
                    f"{facts.title} of {GROUND_TRUTH} compares two halves of the real videos: the value expected from "
                    "sampling alone, slightly higher than over all frames, because each half has half as many."
                )


def _protocol(table: PaperTable) -> str:
    """How the paper measured, as far as it says so."""
    protocol = table.protocol
    parts = [f"data: {' and '.join(table.datasets)}"]
    parts += [f"clips: {table.clips}"] if table.clips else []
    parts += [f"as {' and '.join(protocol.same_as)}"] if protocol.same_as else []
    for pairing in ("paired", "unpaired"):
        named = [PAPER_METRICS[m].title for m in table.metrics if protocol.pairing.get(m) == pairing]
        parts += [f"{pairing}: {', '.join(named)}"] if named else []
    parts += [f"crop: {protocol.crop}"] if protocol.crop else []
    parts += [f"reference: {protocol.reference}"] if protocol.reference else []
    return f"The paper: {'; '.join(parts)}."


def _notes(comparison: Comparison) -> Iterator[str]:
    table, sources = comparison.table, comparison.sources
    yield _protocol(table)
    yield from table.notes
    for source in sources:
        yield f"{source.heading}: {source.legend}"
    shown = [metric for metric in table.metrics if comparison.measured(metric)]
    yield from (PAPER_METRICS[m].unstated for m in shown if PAPER_METRICS[m].unstated)
    for i, source in enumerate(sources):
        absent = [PAPER_METRICS[m] for m in table.metrics if i not in comparison.measured(m)]
        if absent:
            datasets = [row.row.dataset for row in comparison.rows if source.covers(table, row.row)]
            files = sorted({file for metric in absent for file in metric.files(table.paper.key, datasets)})
            because = f" (run: bench weights fetch {' '.join(files)})" if files else ""
            yield f"{source.heading}: not measured: {', '.join(metric.title for metric in absent)}{because}."
        others = sorted(set(source.names) - {row.row.name for row in comparison.rows})
        if others:
            yield f"{source.heading}: methods without a row in this table: {', '.join(others)}."
    yield from _pooled(comparison)
    if any(GROUND_TRUTH in source.names for source in sources):
        yield f"{GROUND_TRUTH} is the real video against itself: the reference of each metric under that protocol."


def compare(table: PaperTable, sources: Sequence[ScoreSource] = (), notes: Sequence[str] = ()) -> Comparison:
    """Join a paper's table with our results.

    Args:
        table: The paper's table.
        sources: Leaderboards (`results.read_sources`), or for a user study `ratings.Ratings` or
            `ratings.Votes`.
        notes: Further notes below the table, such as why something was not run.
    """
    rows = [_compared(table, row, sources, in_paper=True) for row in table.rows]
    for reference in _added(table, sources):  # after the last row of its data set
        last = max(i for i, row in enumerate(rows) if row.row.dataset == reference.row.dataset)
        rows.insert(last + 1, reference)
    bare = Comparison(table, tuple(sources), tuple(rows), ())
    return replace(bare, notes=tuple(dict.fromkeys([*_notes(bare), *notes])))
