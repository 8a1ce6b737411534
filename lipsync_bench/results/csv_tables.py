# SPDX-License-Identifier: Apache-2.0
"""CSV files as tables. A line with another number of cells, or a cell of another type, is an error that names it."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from lipsync_bench.datamodules.files.csv_files import quoted, unquoted
from lipsync_bench.datamodules.files.texts import CSV_BYTES, TextError, flat, read_text

__all__ = ["csv_text", "read_cells", "read_table"]


def _refused(path: Path, found: str, expected: str, repair: str) -> TextError:
    return TextError(f"{path}: {found}. Expected {expected}. {repair}")


def _cells(path: Path, text: str, expected: str, repair: str) -> Iterator[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    try:
        for row in reader:
            if not header and row:
                header = row
                doubled = sorted({name for name in header if header.count(name) > 1})[:3]
                if doubled:
                    raise _refused(path, f"two columns are called {', '.join(map(repr, doubled))}", expected, repair)
            if row and len(row) != len(header):
                found = f"line {reader.line_num} has {len(row)} cells, the header {len(header)}"
                raise _refused(path, found, expected, repair)
            if row:
                yield row
    except csv.Error as error:
        raise _refused(path, f"line {reader.line_num} is not CSV ({error})", expected, repair) from error
    if not header:
        raise _refused(path, "has no header", expected, repair)


def read_cells(path: Path, expected: str, repair: str, *, growing: bool = False) -> Iterator[list[str]]:
    """The header of a CSV file and its lines as texts, all with as many cells. Blank lines are skipped.

    Args:
        path: The file.
        expected: What it should hold, for messages.
        repair: What to do about another file, for messages.
        growing: As for `read_text`.

    Raises:
        FileNotFoundError, TextError: As `read_text`; or it is not CSV with a constant number of cells, or empty.
    """
    cells = _cells(path, read_text(path, expected, repair, CSV_BYTES, growing=growing), expected, repair)
    yield next(cells)
    for row in cells:
        yield [unquoted(cell) for cell in row]


def _first(bad: pd.Series, column: pd.Series) -> str:
    """Line and content of the first bad cell; line 1 is the header."""
    return f"line {int(bad.to_numpy().argmax()) + 2} has {str(column[bad].iloc[0])[:40]!r}"


def read_table(
    path: Path,
    expected: str,
    repair: str,
    *,
    texts: Iterable[str] = (),
    numbers: Iterable[str] = (),
    counts: Iterable[str] = (),
    filled: Sequence[str] = (),
    growing: bool = False,
    exact: bool = False,
) -> pd.DataFrame:
    """A CSV file; empty cells are missing values.

    Args:
        path: The file.
        expected: What it should hold, for messages.
        repair: What to do about another file, for messages.
        texts: Columns of texts, as `csv_files.quoted` writes them. Absent columns are ignored, here and below.
        numbers: Columns of numbers, or missing values.
        counts: Columns of whole numbers from 0 on, or missing values.
        filled: Columns that must exist and have no missing value.
        growing: As for `read_text`.
        exact: Read numbers to the last bit, which takes longer.

    Raises:
        FileNotFoundError, TextError: As `read_cells`; or a column is missing or holds something else.
    """
    text = read_text(path, expected, repair, CSV_BYTES, growing=growing)
    for _ in _cells(path, text, expected, repair):
        pass
    texts = tuple(texts)
    try:
        table = pd.read_csv(
            io.StringIO(text),
            dtype=dict.fromkeys(texts, str),
            keep_default_na=False,
            na_values=[""],
            float_precision="round_trip" if exact else None,
            low_memory=False,
            index_col=False,
        )
    except (ValueError, OverflowError) as error:  # pandas' errors of reading are ValueErrors
        raise _refused(path, f"cannot be read as CSV ({flat(error)})", expected, repair) from error
    missing = [name for name in filled if name not in table]
    if missing:
        raise _refused(path, f"has no column {', '.join(missing)}", expected, repair)
    for name in filled:
        if table[name].isna().any():
            line = int(table[name].isna().to_numpy().argmax()) + 2
            raise _refused(path, f"line {line} has an empty cell in the column {name}", expected, repair)
    for name in [name for name in texts if name in table]:
        table[name] = table[name].map(unquoted, na_action="ignore")
    counts = tuple(counts)
    for name in [name for name in (*numbers, *counts) if name in table]:
        values = pd.to_numeric(table[name].map(_number, na_action="ignore"), errors="coerce").astype(float)
        bad = values.isna() & table[name].notna() & (table[name].astype(str).str.strip().str.lower() != "nan")
        if name in counts:
            bad |= values.notna() & ~(values.between(0, 2**53) & (values % 1 == 0))
        if bad.any():
            kind = "whole number from 0 on" if name in counts else "number"
            raise _refused(path, f"{_first(bad, table[name])} in the column {name}, not a {kind}", expected, repair)
        if table[name].dtype == object:
            table[name] = values
    return table


def _number(cell: object) -> object:
    """The cell; booleans, which would count as 1 and 0, and integers larger than any float as text."""
    large = isinstance(cell, int) and abs(cell) > 1e300
    return str(cell) if isinstance(cell, bool) or large else cell


def csv_text(table: pd.DataFrame) -> str:
    """A table as CSV, with texts quoted so that no spreadsheet runs them."""
    texts = [name for name in table if not pd.api.types.is_numeric_dtype(table[name])]
    cells = {name: table[name].map(lambda cell: quoted(cell) if isinstance(cell, str) else cell) for name in texts}
    return table.assign(**cells).to_csv(index=False, lineterminator="\n")
