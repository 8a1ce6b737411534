# SPDX-License-Identifier: Apache-2.0
"""The content of a results folder, read once for all pages."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lipsync_bench.metrics.metric import Column
from lipsync_bench.metrics.registry import CLIP_COLUMNS, RANKED
from lipsync_bench.report.names import slugs
from lipsync_bench.results.csv_tables import read_cells
from lipsync_bench.results.folder import ResultsFolder
from lipsync_bench.results.rows import ENTRY, GROUND_TRUTH, REPEATED_FRAME

Key = tuple[str, str, str, str, str]

__all__ = ["Entry", "Key", "Results", "Unprepared", "matrix", "read_results", "seconds_a_frame"]


@dataclass(frozen=True)
class Entry:
    """One entry of the leaderboard.

    Args:
        key: Protocol, method, SHA-256 of the weights ("" without), way of pasting, digest of the recipe.
        label: The method; with weights, pasting and recipe if a protocol has several entries of it.
        slug: A unique name that is safe in paths.
        number: Position among the entries of its protocol, which chooses its colour and marker.
    """

    key: Key
    label: str
    slug: str
    number: int

    @property
    def protocol(self) -> str:
        """Name and version."""
        return self.key[0]

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.key[1]

    @property
    def sha256(self) -> str:
        """SHA-256 of the method's weights; empty without."""
        return self.key[2]

    @property
    def paste(self) -> str:
        """How the face was pasted."""
        return self.key[3]

    @property
    def is_reference(self) -> bool:
        """Whether it is the real video against itself, the reference value of each metric."""
        return self.method == GROUND_TRUTH

    @property
    def is_repeated_frame(self) -> bool:
        """Whether it is the trivial baseline."""
        return self.method == REPEATED_FRAME


@dataclass(frozen=True)
class Unprepared:
    """A target video that could not be prepared.

    Args:
        video: Its path, or its id.
        reason: The reason.
    """

    video: str
    reason: str


@dataclass(frozen=True)
class Results:
    """The content of all pages.

    Args:
        folder: The results folder.
        rows: As of `ResultsFolder.rows`, but `audio_clip` is never empty, and `seconds_a_frame` is what a frame took
            the method or its command; NaN for videos that were made before.
        board: The leaderboard.
        manifest: None if the folder has none.
        unprepared: Targets that could not be prepared.
        entries: Entries by key.
        clips: Slug by clip id.
    """

    folder: ResultsFolder
    rows: pd.DataFrame
    board: pd.DataFrame
    manifest: Mapping[str, Any] | None
    unprepared: Sequence[Unprepared]
    entries: Mapping[Key, Entry]
    clips: Mapping[str, str]

    @property
    def protocols(self) -> list[str]:
        """All protocols, sorted."""
        return sorted({entry.protocol for entry in self.entries.values()})

    def entries_of(self, protocol: str) -> list[Entry]:
        """The entries of a protocol, the reference last."""
        own = [entry for entry in self.entries.values() if entry.protocol == protocol]
        return sorted(own, key=lambda entry: (entry.is_reference, entry.number))

    def rows_of(self, protocol: str) -> pd.DataFrame:
        """The rows of a protocol."""
        return self.rows[self.rows["protocol"] == protocol]

    def board_of(self, protocol: str) -> dict[Key, dict[str, Any]]:
        """The leaderboard's numbers of a protocol, by entry."""
        own = self.board[self.board["protocol"] == protocol]
        return {_key(entry): entry for entry in own.to_dict("records")}

    def columns(self, protocol: str) -> list[Column]:
        """The metrics in the leaderboard of this protocol: those with a value."""
        own = self.board[self.board["protocol"] == protocol]
        return [c for c in RANKED if c.name in own and own[c.name].notna().any()]

    def clip_columns(self, protocol: str) -> list[Column]:
        """The metrics in the rows of this protocol: those with a value per clip."""
        rows = self.rows_of(protocol)
        return [c for c in CLIP_COLUMNS if c in RANKED and rows[c.name].notna().any()]

    def network_hashes(self, protocol: str, field: str) -> list[str]:
        """SHA-256 of a metric network's weights, by the name of the row field."""
        return sorted({str(sha) for sha in self.rows_of(protocol)[field] if sha})

    @property
    def dataset(self) -> str:
        """The data set in the manifest; empty if not known."""
        return str((self.manifest or {}).get("identity", {}).get("dataset", ""))


def _key(entry: Mapping[Any, Any]) -> Key:
    protocol, method, sha256, paste, recipe = (str(entry[name]) for name in ENTRY)
    return protocol, method, sha256, paste, recipe


def _entries(keys: Sequence[Key]) -> dict[Key, Entry]:
    names = slugs(["\n".join(key) for key in keys])
    methods = [(key[0], key[1]) for key in keys]
    numbers: dict[str, int] = {}
    out = {}
    for key in sorted(keys):
        protocol, method, sha256, paste, recipe = key
        doubled = methods.count((protocol, method)) > 1
        details = (sha256[:12] or "no weights", *filter(None, (paste, recipe)))
        label = f"{method} ({', '.join(details)})" if doubled else method
        number = numbers.setdefault(protocol, 0)
        if method != GROUND_TRUTH:
            numbers[protocol] += 1
        out[key] = Entry(key, label, names["\n".join(key)], number)
    return out


def _unprepared(path: Path) -> list[Unprepared]:
    if not path.is_file():
        return []
    header, *cells = read_cells(path, "the list of targets that failed", "Remove it, or evaluate again")
    rows = [dict(zip(header, own, strict=True)) for own in cells]
    return [
        Unprepared(
            row.get("source") or row.get("video") or row.get("id") or "",
            ": ".join(filter(None, (row.get("error"), row.get("reason")))),
        )
        for row in rows
    ]


def read_results(folder: Path) -> Results:
    """Read a results folder.

    Raises:
        FileNotFoundError: It holds no rows.
        ValueError: A file in it is damaged or of another version.
    """
    found = ResultsFolder(folder)
    rows = found.rows()
    if rows.empty:
        raise FileNotFoundError(
            f"{folder} has no rows. Expected at least one row in clips.csv. Resume the run: bench evaluate"
        )
    rows["audio_clip"] = np.where(rows["audio_clip"] == "", rows["clip"], rows["audio_clip"])
    ours = (rows["prediction_sha256"] == "") & (rows["generate_seconds"] > 0)  # else the time that reading a file took
    took = rows["command_seconds"].fillna(rows["generate_seconds"].where(ours))
    rows["seconds_a_frame"] = (took / rows["frames"]).where((took > 0) & (rows["frames"] > 0))
    keys = sorted({_key(entry) for entry in rows[list(ENTRY)].drop_duplicates().to_dict("records")})
    return Results(
        found,
        rows,
        found.board(),
        found.manifest(),
        _unprepared(found.unprepared_file),
        _entries(keys),
        slugs(rows["clip"]),
    )


def seconds_a_frame(rows: pd.DataFrame) -> dict[Key, float]:
    """Mean over all frames of each entry; entries without times are missing."""
    timed = rows[(rows["status"] == "ok") & (rows["seconds_a_frame"] > 0)]
    sums = timed.assign(took=timed["seconds_a_frame"] * timed["frames"]).groupby(list(ENTRY))[["frames", "took"]].sum()
    return {key: float(entry["took"] / entry["frames"]) for key, entry in sums.iterrows()}


def matrix(rows: pd.DataFrame, entries: Sequence[Entry], pairs: Sequence[tuple[str, str]], name: str) -> np.ndarray:
    """One metric as (pairs of clip and audio, entries), NaN where there is no value."""
    out = np.full((len(pairs), len(entries)), math.nan)
    place = {pair: i for i, pair in enumerate(pairs)}
    column = {entry.key: j for j, entry in enumerate(entries)}
    keys = list(zip(*(rows[n] for n in ENTRY), strict=True))
    i = [place[pair] for pair in zip(rows["clip"], rows["audio_clip"], strict=True)]
    j = [column[key] for key in keys]
    out[i, j] = rows[name].to_numpy(dtype=float)
    return out
