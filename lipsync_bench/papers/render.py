# SPDX-License-Identifier: Apache-2.0
"""A comparison as text for the screen, CSV, Markdown and LaTeX (booktabs).

Markdown and LaTeX are written here, not by pandas: its tables have neither rules below headings that span columns nor
rows that name a section, its Markdown needs another package, and it does not escape our characters: LaTeX would print
<, > and the arrows as something else.
"""

import io
import re

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lipsync_bench.papers.cells import Comparison, Grid, GridCell
from lipsync_bench.results.csv_tables import csv_text
from lipsync_bench.results.printing import letters

__all__ = ["latex_escape", "to_csv", "to_latex", "to_markdown", "to_text"]


def _text(cell: GridCell) -> str:
    interval = f" [{', '.join(cell.interval)}]" if cell.interval else ""
    return f"{cell.text}{interval}{f', {cell.count}' if cell.count else ''}"


def _letter(grid: Grid, cell: GridCell) -> str:
    """The letter of a cell's sentence on comparability."""
    return letters(grid.reason(cell) - 1) if grid.reason(cell) else ""


def _title(comparison: Comparison) -> str:
    table = comparison.table
    return f"{table.id}: {table.caption} ({table.paper.citation})"


def _notes(comparison: Comparison) -> list[str]:
    return [*comparison.notes, *dict.fromkeys(source.intervals for source in comparison.sources)]


def _sentences(grid: Grid) -> list[tuple[str, str]]:
    """Letters with their sentences."""
    return [(letters(i), why) for i, why in enumerate(grid.reasons)]


def to_text(comparison: Comparison, width: int = 100) -> str:
    """A comparison as text, in lines of at most `width` characters.

    With columns of ours each metric has its own table, so that 80 characters are enough.
    """
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False, markup=False, emoji=False)
    console.print(Text(_title(comparison)))
    whole = comparison.grid()
    single = bool(comparison.sources)
    for metric in comparison.table.metrics if single else [None]:
        grid = whole if metric is None else whole.of(metric)
        shown = Table(title=Text(grid.groups[0][0]) if single else None, title_justify="left")
        shown.add_column("")
        for head in [column.head for column in grid.columns] if single else [heading for heading, _ in grid.groups]:
            shown.add_column(Text(head.replace(", ours", ",\nours")), justify="right")  # leaves room for our own
        for part, rows in grid.sections:
            if part:
                shown.add_section()
                shown.add_row(Text(f"on {part}"))
            for row, cells in rows:
                texts = [Text(f"{_text(cell)} {_letter(grid, cell)}".rstrip()) for cell in cells]
                shown.add_row(Text(row.label), *texts)
        console.print(shown)
    for note in _notes(comparison):
        console.print(Text(f"- {note}"))
    for letter, why in _sentences(whole):
        console.print(Text(f"{letter}  {why}"))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


def to_csv(comparison: Comparison) -> str:
    """A comparison as CSV: one line for each row, metric and source; see `Comparison.frame`."""
    return csv_text(comparison.frame())


def _markdown_escape(text: str) -> str:
    return re.sub(r"([\\|*`<>\[\]])", r"\\\1", text)


def to_markdown(comparison: Comparison) -> str:
    """A comparison as a pipe table of all metrics, with notes below it."""
    grid = comparison.grid()
    heads = [_markdown_escape(f"{column.heading}, {column.head}") for column in grid.columns]
    lines = [["", *heads], ["---", *["---:"] * len(heads)]]
    for part, rows in grid.sections:
        if part:
            lines.append([f"**on {_markdown_escape(part)}**", *[""] * len(heads)])
        for row, cells in rows:
            marks = [f" <sup>{letter}</sup>" if (letter := _letter(grid, cell)) else "" for cell in cells]
            texts = [_markdown_escape(_text(cell)) + mark for cell, mark in zip(cells, marks, strict=True)]
            lines.append([_markdown_escape(row.label), *texts])
    below = [f"- {_markdown_escape(note)}" for note in _notes(comparison)]
    below += [f"- <sup>{letter}</sup> {_markdown_escape(why)}" for letter, why in _sentences(grid)]
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
    """Text escaped for LaTeX; our non-ASCII characters become commands."""
    return "".join(_LATEX.get(sign, sign) for sign in text)


def to_latex(comparison: Comparison) -> str:
    """A comparison as a table environment for the packages booktabs and graphicx, with notes below the rules."""
    grid = comparison.grid()
    spans, rules, last = [], [], 1
    for heading, span in grid.groups:
        spans.append(f"\\multicolumn{{{span}}}{{c}}{{{latex_escape(heading)}}}")
        rules.append(f"\\cmidrule(lr){{{last + 1}-{last + span}}}")
        last += span
    lines = [" & ".join(["", *spans]) + r" \\"]
    if comparison.sources:
        heads = [latex_escape(column.head) for column in grid.columns]
        lines += ["".join(rules), " & ".join(["", *heads]) + r" \\"]
    for part, own in grid.sections:
        lines.append(r"\midrule")
        if part:
            lines.append(f"\\multicolumn{{{last}}}{{l}}{{\\textit{{on {latex_escape(part)}}}}} \\\\")
        for row, cells in own:
            marks = [f"\\textsuperscript{{{letter}}}" if (letter := _letter(grid, cell)) else "" for cell in cells]
            texts = [latex_escape(_text(cell)) + mark for cell, mark in zip(cells, marks, strict=True)]
            lines.append(" & ".join([latex_escape(row.label), *texts]) + r" \\")
    below = [latex_escape(note) for note in _notes(comparison)]
    below += [f"\\textsuperscript{{{letter}}} {latex_escape(why)}" for letter, why in _sentences(grid)]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs} and \\usepackage{graphicx}",
            r"\begin{table*}",
            r"\centering",
            f"\\caption{{{latex_escape(_title(comparison))}}}",
            f"\\label{{tab:{comparison.table.id}}}",
            r"\resizebox{\textwidth}{!}{%",
            f"\\begin{{tabular}}{{l{'r' * len(grid.columns)}}}",
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
