# SPDX-License-Identifier: Apache-2.0
"""A comparison as text for the screen, CSV, Markdown and LaTeX (booktabs)."""

import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from string import ascii_lowercase

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lipsync_bench.csv_tables import csv_text
from lipsync_bench.tables.comparison import Cell, Comparison, Line
from lipsync_bench.tables.paper_metrics import PAPER_METRICS
from lipsync_bench.tables.sources import Score
from metrics.registry import column

__all__ = ["latex_escape", "to_csv", "to_latex", "to_markdown", "to_text"]

NOTHING = "–"
_INTERVALS = "In brackets: 95% bootstrap interval over {counts}; n of N: {counts} in the mean, of those there were."


@dataclass(frozen=True)
class _Value:
    """A cell's text and the letter of its sentence."""

    text: str
    mark: str = ""


@dataclass(frozen=True)
class _Grid:
    """The cells of one or more metrics.

    Args:
        groups: Heading of each metric and the number of columns below it.
        heads: Heading of each column behind the first.
        sections: Data set (empty if the table has only one) with its rows; a row is its label and its cells.
    """

    groups: tuple[tuple[str, int], ...]
    heads: tuple[str, ...]
    sections: tuple[tuple[str, tuple[tuple[str, tuple[_Value, ...]], ...]], ...]


def _letter(number: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    high, low = divmod(number, len(ascii_lowercase))
    return (_letter(high - 1) if high else "") + ascii_lowercase[low]


def _sentences(comparison: Comparison) -> dict[str, str]:
    """Letter by sentence, for every sentence on comparing, in the order of the cells."""
    cells = [cell for line in comparison.lines for cell in line.cells.values()]
    scores = [score for cell in cells for score in (*cell.ours, *cell.diagnostics)]
    found = dict.fromkeys(score.verdict.why for score in scores if score is not None)
    return {why: _letter(i) for i, why in enumerate(found)}


def _ours(score: Score | None, missing: str, digits: int, letters: dict[str, str]) -> _Value:
    if score is None or math.isnan(score.value):
        return _Value(missing or NOTHING)
    text = "identical" if math.isinf(score.value) else f"{score.value:.{digits}f}"
    if math.isfinite(score.low) and math.isfinite(score.high):
        text += f" [{score.low:.{digits}f}, {score.high:.{digits}f}]"
    return _Value(f"{text}, {score.seen}", letters[score.verdict.why])


def _diagnostic(score: Score | None, digits: int, letters: dict[str, str]) -> _Value:
    """The mean alone: nothing is compared by it, and it has to find room beside ours."""
    if score is None or math.isnan(score.value):
        return _Value(NOTHING)
    return _Value(f"{score.value:.{digits}f}", letters[score.verdict.why])


def _heads(comparison: Comparison, metric: str) -> list[str]:
    """The headings below a metric's own."""
    names, diagnosed = [source.heading for source in comparison.sources], comparison.diagnosed(metric)
    heads = ["paper"]
    for i in comparison.measured(metric):
        heads.append(f"ours: {names[i]}")
        if i in diagnosed:
            whose = f": {names[i]}" if len(diagnosed) > 1 else ""
            heads.append(f"{column(PAPER_METRICS[metric].diagnostic).title}, ours{whose}")
    return heads


def _grid(comparison: Comparison, metrics: Sequence[str]) -> _Grid:
    letters = _sentences(comparison)
    measured = {metric: comparison.measured(metric) for metric in metrics}
    diagnosed = {metric: comparison.diagnosed(metric) for metric in metrics}

    def values(line: Line, metric: str, cell: Cell) -> Iterator[_Value]:
        digits = comparison.table.digits(metric)
        yield _Value(NOTHING if cell.paper is None else cell.paper.text)
        for i in measured[metric]:
            yield _ours(cell.ours[i], line.marks[i], digits, letters)
            if i in diagnosed[metric]:
                yield _diagnostic(cell.diagnostics[i], digits, letters)

    def cells(line: Line) -> tuple[_Value, ...]:
        return tuple(value for metric in metrics for value in values(line, metric, line.cells[metric]))

    parts = dict.fromkeys(line.row.dataset for line in comparison.lines)
    sections = tuple(
        (
            part if len(parts) > 1 else "",
            tuple((line.row.label, cells(line)) for line in comparison.lines if line.row.dataset == part),
        )
        for part in parts
    )
    heads = [_heads(comparison, metric) for metric in metrics]
    return _Grid(
        tuple((PAPER_METRICS[metric].heading, len(own)) for metric, own in zip(metrics, heads, strict=True)),
        tuple(head for own in heads for head in own),
        sections,
    )


def _title(comparison: Comparison) -> str:
    table = comparison.table
    year = "" if str(table.paper.year) in table.paper.ref else f", {table.paper.year}"
    return f"{table.id}: {table.caption} ({table.paper.title}, {table.paper.ref}{year})"


def _protocol(comparison: Comparison) -> str:
    """What the paper says about how it measured, as a sentence."""
    table, protocol = comparison.table, comparison.table.protocol
    parts = [f"data: {' and '.join(table.datasets)}"]
    parts += [f"clips: {table.clips}"] if table.clips else []
    parts += [f"as {' and '.join(protocol.same_as)}"] if protocol.same_as else []
    for pairing in ("paired", "unpaired"):
        named = [PAPER_METRICS[m].title for m in table.metrics if protocol.pairing.get(m) == pairing]
        parts += [f"{pairing}: {', '.join(named)}"] if named else []
    parts += [f"crop: {protocol.crop}"] if protocol.crop else []
    parts += [f"reference: {protocol.reference}"] if protocol.reference else []
    return f"The paper: {'; '.join(parts)}."


def _below(comparison: Comparison) -> tuple[list[str], list[tuple[str, str]]]:
    """Notes, then letters with their sentences."""
    notes = [_protocol(comparison), *comparison.notes]
    counts = list(dict.fromkeys(source.counts for source in comparison.sources))
    notes += [_INTERVALS.format(counts=" or ".join(counts))] if counts else []
    return notes, [(letter, why) for why, letter in _sentences(comparison).items()]


def _parts(comparison: Comparison) -> list[tuple[str, ...]]:
    """Metrics by table of the screen: with columns of ours, one metric each, so that 80 characters are enough."""
    metrics = comparison.table.metrics
    return [(metric,) for metric in metrics] if comparison.sources else [metrics]


def to_text(comparison: Comparison, width: int = 100) -> str:
    """For the screen, lines of at most `width` characters."""
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False, markup=False, emoji=False)
    console.print(Text(_title(comparison)))
    for metrics in _parts(comparison):
        grid = _grid(comparison, metrics)
        single = len(metrics) == 1
        shown = Table(title=Text(grid.groups[0][0]) if single else None, title_justify="left")
        shown.add_column("")
        heads = grid.heads if single else [heading for heading, _ in grid.groups]
        for head in heads:
            shown.add_column(Text(head.replace(", ours", ",\nours")), justify="right")  # leaves room for our own
        for part, rows in grid.sections:
            if part:
                shown.add_section()
                shown.add_row(Text(f"on {part}"))
            for label, values in rows:
                texts = [Text(f"{value.text} {value.mark}".rstrip()) for value in values]
                shown.add_row(Text(label), *texts)
        console.print(shown)
    notes, sentences = _below(comparison)
    for note in notes:
        console.print(Text(f"- {note}"))
    for letter, why in sentences:
        console.print(Text(f"{letter}  {why}"))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


def to_csv(comparison: Comparison) -> str:
    """One line for each row, metric and source, with everything that identifies it; see `Comparison.frame`."""
    return csv_text(comparison.frame())


def _markdown_escape(text: str) -> str:
    return re.sub(r"([\\|*`<>\[\]])", r"\\\1", text)


def to_markdown(comparison: Comparison) -> str:
    """A pipe table of all metrics, with notes below it."""
    grid = _grid(comparison, comparison.table.metrics)
    metric_heads = [heading for heading, span in grid.groups for _ in range(span)]
    heads = [f"{metric}, {head}" for metric, head in zip(metric_heads, grid.heads, strict=True)]
    lines = [["", *map(_markdown_escape, heads)], ["---", *["---:"] * len(heads)]]
    for part, rows in grid.sections:
        if part:
            lines.append([f"**on {_markdown_escape(part)}**", *[""] * len(heads)])
        for label, values in rows:
            cells = [
                _markdown_escape(value.text) + (f" <sup>{value.mark}</sup>" if value.mark else "") for value in values
            ]
            lines.append([_markdown_escape(label), *cells])
    notes, sentences = _below(comparison)
    below = [f"- {_markdown_escape(note)}" for note in notes]
    below += [f"- <sup>{letter}</sup> {_markdown_escape(why)}" for letter, why in sentences]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"**{_markdown_escape(_title(comparison))}**\n\n{table}\n\n" + "\n".join(below) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",  # \textquotedbl is not in LaTeX's default encoding
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def latex_escape(text: str) -> str:
    """Text as LaTeX prints it as it stands; signs of our tables that are not ASCII become commands."""
    return "".join(_LATEX.get(sign, sign) for sign in text)


def to_latex(comparison: Comparison) -> str:
    """A table environment for the packages booktabs and graphicx, with notes below the rules."""
    grid = _grid(comparison, comparison.table.metrics)
    spans, rules, column = [], [], 2
    for heading, span in grid.groups:
        spans.append(f"\\multicolumn{{{span}}}{{c}}{{{latex_escape(heading)}}}")
        rules.append(f"\\cmidrule(lr){{{column}-{column + span - 1}}}")
        column += span
    lines = [" & ".join(["", *spans]) + r" \\"]
    if comparison.sources:
        lines += ["".join(rules), " & ".join(["", *map(latex_escape, grid.heads)]) + r" \\"]
    for part, rows in grid.sections:
        lines.append(r"\midrule")
        if part:
            lines.append(f"\\multicolumn{{{column - 1}}}{{l}}{{\\textit{{on {latex_escape(part)}}}}} \\\\")
        for label, values in rows:
            cells = [latex_escape(v.text) + (f"\\textsuperscript{{{v.mark}}}" if v.mark else "") for v in values]
            lines.append(" & ".join([latex_escape(label), *cells]) + r" \\")
    notes, sentences = _below(comparison)
    below = [latex_escape(note) for note in notes]
    below += [f"\\textsuperscript{{{letter}}} {latex_escape(why)}" for letter, why in sentences]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs} and \\usepackage{graphicx}",
            r"\begin{table*}",
            r"\centering",
            f"\\caption{{{latex_escape(_title(comparison))}}}",
            f"\\label{{tab:{comparison.table.id}}}",
            r"\resizebox{\textwidth}{!}{%",
            f"\\begin{{tabular}}{{l{'r' * len(grid.heads)}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\par\smallskip\raggedright\footnotesize",
            *(f"{line}\\par" for line in below),
            r"\end{table*}",
            "",
        ]
    )
