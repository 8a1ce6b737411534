# SPDX-License-Identifier: Apache-2.0
"""Leaderboards of ours as columns beside a paper's."""

import json
import math
from pathlib import Path

import pandas as pd

from lipsync_bench.evaluation.leaderboard import leaderboard
from lipsync_bench.evaluation.rows import ROWS, read_rows
from lipsync_bench.tables.paper_metrics import PAPER_METRICS
from lipsync_bench.tables.paper_table import PaperRow, PaperTable
from lipsync_bench.tables.rules import DATASETS, Measured, judge
from lipsync_bench.tables.sources import Score, Source

__all__ = ["LeaderboardSource", "read_sources"]

BOARD = "leaderboard.csv"
_TEXTS = ("protocol", "method", "generator_sha256", "paste", "lse_sha256", "expert_sha256", "package_version")
_NEEDED = ("protocol", "method", "clips", "failures")


class LeaderboardSource(Source):
    """The lines of one protocol in one leaderboard.

    Args:
        board: As `evaluation.leaderboard.leaderboard` makes it, of one protocol and one scorer.
        place: Where it was read.
        dataset: Our name of the data set; empty if not known.
        split: Its part; empty if not known.

    Raises:
        ValueError: Two lines have one method, or two scorers judged.
    """

    def __init__(self, board: pd.DataFrame, place: str, dataset: str = "", split: str = "") -> None:
        methods = [str(name) for name in board["method"]]
        doubled = sorted({name for name in methods if methods.count(name) > 1})
        if doubled:
            lines = board[board["method"] == doubled[0]]
            made = "; ".join(f"weights {w[:12] or 'none'} pasted by {p or '-'}" for w, p in _pairs(lines))
            raise ValueError(
                f"{place} has {len(lines)} lines for {doubled[0]} ({made}). Expected one. Evaluate each into "
                "a folder of its own with: bench evaluate --out DIR"
            )
        self._scorer = " ".join(sorted({str(sha) for sha in board["lse_sha256"] if sha}))
        if " " in self._scorer:
            raise ValueError(
                f"{place} was judged by several SyncNets: {self._scorer}. Expected one. Give one results folder with "
                "--results"
            )
        self._lines = {str(line["method"]): line for _, line in board.iterrows()}
        self._place, self._dataset, self._split = place, dataset, split
        self._protocol = str(board["protocol"].iloc[0])
        self._tried = int((board["clips"] + board["failures"]).max())
        versions = " ".join(sorted({v for text in board["package_version"] for v in str(text).split()}))
        scorer = f"; SyncNet {self._scorer[:12]}" if self._scorer else ""
        what = f"{dataset} ({split})" if dataset else "a data set that is not named there"
        super().__init__(
            f"{self._protocol}, {dataset or place}",
            f"{place}, protocol {self._protocol}, on {what}, {self._tried} clips; lipsync_bench {versions}{scorer}.",
            tuple(methods),
            "clips",
        )

    def qualify(self) -> None:
        """Tell it from another source of the same protocol and data set."""
        self.heading += f" ({self._place})"

    def covers(self, table: PaperTable, row: PaperRow) -> bool:
        """Of several data sets its own, if it is one of them; else all."""
        own = DATASETS.get(self._dataset, self._dataset)
        return own not in table.datasets or row.dataset == own

    def score(self, table: PaperTable, row: PaperRow, metric: str) -> Score | None:
        """Mean and interval of the row's name."""
        column = PAPER_METRICS[metric].column
        line = self._lines.get(row.name)
        if line is None or not column or column not in line.index:
            return None
        tried = int(line["clips"] + line["failures"])
        value, low, high, count = (float(line[column + suffix]) for suffix in ("", "_low", "_high", "_n"))
        if math.isnan(value) and not count > 0:  # a metric that another line of the file has
            return None
        n = int(count)
        measured = Measured(self._dataset, self._split, tried, n, self._protocol, self._scorer)
        identity = {name: str(line[name]) for name in _TEXTS[2:]}
        identity |= {"place": self._place, "protocol": self._protocol}
        verdict = judge(table, row, metric, measured)
        return Score(value, low, high, n, tried, verdict, identity)


def _pairs(lines: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(lines["generator_sha256"], lines["paste"], strict=True))


def _read_board(path: Path) -> pd.DataFrame:
    board = pd.read_csv(path, dtype=dict.fromkeys(_TEXTS, str))
    missing = [name for name in (*_NEEDED, *_TEXTS) if name not in board]
    if missing or board.empty:
        found = f"has no column {', '.join(missing)}" if missing else "has no line"
        raise ValueError(f"{path} {found}. Expected a leaderboard.csv as written by: bench evaluate")
    return board


def _board(folder: Path) -> pd.DataFrame:
    """The leaderboard of a results folder, derived anew where its rows are younger: a killed run leaves it behind."""
    board, rows = folder / BOARD, list(folder.glob(ROWS))
    if board.is_file() and all(board.stat().st_mtime_ns >= file.stat().st_mtime_ns for file in rows):
        return _read_board(board)
    return leaderboard(read_rows(folder))


def _identity(folder: Path) -> tuple[str, str]:
    path = folder / "manifest.json"
    if not path.is_file():
        return "", ""
    try:
        identity = json.loads(path.read_text(encoding="utf-8"))["identity"]
        return str(identity.get("dataset", "")), str(identity.get("split", ""))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path} is no manifest ({error!r}). Expected the one that bench evaluate writes; evaluate again with --out"
        ) from error


def _split(board: pd.DataFrame, place: str, dataset: str = "", split: str = "") -> list[LeaderboardSource]:
    board = board.copy()
    texts = [name for name in _TEXTS if name in board]
    board[texts] = board[texts].fillna("").astype(str)
    return [LeaderboardSource(lines, place, dataset, split) for _, lines in board.groupby("protocol", sort=True)]


def _is_results(folder: Path) -> bool:
    return (folder / BOARD).is_file() or any(folder.glob(ROWS))


def read_sources(path: Path) -> tuple[LeaderboardSource, ...]:
    """One source for each protocol in a results folder, in each results folder right below, or in a leaderboard.csv.

    Raises:
        FileNotFoundError: Nothing there.
        ValueError: A file is no leaderboard or manifest; a leaderboard is ambiguous.
    """
    if path.is_file():  # a merged one names no data set; one in its results folder has the manifest beside it
        known = _identity(path.parent) if path.name == BOARD else ("", "")
        sources = _split(_read_board(path), str(path), *known)
    else:
        below = sorted(child for child in path.iterdir() if child.is_dir()) if path.is_dir() else []
        folders = [path] if path.is_dir() and _is_results(path) else [child for child in below if _is_results(child)]
        if not folders:
            raise FileNotFoundError(
                f"{path} holds no results. Expected a folder with leaderboard.csv or clips.csv, or such folders in it. "
                " Make one with: bench evaluate --out DIR, or see the paper's side alone with --paper-only"
            )
        sources = [source for folder in folders for source in _split(_board(folder), str(folder), *_identity(folder))]
    headings = [source.heading for source in sources]
    for source in [s for s in sources if headings.count(s.heading) > 1]:
        source.qualify()
    return tuple(sources)
