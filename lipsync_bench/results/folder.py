# SPDX-License-Identifier: Apache-2.0
"""A results folder, as `bench evaluate` leaves it: the one place that knows what lies where in it and how it is read.

    clips*.csv             rows, one file for each process            leaderboard.csv    derived from them
    manifest.json          what they were measured with               targets/           prepared target videos
    videos/, features/     kept videos, and FID's features, of rows

Tables come with their texts as texts ("" where a cell is empty) and with NaN, or NA of ranks, for a missing number.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from lipsync_bench.metrics.registry import CLIP_COLUMNS
from lipsync_bench.results import csv_tables
from lipsync_bench.results.leaderboard import COUNTS, GROUPS, HEAD, NUMBERS, RANKS, leaderboard, read_leaderboard
from lipsync_bench.results.manifest import MANIFEST, read_identity, read_manifest
from lipsync_bench.results.rows import BOARD, CURVES, FIELDS, IDENTITY, INPUTS, ROWS, SCORERS, read_rows

_TEXTS = (*IDENTITY, *INPUTS, *CURVES, *SCORERS, "speaker", "status", "reason", "package_version", *GROUPS)
_FLOATS = (*(column.name for column in CLIP_COLUMNS), "frames", "generate_seconds")
_NEEDED = (*HEAD[:4], "generator_sha256", "paste", "lse_sha256", "expert_sha256", "package_version")

__all__ = ["ResultsFolder", "read_board", "read_table", "with_texts"]


def with_texts(table: pd.DataFrame) -> pd.DataFrame:
    """Rows or a leaderboard with text cells as text, the empty ones too."""
    texts = [name for name in _TEXTS if name in table]
    return table.assign(**{name: table[name].astype(object).fillna("").astype(str) for name in texts})


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    return with_texts(table.astype({name: "Int64" for name in RANKS if name in table}))


def read_table(path: Path) -> pd.DataFrame:
    """The rows or the leaderboard in a CSV file.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is no CSV, or has something else where a number should be.
    """
    table = csv_tables.read_table(
        path,
        "clips.csv or leaderboard.csv",
        "Name another, or make it anew with: bench evaluate",
        texts=_TEXTS,
        numbers=[name for name in dict.fromkeys((*FIELDS, *NUMBERS)) if name not in (*_TEXTS, *COUNTS)],
        counts=COUNTS,
        exact=True,
    )
    return _typed(table)


def read_board(path: Path) -> pd.DataFrame:
    """A leaderboard.csv, of an older version too: columns of metrics that it does not have are missing.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is something else.
    """
    board = _typed(read_leaderboard(path))
    missing = [name for name in _NEEDED if name not in board]
    if missing or board.empty:
        found = f"has no column {', '.join(missing)}" if missing else "has no line"
        raise ValueError(
            f"{path} {found}. Expected a leaderboard.csv as written by: bench evaluate. "
            "Remove the file where its rows lie beside it: it is derived anew from them"
        )
    return board


class ResultsFolder:
    """What lies in a results folder; read anew with each call.

    Args:
        path: The folder. It need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def row_files(self) -> list[Path]:
        """The files with its rows."""
        return sorted(self.path.glob(ROWS))

    @property
    def board_file(self) -> Path:
        """Where its leaderboard is, if it has one."""
        return self.path / BOARD

    @property
    def videos(self) -> Path:
        """Where kept videos are; see `evaluation.videos.video_path`."""
        return self.path / "videos"

    @property
    def unprepared_file(self) -> Path:
        """Where the target videos are listed of which no clip could be made."""
        return self.path / "targets" / "failures.csv"

    @property
    def is_begun(self) -> bool:
        """Whether an evaluation has left rows or a leaderboard."""
        return self.board_file.is_file() or bool(self.row_files)

    @property
    def board_is_current(self) -> bool:
        """Whether there is a leaderboard that is not older than the rows: a killed run leaves an older one."""
        if not self.board_file.is_file():
            return False
        written = self.board_file.stat().st_mtime_ns
        return all(written >= file.stat().st_mtime_ns for file in self.row_files)

    def rows(self) -> pd.DataFrame:
        """All rows in a stable order, as `read_rows` gives them. Raises as that."""
        rows = with_texts(read_rows(self.path))
        return rows.assign(**{name: rows[name].astype(float) for name in _FLOATS})

    def board(self) -> pd.DataFrame:
        """The leaderboard; derived from the rows where there is none or an older one, and then without FID.

        Raises:
            FileNotFoundError: There are neither rows nor a leaderboard.
            ValueError: A file is not in order.
        """
        return read_board(self.board_file) if self.board_is_current else with_texts(leaderboard(self.rows()))

    def manifest(self) -> dict[str, Any] | None:
        """The manifest; None without one. Raises as `read_manifest`."""
        return read_manifest(self.path) if (self.path / MANIFEST).is_file() else None

    def identity(self) -> dict[str, Any]:
        """What all rows have in common, of manifests of all versions; empty without one. Raises as `read_identity`."""
        return read_identity(self.path) if (self.path / MANIFEST).is_file() else {}
