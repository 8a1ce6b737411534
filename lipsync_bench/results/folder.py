# SPDX-License-Identifier: Apache-2.0
"""A results folder, as `bench evaluate` writes it: the only module that knows its files and how they are read.

    clips*.csv             rows, one file for each process            leaderboard.csv    derived from them
    manifest.json          what they were measured with               targets/           prepared target videos
    videos/, features/     saved videos, and FID's features, of rows
    generated/             videos that commands of other repositories made, with their logs
    ground_truth/          what detectors found in the real videos, for each clip

In tables an empty text cell is "", a missing number NaN, and a missing rank NA.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from lipsync_bench.metrics.registry import CLIP_COLUMNS
from lipsync_bench.results import csv_tables
from lipsync_bench.results.leaderboard import COUNTS, GROUPS, HEAD, NEWER, NUMBERS, RANKS, leaderboard, read_leaderboard
from lipsync_bench.results.manifest import MANIFEST, read_identity, read_manifest
from lipsync_bench.results.rows import BOARD, FIELDS, ROWS, TEXTS, read_rows

_TEXTS = (*TEXTS, "status", *GROUPS, *NEWER)
_FLOATS = (*(column.name for column in CLIP_COLUMNS), "frames", "generate_seconds", "command_seconds")
_NEEDED = (*HEAD[:4], "generator_sha256", "paste", "lse_sha256", "expert_sha256", "package_version")

__all__ = ["ResultsFolder", "read_board", "read_table", "with_texts"]


def with_texts(table: pd.DataFrame) -> pd.DataFrame:
    """Rows or a leaderboard with all text cells as text, empty ones as ""."""
    texts = [name for name in _TEXTS if name in table]
    return table.assign(**{name: table[name].astype(object).fillna("").astype(str) for name in texts})


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    return with_texts(table.astype({name: "Int64" for name in RANKS if name in table}))


def read_table(path: Path) -> pd.DataFrame:
    """The rows or the leaderboard in a CSV file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not CSV, or a number is something else.
    """
    table = csv_tables.read_table(
        path,
        "clips.csv or leaderboard.csv",
        "Name another, or write it again with: bench evaluate",
        texts=_TEXTS,
        numbers=[name for name in dict.fromkeys((*FIELDS, *NUMBERS)) if name not in (*_TEXTS, *COUNTS)],
        counts=COUNTS,
        exact=True,
    )
    return _typed(table)


def read_board(path: Path) -> pd.DataFrame:
    """A leaderboard.csv, also of an older version, which lacks the columns of newer metrics.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else.
    """
    board = _typed(read_leaderboard(path))
    missing = [name for name in _NEEDED if name not in board]
    if missing or board.empty:
        found = f"has no column {', '.join(missing)}" if missing else "has no entry"
        raise ValueError(
            f"{path} {found}. Expected a leaderboard.csv as written by: bench evaluate. "
            "If its rows are beside it, remove the file: it is derived again from them"
        )
    return board


class ResultsFolder:
    """The contents of a results folder; every call reads the files again.

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
        """The path of its leaderboard, which may not exist."""
        return self.path / BOARD

    @property
    def videos(self) -> Path:
        """The folder of saved videos; see `evaluation.videos.video_path`."""
        return self.path / "videos"

    def found_file(self, clip: str) -> Path:
        """What detectors found in a clip's real video, which may not exist; see `evaluation.target.chunks`."""
        return self.path / "ground_truth" / f"{clip}.npz"

    @property
    def unprepared_file(self) -> Path:
        """The list of target videos that could not be prepared."""
        return self.path / "targets" / "failures.csv"

    @property
    def is_begun(self) -> bool:
        """Whether an evaluation has written rows or a leaderboard."""
        return self.board_file.is_file() or bool(self.row_files)

    @property
    def board_is_current(self) -> bool:
        """Whether there is a leaderboard that is not older than the rows: after a killed run it is older."""
        if not self.board_file.is_file():
            return False
        written = self.board_file.stat().st_mtime_ns
        return all(written >= file.stat().st_mtime_ns for file in self.row_files)

    def rows(self) -> pd.DataFrame:
        """All rows in a stable order, as returned by `read_rows`, with its errors."""
        rows = with_texts(read_rows(self.path))
        return rows.assign(**{name: rows[name].astype(float) for name in _FLOATS})

    def board(self) -> pd.DataFrame:
        """The leaderboard; if it is missing or older than the rows, derived from them, without FID.

        Raises:
            FileNotFoundError: There are neither rows nor a leaderboard.
            ValueError: A file is damaged or of another version.
        """
        return read_board(self.board_file) if self.board_is_current else with_texts(leaderboard(self.rows()))

    def manifest(self) -> dict[str, Any] | None:
        """The manifest; None without one. Errors as in `read_manifest`."""
        return read_manifest(self.path) if (self.path / MANIFEST).is_file() else None

    def identity(self) -> dict[str, Any]:
        """What all rows share, from a manifest of any version; empty without one. Errors as in `read_identity`."""
        return read_identity(self.path) if (self.path / MANIFEST).is_file() else {}
