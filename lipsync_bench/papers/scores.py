# SPDX-License-Identifier: Apache-2.0
"""Our results as table columns: value, interval, count, and whether they are comparable with the paper's."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from lipsync_bench.papers.printed.paper_table import PaperRow, PaperTable

__all__ = ["IDENTITY", "Score", "ScoreSource", "Verdict"]

IDENTITY = (
    *("place", "protocol", "generator_sha256", "paste", "lse_sha256", "expert_sha256", "lpips_alex_sha256"),
    *("fid_sha256", "package_version"),
)
"""What produced a number: where it was read, its protocol, hashes of weights, way of pasting, package version."""


@dataclass(frozen=True)
class Verdict:
    """Whether our number may be compared with the paper's.

    Args:
        comparable: Whether it may.
        why: The reason, as a sentence.
    """

    comparable: bool
    why: str


@dataclass(frozen=True)
class Score:
    """One number of ours.

    Args:
        value: Mean; infinite if every clip is identical to its target; NaN if no clip could be scored.
        low: Lower end of the 95% bootstrap interval, NaN without one.
        high: Upper end.
        n: Clips (raters) in the mean, or votes for the method; frames if `pooled`.
        tried: All clips (raters, votes).
        verdict: Whether it may be compared.
        identity: What produced it, by the names in `IDENTITY`.
        pooled: One value of all frames together, not a mean over clips (FID).
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
    def count_text(self) -> str:
        """The number of clips or frames in it: "79 of 80", or "3200 frames"."""
        return f"{self.n} frames" if self.pooled else f"{self.n} of {self.tried}"


class ScoreSource(ABC):
    """One column of ours: results of one protocol on one set of clips.

    Args:
        heading: Heading of the column; names the protocol.
        legend: A sentence below the table on where the numbers come from.
        names: Its methods.
        counts: What n counts: "clips", "raters" or "votes".
        adds_rows: Whether its methods without a row in the paper's table are shown as well.
    """

    adds_rows = False

    def __init__(self, heading: str, legend: str, names: tuple[str, ...], counts: str) -> None:
        self.heading = heading
        self.legend = legend
        self.names = names
        self.counts = counts

    @property
    def intervals(self) -> str:
        """What stands in brackets behind its values, as a sentence."""
        return (
            f"In brackets: 95% bootstrap interval over {self.counts}; n of N: {self.counts} in the mean of all "
            f"{self.counts}."
        )

    @abstractmethod
    def covers(self, table: PaperTable, row: PaperRow) -> bool:
        """Whether this source applies to the row: it may be of only one of the table's data sets."""

    @abstractmethod
    def score(self, table: PaperTable, row: PaperRow, metric: str) -> Score | None:
        """The number for a row that it covers; None if it does not have the method or the metric."""

    def diagnostic(self, row: PaperRow, metric: str) -> Score | None:
        """The metric's diagnostic, which may explain the paper's value but does not compare; None without one."""
        return None
