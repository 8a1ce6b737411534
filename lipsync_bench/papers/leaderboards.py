# SPDX-License-Identifier: Apache-2.0
"""Our leaderboards as columns beside a paper's."""

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from lipsync_bench.papers.comparable import Measured, comparability, known_protocol, name_in_papers
from lipsync_bench.papers.printed.paper_metrics import PAPER_METRICS
from lipsync_bench.papers.printed.paper_table import PaperRow, PaperTable
from lipsync_bench.papers.scores import IDENTITY, Score, ScoreSource, Verdict
from lipsync_bench.results.folder import ResultsFolder, read_board
from lipsync_bench.results.rows import BOARD

__all__ = ["LeaderboardSource", "WeightsInUse", "methods_in", "read_folders", "read_sources"]

_NETWORKS = {"lse": "SyncNet", "lpips_alex": "AlexNet", "fid": "Inception"}  # by the name of their weights in rows
_UINT8 = Verdict(
    False,
    "PSNR uint8 is not a PSNR and does not compare methods: it is the 8-bit arithmetic of ATVGnet's script, whose "
    "squared differences wrap around at 256, so that it stays near 28 to 35 dB however bad the image. It may explain "
    "the paper's PSNR; the paper does not say so.",
)

WeightsInUse = Mapping[str, str]
"""By method: SHA-256 of the weights in use, "" for videos."""

_log = logging.getLogger(__name__)


class LeaderboardSource(ScoreSource):
    """The entries of one protocol in one leaderboard.

    Args:
        board: As returned by `results.leaderboard.leaderboard`, of one protocol and one set of metric networks.
        place: Where it was read.
        dataset: Our name of the data set; empty if not known.
        split: The split; empty if not known.
        boxes: The detector that cut the faces; empty if not known.

    Raises:
        ValueError: Two entries have the same method, or a metric was computed by two networks.
    """

    def __init__(self, board: pd.DataFrame, place: str, dataset: str = "", split: str = "", boxes: str = "") -> None:
        methods = [str(name) for name in board["method"]]
        doubled = sorted({name for name in methods if methods.count(name) > 1})
        if doubled:
            entries = board[board["method"] == doubled[0]]
            made = "; ".join(map(_how, entries.to_dict("records")))
            raise ValueError(
                f"{place} has {len(entries)} entries for {doubled[0]} ({made}). Expected one. Evaluate each into "
                "its own folder with: bench evaluate --out DIR"
            )
        self._networks = {name: _hashes(board, f"{name}_sha256") for name in _NETWORKS}
        for name, found in self._networks.items():
            if " " in found:
                raise ValueError(
                    f"{place} was scored by several {_NETWORKS[name]}s: {found}. Expected one. Give one results folder "
                    "with --results"
                )
        self._entries = {str(entry["method"]): entry for _, entry in board.iterrows()}
        self._place, self._dataset, self._split, self._boxes = place, dataset, split, boxes
        self._in_papers = name_in_papers(dataset)
        self._protocol = str(board["protocol"].iloc[0])
        self._rules = known_protocol(self._protocol)
        self._tried = int((board["clips"] + board["failures"]).max())
        versions = " ".join(sorted({v for text in board["package_version"] for v in str(text).split()}))
        networks = "".join(f"; {_NETWORKS[name]} {sha256[:12]}" for name, sha256 in self._networks.items() if sha256)
        what = f"{dataset} ({split})" if dataset else "an unknown data set"
        super().__init__(
            f"{self._protocol}, {dataset or place}",
            f"{place}, protocol {self._protocol}, on {what}, {self._tried} clips; lipsync_bench {versions}{networks}.",
            tuple(methods),
            "clips",
        )

    def qualify(self) -> None:
        """Add its place to the heading, if another source has the same protocol and data set."""
        self.heading += f" ({self._place})"

    def covers(self, table: PaperTable, row: PaperRow) -> bool:
        """Whether the row is of this source's data set; True if the table does not have that data set."""
        return self._in_papers not in table.datasets or row.dataset == self._in_papers

    def score(self, table: PaperTable, row: PaperRow, metric: str) -> Score | None:
        """Mean and interval of the row's method; for FID the value of all clips together."""
        facts = PAPER_METRICS[metric]
        score = self._read(row.name, facts.column_of(table.paper.key, row.dataset), facts.pooled)
        if score is None:
            return None
        scored = int(self._entries[row.name]["clips"]) if facts.pooled else score.n
        sha256 = self._networks.get(facts.network, "")
        ours = Measured(
            self._dataset,
            self._in_papers,
            self._split,
            score.tried,
            scored,
            self._protocol,
            self._rules,
            sha256,
            self._boxes,
            str(self._entries[row.name].get("published") or "").removeprefix("no: ").removeprefix("yes"),
        )
        return replace(score, verdict=comparability(table, row, metric, ours))

    def diagnostic(self, row: PaperRow, metric: str) -> Score | None:
        """PSNR in wrapping 8-bit arithmetic, for PSNR."""
        return self._read(row.name, PAPER_METRICS[metric].diagnostic)

    def _read(self, name: str, column: str, pooled: bool = False) -> Score | None:
        """The entry's value, with the diagnostic's verdict."""
        entry = self._entries.get(name)
        if entry is None or not column or column not in entry.index:
            return None
        value, low, high, count = (float(entry[column + suffix]) for suffix in ("", "_low", "_high", "_n"))
        if math.isnan(value) and not count > 0:  # a metric that only another entry of the file has
            return None
        tried = int(entry["clips"] + entry["failures"])
        identity = {name: str(entry.get(name, "")) for name in IDENTITY}
        identity |= {"place": self._place, "protocol": self._protocol}
        return Score(value, low, high, int(count), tried, _UINT8, identity, pooled)


def _hashes(board: pd.DataFrame, column: str) -> str:
    """All values of a column, separated by blanks; leaderboards of older versions have fewer columns."""
    return " ".join(sorted({str(sha256) for sha256 in board.get(column, ()) if sha256}))


def _how(entry: Mapping[Any, Any]) -> str:
    """Weights and recipe of an entry, in words."""
    fed = entry.get("recipe_text") or f"pasted by {entry['paste'] or '-'}"
    return f"weights {entry['generator_sha256'][:12] or 'none'}, {fed}"


def _split(board: pd.DataFrame, place: str, identity: Mapping[str, Any]) -> list[LeaderboardSource]:
    known = [str(identity.get(name, "")) for name in ("dataset", "split", "boxes")]
    return [LeaderboardSource(entries, place, *known) for _, entries in board.groupby("protocol", sort=True)]


def methods_in(folder: Path) -> frozenset[str]:
    """The methods in a results folder; none if there is no such folder. Errors as in `read_sources`."""
    results = ResultsFolder(folder)
    return frozenset(results.board()["method"]) if results.is_begun else frozenset()


def _in_use(board: pd.DataFrame, folder: Path, current: WeightsInUse) -> pd.DataFrame:
    """The leaderboard without entries of weights that are no longer in use."""
    made = board[["method", "generator_sha256"]]
    keep = [current.get(name, sha256) == sha256 for name, sha256 in made.itertuples(index=False)]
    if not all(keep):
        others = sorted({name for name, kept in zip(made["method"], keep, strict=True) if not kept})
        _log.info("%s also has rows of other weights of %s; not shown", folder, ", ".join(others))
    return board.loc[keep]  # may be empty


def _of_folder(folder: Path, current: WeightsInUse) -> list[LeaderboardSource]:
    results = ResultsFolder(folder)
    board = results.board()
    if board.empty:  # a run that was stopped before its first clip
        _log.warning("%s has no row yet; not shown", folder)
        return []
    return _split(_in_use(board, folder, current), str(folder), results.identity())


def read_folders(folders: Iterable[tuple[Path, WeightsInUse]]) -> tuple[LeaderboardSource, ...]:
    """One source for each protocol in each results folder.

    Args:
        folders: Each with the weights in use: entries of the same method with other weights are left out.

    Raises:
        ValueError: As `read_sources`.
    """
    return _with_unique_headings([source for folder, current in folders for source in _of_folder(folder, current)])


def _with_unique_headings(sources: list[LeaderboardSource]) -> tuple[LeaderboardSource, ...]:
    headings = [source.heading for source in sources]
    for source in [s for s in sources if headings.count(s.heading) > 1]:
        source.qualify()
    return tuple(sources)


def read_sources(path: Path) -> tuple[LeaderboardSource, ...]:
    """One source for each protocol in a results folder, in each results folder right below, or in a leaderboard.csv.

    Raises:
        FileNotFoundError: There are no results.
        ValueError: A file is not a leaderboard or manifest; a leaderboard is ambiguous.
    """
    if path.is_file():  # in a results folder the manifest beside it names the data set; a merged one has none
        known = ResultsFolder(path.parent).identity() if path.name == BOARD else {}
        return _with_unique_headings(_split(read_board(path), str(path), known))
    below = sorted(child for child in path.iterdir() if child.is_dir()) if path.is_dir() else []
    folders = [path] if ResultsFolder(path).is_begun else [child for child in below if ResultsFolder(child).is_begun]
    if not folders:
        raise FileNotFoundError(
            f"{path} holds no results. Expected a folder with leaderboard.csv or clips.csv, or such folders in it. "
            "Make one with: bench evaluate --out DIR, or print only the paper's values with --paper-only"
        )
    return read_folders((folder, {}) for folder in folders)
