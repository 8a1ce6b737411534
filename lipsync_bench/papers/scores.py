# SPDX-License-Identifier: Apache-2.0
"""What can stand beside a paper's column: numbers of ours, each with its count and with a word on comparing it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from lipsync_bench.papers.printed.paper_table import PaperRow, PaperTable

__all__ = ["Score", "ScoreSource", "Verdict"]


@dataclass(frozen=True)
class Verdict:
    """Whether our number may be read against the paper's.

    Args:
        comparable: It may.
        why: One sentence.
    """

    comparable: bool
    why: str


@dataclass(frozen=True)
class Score:
    """One number of ours.

    Args:
        value: Mean; infinite where every clip is identical to its target; NaN where no clip could be scored.
        low: Lower end of the 95% bootstrap interval, NaN where there is none.
        high: Upper end.
        n: Clips (raters) in the mean; frames where `pooled`.
        tried: Clips (raters) there were.
        verdict: Whether it may be compared.
        identity: What made it: hashes of weights, way of pasting, package version.
        pooled: One value of all frames together, no mean over clips (FID).
    """

    value: float
    low: float
    high: float
    n: int
    tried: int
    verdict: Verdict
    identity: dict[str, str]
    pooled: bool = False

    @property
    def seen(self) -> str:
        """How much is in it: "79 of 80", or "3200 frames"."""
        return f"{self.n} frames" if self.pooled else f"{self.n} of {self.tried}"


class ScoreSource(ABC):
    """One column of ours: numbers of one protocol on one set of clips.

    Args:
        heading: Over the column; names the protocol.
        legend: Where the numbers come from, as a sentence below the table.
        names: Rows it has.
        counts: What n counts: "clips" or "raters".
    """

    def __init__(self, heading: str, legend: str, names: tuple[str, ...], counts: str) -> None:
        self.heading = heading
        self.legend = legend
        self.names = names
        self.counts = counts

    @abstractmethod
    def covers(self, table: PaperTable, row: PaperRow) -> bool:
        """Whether the row's part of the table is for this source: of several data sets, one may be its own."""

    @abstractmethod
    def score(self, table: PaperTable, row: PaperRow, metric: str) -> Score | None:
        """The number for a row that it covers; None where it has no such row or has not measured the metric."""

    def diagnostic(self, row: PaperRow, metric: str) -> Score | None:
        """The metric's diagnostic, which explains and compares nothing; None without one."""
        return None
