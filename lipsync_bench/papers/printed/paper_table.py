# SPDX-License-Identifier: Apache-2.0
"""One table of a paper, as it was printed. Numbers keep their text, so that 23.8450 comes out as 23.8450."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked_dataclass

from lipsync_bench.papers.printed.paper_metrics import PAPER_METRICS

__all__ = ["Paper", "PaperProtocol", "PaperRow", "PaperTable", "Printed"]


@dataclass(frozen=True)
class Printed:
    """A number of a paper.

    Args:
        text: As printed, with all its digits.
        value: The number.
    """

    text: str
    value: float

    @property
    def digits(self) -> int:
        """Digits behind the point."""
        return len(self.text.partition(".")[2])


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Paper:
    """Where a table stands.

    Args:
        key: Short name; also the name of the protocol that follows the paper.
        title: Of the paper.
        year: Of publication.
        ref: Venue or identifier.
    """

    key: str
    title: str
    year: int
    ref: str

    @property
    def citation(self) -> str:
        """Title, venue and year."""
        year = "" if str(self.year) in self.ref else f", {self.year}"
        return f"{self.title}, {self.ref}{year}"


@dataclass(frozen=True)
class PaperProtocol:
    """What a paper says about how it measured; empty where it says nothing.

    Args:
        pairing: "paired" (sound of the same clip) or "unpaired" (of another), by metric.
        crop: What is cut out of the frames before they are compared.
        reference: The frame that shows a method the face.
        same_as: Tables that this one refers to.
    """

    pairing: Mapping[str, str]
    crop: str
    reference: str
    same_as: tuple[str, ...] = ()


@dataclass(frozen=True)
class PaperRow:
    """One row.

    Args:
        method: Name of the method.
        name: Name of the row in our results: the method's, unless several rows of a table share it.
        dataset: What it was measured on.
        details: What tells it from other rows of the method, in order.
        values: By metric; None where the paper prints "N/A", "-" or nothing.
    """

    method: str
    name: str
    dataset: str
    details: tuple[str, ...]
    values: Mapping[str, Printed | None]

    @property
    def label(self) -> str:
        """Method and details."""
        return ", ".join((self.method, *self.details))


@dataclass(frozen=True)
class PaperTable:
    """One table of a paper.

    Args:
        id: Paper and number, as `bench table` takes it.
        paper: Where it stands.
        caption: What it shows, in our words.
        datasets: In the order of the rows.
        clips: Which and how many, in words; empty where this table does not say.
        clip_count: Exact number of clips by data set, as far as stated.
        protocol: How it was measured; of the table it refers to, if it does.
        metrics: Columns in order.
        rows: In order.
        notes: Ours: where the paper contradicts itself, and what to know.
        trained_here: Methods of the rows that experiments/ has a run for.
    """

    id: str
    paper: Paper
    caption: str
    datasets: tuple[str, ...]
    clips: str
    clip_count: Mapping[str, int]
    protocol: PaperProtocol
    metrics: tuple[str, ...]
    rows: tuple[PaperRow, ...]
    notes: tuple[str, ...]
    trained_here: frozenset[str]

    @property
    def user_study(self) -> bool:
        """Whether people gave the scores."""
        return all(PAPER_METRICS[metric].judge == "people" for metric in self.metrics)

    def digits(self, metric: str) -> int:
        """Digits behind the point that the paper prints in this column."""
        return max(printed.digits for row in self.rows if (printed := row.values[metric]) is not None)
