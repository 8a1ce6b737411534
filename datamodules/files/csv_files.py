# SPDX-License-Identifier: Apache-2.0
"""Cells of CSV files. A spreadsheet takes text that begins with = + - @ for a formula, and file names may begin so."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from lipsync_bench.datamodules.files.disk import write_atomic

_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBERS = re.compile(r"[+-]?(\d+(\.\d*)?([eE][+-]?\d+)?|inf|nan)(\s+[+-]?(\d+(\.\d*)?([eE][+-]?\d+)?|inf|nan))*")

__all__ = ["are_numbers", "quoted", "unquoted", "write_csv"]


def are_numbers(text: str) -> bool:
    """Whether a text is a number, or several numbers separated by blanks."""
    return _NUMBERS.fullmatch(text) is not None


def quoted(text: str) -> str:
    """A text as a cell that no spreadsheet runs: a formula is prefixed with an apostrophe. Numbers are not changed."""
    return f"'{text}" if _FORMULA.match(text) and not are_numbers(text) else text


def unquoted(cell: str) -> str:
    """The text of a cell made by `quoted`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table of texts atomically, with a header line; UTF-8."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([quoted(cell) for cell in row] for row in rows)
    write_atomic(path, text.getvalue())
