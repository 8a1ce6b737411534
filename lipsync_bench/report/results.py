# SPDX-License-Identifier: Apache-2.0
"""What a results folder holds, read once for all pages."""

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
from lipsync_bench.results.rows import ENTRY, GROUND_TRUTH

Key = tuple[str, str, str, str]

__all__ = ["Key", "Line", "Results", "Unprepared", "matrix", "read_results"]


@dataclass(frozen=True)
class Line:
    """One line of the leaderboard.

    Args:
        key: Protocol, method, SHA-256 of the weights ("" without), way of pasting.
        label: The method; with weights and pasting where a protocol has several lines of it.
        slug: Safe in paths; of no other line.
        number: Position among the lines of its protocol: its colour and marker.
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
        """Of the method's weights; empty without."""
        return self.key[2]

    @property
    def paste(self) -> str:
        """How the face was put back."""
        return self.key[3]

    @property
    def floor(self) -> bool:
        """The real video against itself: what each metric says of a perfect method."""
        return self.method == GROUND_TRUTH


@dataclass(frozen=True)
class Unprepared:
    """A target video of which no clip could be made.

    Args:
        video: Its path, or its id.
        reason: Why.
    """

    video: str
    reason: str


@dataclass(frozen=True)
class Results:
    """All that the pages show.

    Args:
        folder: The results folder.
        rows: As `ResultsFolder` gives them; a clip with its own audio has it as `audio_clip`.
        board: The leaderboard.
        manifest: None if the folder has none.
        unprepared: Targets of which no clip could be made.
        lines: By key.
        clips: Slug by clip id.
    """

    folder: ResultsFolder
    rows: pd.DataFrame
    board: pd.DataFrame
    manifest: Mapping[str, Any] | None
    unprepared: Sequence[Unprepared]
    lines: Mapping[Key, Line]
    clips: Mapping[str, str]

    @property
    def protocols(self) -> list[str]:
        """Sorted."""
        return sorted({line.protocol for line in self.lines.values()})

    def lines_of(self, protocol: str) -> list[Line]:
        """The lines of a protocol, the floor last."""
        own = [line for line in self.lines.values() if line.protocol == protocol]
        return sorted(own, key=lambda line: (line.floor, line.number))

    def rows_of(self, protocol: str) -> pd.DataFrame:
        """The rows of a protocol."""
        return self.rows[self.rows["protocol"] == protocol]

    def board_of(self, protocol: str) -> dict[Key, dict[str, Any]]:
        """The leaderboard's lines of a protocol."""
        own = self.board[self.board["protocol"] == protocol]
        return {_key(line): line for line in own.to_dict("records")}

    def columns(self, protocol: str) -> list[Column]:
        """Metrics that a leaderboard of this protocol shows: those with a value."""
        own = self.board[self.board["protocol"] == protocol]
        return [c for c in RANKED if c.name in own and own[c.name].notna().any()]

    def clip_columns(self, protocol: str) -> list[Column]:
        """Of these the ones that a clip has."""
        rows = self.rows_of(protocol)
        return [c for c in CLIP_COLUMNS if c in RANKED and rows[c.name].notna().any()]

    def scorers(self, protocol: str, field: str) -> list[str]:
        """SHA-256 of the weights that judged, by the name of their field in the rows."""
        return sorted({str(sha) for sha in self.rows_of(protocol)[field] if sha})

    @property
    def dataset(self) -> str:
        """Of the manifest; empty if not known."""
        return str((self.manifest or {}).get("identity", {}).get("dataset", ""))


def _key(line: Mapping[Any, Any]) -> Key:
    protocol, method, sha256, paste = (str(line[name]) for name in ENTRY)
    return protocol, method, sha256, paste


def _lines(keys: Sequence[Key]) -> dict[Key, Line]:
    names = slugs(["\n".join(key) for key in keys])
    methods = [(key[0], key[1]) for key in keys]
    numbers: dict[str, int] = {}
    out = {}
    for key in sorted(keys):
        protocol, method, sha256, paste = key
        doubled = methods.count((protocol, method)) > 1
        details = (sha256[:12] or "no weights", *([paste] if paste else ()))
        label = f"{method} ({', '.join(details)})" if doubled else method
        number = numbers.setdefault(protocol, 0)
        if method != GROUND_TRUTH:
            numbers[protocol] += 1
        out[key] = Line(key, label, names["\n".join(key)], number)
    return out


def _unprepared(path: Path) -> list[Unprepared]:
    if not path.is_file():
        return []
    header, *lines = read_cells(path, "the list of targets that failed", "Remove it, or evaluate again")
    rows = [dict(zip(header, line, strict=True)) for line in lines]
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
            f"{folder} holds rows of no clip. Expected at least one row in clips.csv. Let this go on: bench evaluate"
        )
    rows["audio_clip"] = np.where(rows["audio_clip"] == "", rows["clip"], rows["audio_clip"])
    keys = sorted({_key(line) for line in rows[list(ENTRY)].drop_duplicates().to_dict("records")})
    return Results(
        found,
        rows,
        found.board(),
        found.manifest(),
        _unprepared(found.unprepared_file),
        _lines(keys),
        slugs(rows["clip"]),
    )


def matrix(rows: pd.DataFrame, lines: Sequence[Line], pairs: Sequence[tuple[str, str]], name: str) -> np.ndarray:
    """One metric as (pairs of clip and sound, lines), NaN where there is no value."""
    out = np.full((len(pairs), len(lines)), math.nan)
    place = {pair: i for i, pair in enumerate(pairs)}
    column = {line.key: j for j, line in enumerate(lines)}
    keys = list(zip(*(rows[n] for n in ENTRY), strict=True))
    i = [place[pair] for pair in zip(rows["clip"], rows["audio_clip"], strict=True)]
    j = [column[key] for key in keys]
    out[i, j] = rows[name].to_numpy(dtype=float)
    return out
