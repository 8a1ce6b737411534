# SPDX-License-Identifier: Apache-2.0
"""The list of all clips, and the best and worst of each method."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lipsync_bench.report.contents import Entry, Results, matrix
from lipsync_bench.report.numbers import Heading, headings, json_number
from lipsync_bench.results.printing import value_text

__all__ = ["ClipList", "Extreme", "clip_list", "pairs_of"]


@dataclass(frozen=True)
class Extreme:
    """An entry's best and worst clip in a metric: name, address and value as text."""

    best: tuple[str, str, str]
    worst: tuple[str, str, str]


@dataclass(frozen=True)
class ClipList:
    """The clips of one protocol.

    Args:
        protocol: Its name and version.
        entries: Columns of the list; the reference last.
        pairs: Rows of the list: name, address of the page.
        headings: Metrics to choose from.
        first: Text and value of the first metric, (pairs, entries).
        extremes: For each metric with a better direction one for each ranked entry; None without a value.
        data: Data for the page's script.
    """

    protocol: str
    entries: Sequence[Entry]
    pairs: Sequence[tuple[str, str]]
    headings: Sequence[Heading]
    first: Sequence[Sequence[tuple[str, float | None]]]
    extremes: Sequence[tuple[Heading, Sequence[Extreme | None]]]
    data: dict[str, object]


def pairs_of(results: Results, protocol: str) -> list[tuple[str, str]]:
    """Clip and audio clip of each pair of a protocol, sorted."""
    rows = results.rows_of(protocol)
    return sorted(set(zip(rows["clip"], rows["audio_clip"], strict=True)))


def _name(pair: tuple[str, str]) -> str:
    clip, audio = pair
    return clip if clip == audio else f"{clip} with the audio of {audio}"


def _extreme(values: np.ndarray, shown: Sequence[tuple[str, str]], head: Heading) -> Extreme | None:
    if np.isnan(values).all():
        return None
    low, high = int(np.nanargmin(values)), int(np.nanargmax(values))
    best, worst = (high, low) if head.higher_is_better else (low, high)

    def texts(i: int) -> tuple[str, str, str]:
        return (*shown[i], value_text(float(values[i]), head.digits))

    return Extreme(texts(best), texts(worst))


def clip_list(results: Results, protocol: str) -> ClipList:
    """The list of one protocol's clips."""
    rows, entries, pairs = results.rows_of(protocol), results.entries_of(protocol), pairs_of(results, protocol)
    heads = headings(results, protocol, results.clip_columns(protocol))
    shown = [(_name(pair), f"clips/{results.clips[pair[0]]}.html") for pair in pairs]
    values, extremes, first = {}, [], []
    competitors = [(j, entry) for j, entry in enumerate(entries) if not entry.is_reference]
    for head in heads:
        table = matrix(rows, entries, pairs, head.name)
        if head is heads[0]:
            first = [
                [(value_text(v, head.digits), None if math.isnan(v) else v) for v in row] for row in table.tolist()
            ]
        values[head.name] = [[json_number(value) for value in row] for row in table.tolist()]
        if head.higher_is_better is not None:
            extremes.append((head, [_extreme(table[:, j], shown, head) for j, _ in competitors]))
    data: dict[str, object] = {
        "metrics": [
            {"name": h.name, "digits": h.digits, "higher": h.higher_is_better, "heading": h.full} for h in heads
        ],
        "values": values,
    }
    return ClipList(protocol, entries, shown, heads, first, extremes, data)
