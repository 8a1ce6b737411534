# SPDX-License-Identifier: Apache-2.0
"""How every page prints numbers, headings and the weights of metric networks.

LSE requires the official SyncNet weights; headings of scores from other weights say so.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from lipsync_bench.datamodules.weights.registry import whose
from lipsync_bench.metrics.metric import Column
from lipsync_bench.metrics.registry import NETWORKS
from lipsync_bench.report.contents import Results
from lipsync_bench.results.printing import fixed

__all__ = ["SECONDS", "Heading", "heading", "headings", "interval_text", "json_number"]


@dataclass(frozen=True)
class Heading:
    """The heading of a metric on a page.

    Args:
        name: Name of the column.
        text: Title, unit and arrow.
        note: The metric network's weights, and for LSE whether they are the official ones; empty for formulas.
        meaning: What it says, which side is better, and what is compared.
        higher_is_better: As in `Column`.
        digits: As in `Column`.
    """

    name: str
    text: str
    note: str
    meaning: str
    higher_is_better: bool | None
    digits: int

    @property
    def full(self) -> str:
        """Text and note in one line."""
        return f"{self.text}, {self.note}" if self.note else self.text


SECONDS = Heading(
    "seconds_a_frame",
    "Seconds a frame",
    "",
    "What a frame took the method, pasting included, or its command; nothing for videos that were made before.",
    None,
    4,
)


def _note(network: str, found: list[str]) -> str:
    if not found:
        return ""
    id = next((n.weights for _, n in NETWORKS if n.name == network), "")
    shown = f"weights {' and '.join(sha[:12] for sha in found)}"
    return f"{whose(found, id)} {shown}" if id else shown


def heading(results: Results, protocol: str, column: Column) -> Heading:
    """The heading of a metric in a protocol's tables."""
    note = _note(column.network, results.network_hashes(protocol, f"{column.network}_sha256")) if column.network else ""
    text = column.heading.replace(" ↑", "\u00a0↑").replace(" ↓", "\u00a0↓")  # keeps the arrow beside the title
    return Heading(column.name, text, note, column.meaning, column.higher_is_better, column.digits)


def headings(results: Results, protocol: str, columns: Iterable[Column]) -> list[Heading]:
    """The headings of several metrics in a protocol's tables."""
    return [heading(results, protocol, column) for column in columns]


def interval_text(low: float, high: float, digits: int) -> str:
    """The text of an interval; empty if it is not finite."""
    known = math.isfinite(low) and math.isfinite(high)
    return f"{fixed(low, digits)} to {fixed(high, digits)}" if known else ""


def json_number(value: float) -> float | str | None:
    """A value for the pages' scripts: 6 digits, None if it is missing, "inf" if it is infinite."""
    if math.isnan(value):
        return None
    return "inf" if math.isinf(value) else float(f"{value:.6g}")
