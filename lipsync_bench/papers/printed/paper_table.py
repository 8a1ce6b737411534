# SPDX-License-Identifier: Apache-2.0
"""One table of a paper, as printed. Numbers keep their text, so that 23.8450 is printed as 23.8450."""

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
        """Number of decimals."""
        return len(self.text.partition(".")[2])


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Paper:
    """The paper of a table.

    Args:
        key: Short name; also the name of the protocol that follows the paper.
        title: Title of the paper.
        year: Year of publication.
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
    """How a paper measured, as far as it says so; else empty.

    Args:
        pairing: "paired" (audio of the same clip) or "unpaired" (of another), by metric.
        crop: What is cut out of the frames before they are compared.
        reference: The frame from which a method takes the face.
        same_as: Tables that this one refers to.
    """

    pairing: Mapping[str, str]
    crop: str
    reference: str
    same_as: tuple[str, ...] = ()


@dataclass(frozen=True)
class PaperRow:
    """One row of a paper's table.

    Args:
        method: Name of the method.
        name: Its name in our results: the method's, unless several rows of a table share it.
        dataset: The data set it was measured on.
        details: What distinguishes it from other rows of the method, in order.
        values: The values by metric; None where the paper prints "N/A", "-" or nothing.
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
        id: Paper and number, as for `bench table`.
        paper: The paper.
        caption: Our description of the table.
        datasets: Data sets in the order of the rows.
        clips: Which clips and how many, as text; empty where the paper does not say.
        clip_count: Exact number of clips by data set, as far as stated.
        split_not_stated: Data sets of which the paper does not say whether val or test was scored; else it is test.
        protocol: How it was measured; taken from another table if the paper refers to it.
        metrics: Columns in order.
        rows: Rows in order.
        notes: Our notes, for example where the paper contradicts itself.
        trained_here: Methods of the rows that experiments/ has a run for.
    """

    id: str
    paper: Paper
    caption: str
    datasets: tuple[str, ...]
    clips: str
    clip_count: Mapping[str, int]
    split_not_stated: tuple[str, ...]
    protocol: PaperProtocol
    metrics: tuple[str, ...]
    rows: tuple[PaperRow, ...]
    notes: tuple[str, ...]
    trained_here: frozenset[str]

    @property
    def study(self) -> str:
        """What people gave in a user study, "ratings" or "votes"; empty for measurements."""
        return PAPER_METRICS[self.metrics[0]].study

    def digits(self, metric: str) -> int:
        """Number of decimals that the paper prints in this column; 1 where it prints none."""
        return max((printed.digits for row in self.rows if (printed := row.values[metric]) is not None), default=1)
