# SPDX-License-Identifier: Apache-2.0
"""Which methods and clips take part in an evaluation, and what it leaves behind."""

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from lipsync_bench.evaluation.options import Selection
from lipsync_bench.evaluation.task.pairs import Pair
from lipsync_bench.results.rows import GROUND_TRUTH, REPEATED_FRAME

_RESERVED = (GROUND_TRUTH, REPEATED_FRAME)

__all__ = ["Result", "methods_of", "pairs_of", "refuse_names"]


def refuse_names(names: Iterable[str]) -> None:
    """Raise ValueError for a method's name that the suite's own lines have, or that flags or files cannot hold."""
    for name in names:
        if name.casefold() in _RESERVED:
            raise ValueError(
                f"a method is called {name!r}, which is the name of a line of the suite itself. Expected another "
                "name. Give it one with --pred NAME=DIR, or --methods.NAME PATH"
            )
        if not name.isprintable() or not name.strip(". ") or name != name.strip() or set(name) & set(",=/\\"):
            raise ValueError(
                f"a method is called {name!r}. Expected a name without , = / \\ and control characters, because "
                "tables, files and --only A,B hold it. Give it one with --pred NAME=DIR, or --methods.NAME PATH"
            )


def methods_of(select: Selection, names: Sequence[str]) -> list[str]:
    """The names that take part, in their order. Raises ValueError for one that there is not."""
    unknown = sorted(set(select.only) - set(names))
    if unknown:
        raise ValueError(
            f"--only: no {', '.join(unknown)}. Expected some of {', '.join(names)}. Add a checkpoint with "
            f"--methods.{unknown[0]} PATH, or videos with --pred {unknown[0]}=DIR"
        )
    return [name for name in names if not select.only or name in select.only or name == GROUND_TRUTH]


def pairs_of(select: Selection, pairs: Sequence[Pair], ids: Mapping[Path, str]) -> list[Pair]:
    """The pairs that take part. Raises ValueError for a pattern that no clip fits."""
    for pattern in select.clips:
        if not any(fnmatch.fnmatchcase(ids[pair.video], pattern) for pair in pairs):
            raise ValueError(
                f"--clips {pattern}: none of the {len(pairs)} clips fits. Expected an id such as "
                f"{ids[pairs[0].video] if pairs else 'S1/00007'}, or a pattern such as 'S1/*'"
            )
    fit = [p for p in pairs if not select.clips or any(fnmatch.fnmatchcase(ids[p.video], c) for c in select.clips)]
    return fit if select.limit is None else fit[: select.limit]


@dataclass(frozen=True)
class Result:
    """What an evaluation left behind.

    Args:
        folder: Holds clips.csv, leaderboard.csv and manifest.json.
        leaderboard: One line a method, as in leaderboard.csv.
        rows: One line for each method and clip, as in clips.csv.
        missing: Rows that other processes have not written yet; the one that finishes last writes the leaderboard.
        left_out: Methods of the benchmark of which a file is not here, such as a detector's boxes, and which.
    """

    folder: Path
    leaderboard: pd.DataFrame
    rows: pd.DataFrame
    missing: int = 0
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def failures(self) -> int:
        """Rows that failed."""
        return int((self.rows["status"] == "failed").sum())

    @property
    def without_any_score(self) -> list[str]:
        """Methods of which every row failed."""
        scored = set(self.rows[self.rows["status"] == "ok"]["method"])
        return sorted(set(self.rows["method"]) - scored)
