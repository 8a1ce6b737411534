# SPDX-License-Identifier: Apache-2.0
"""The drawings of a protocol and their data."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from lipsync_bench.report.boards import number
from lipsync_bench.report.clips import pairs_of
from lipsync_bench.report.contents import Entry, Key, Results, matrix, seconds_a_frame
from lipsync_bench.report.drawings import Point, Series, curves, distribution, scatter
from lipsync_bench.report.numbers import Heading, headings, json_number
from lipsync_bench.results.rows import ENTRY

SHIFTS = range(-15, 16)
SPEED = Heading("speed", "Speed (frames/s)\u00a0↑", "", "frames divided by the method's seconds", True, 1)
_CURVES = {
    "lse_curve_wav2lip_lrs": ("lse_d_wav2lip_lrs", "SyncNet distance"),
    "expert_curve": ("expert_cosine", "cosine of the expert"),
}

__all__ = ["SHIFTS", "SPEED", "Charts", "Chooser", "charts", "mean_curve", "speeds"]


@dataclass(frozen=True)
class Chooser:
    """A scatter plot whose axes can be chosen: its title, the initial metrics of its axes, and their drawing."""

    title: str
    x: str
    y: str
    drawing: Markup


@dataclass(frozen=True)
class Charts:
    """The drawings of one protocol.

    Args:
        protocol: Its name and version.
        slug: Prefix of ids on the page.
        choosers: Metric against metric, quality against speed; those that have data.
        data: Data for the page's script.
        distributions: Heading and drawing of each metric.
        curves: Heading and drawing of each network that scores sync.
    """

    protocol: str
    slug: str
    choosers: Sequence[Chooser]
    data: dict[str, object]
    distributions: Sequence[tuple[Heading, Markup]]
    curves: Sequence[tuple[str, Markup]]


def speeds(rows: pd.DataFrame) -> dict[Key, float]:
    """Frames per second of each entry; entries without times are missing."""
    return {key: 1 / seconds for key, seconds in seconds_a_frame(rows).items()}


def mean_curve(cells: pd.Series) -> np.ndarray | None:
    """Mean of the curves of some clips, for each shift over the clips with a value there; None without any curve.

    Raises:
        ValueError: A curve does not have one number for each shift.
    """
    found = [cell for cell in cells.dropna() if str(cell).strip()]
    if not found:
        return None
    for cell in found:
        if len(str(cell).split()) != len(SHIFTS):
            raise ValueError(
                f"clips.csv has a curve of {len(str(cell).split())} numbers ({str(cell)[:40]}...). Expected "
                f"{len(SHIFTS)}, for shifts of {SHIFTS[0]} to {SHIFTS[-1]} frames. Evaluate again: bench evaluate --out"
            )
    table = np.array([[float(word) for word in str(cell).split()] for cell in found])
    count = np.isfinite(table).sum(axis=0)
    total = np.where(np.isfinite(table), table, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), math.nan)


def _axis(head: Heading) -> str:
    return f"{head.text}\n{head.note}" if head.note else head.text


def _numbers(known: Mapping[str, Any], head: Heading, speed: float) -> tuple[float, float, float]:
    if head is SPEED:
        return speed, math.nan, math.nan
    value, low, high = (number(known, head.name + suffix) for suffix in ("", "_low", "_high"))
    return value, low, high


def _choosers(
    table: Mapping[Entry, Mapping[str, tuple[float, float, float]]], heads: Sequence[Heading], slug: str
) -> list[Chooser]:
    sided = [h for h in heads if h.higher_is_better is not None and h is not SPEED]
    sync = [h for h in sided if h.name.startswith(("lse_", "expert_"))]
    frames = [h for h in sided if h not in sync]
    ordered = [*frames[:1], *sync, *frames[1:]]
    wanted = [("One metric against another", ordered[0], ordered[1])] if len(ordered) > 1 else []
    if SPEED in heads and ordered:
        wanted.append(("Quality against speed", SPEED, ordered[0]))
    out: list[Chooser] = []
    for title, x, y in wanted:
        points = [
            Point(entry.label, entry.number, values[x.name], values[y.name], entry.is_reference)
            for entry, values in table.items()
            if math.isfinite(values[x.name][0] + values[y.name][0])
        ]
        drawing = scatter(points, _axis(x), _axis(y), f"{slug}-scatter{len(out)}", log_x=x is SPEED)
        out.append(Chooser(title, x.name, y.name, drawing))
    return out


def _distributions(results: Results, protocol: str, slug: str) -> list[tuple[Heading, Markup]]:
    rows, entries, pairs = results.rows_of(protocol), results.entries_of(protocol), pairs_of(results, protocol)
    out: list[tuple[Heading, Markup]] = []
    for head in headings(results, protocol, results.clip_columns(protocol)):
        table = matrix(rows, entries, pairs, head.name)
        series = [
            Series(entry.label, entry.number, table[np.isfinite(table[:, j]), j], entry.is_reference)
            for j, entry in enumerate(entries)
        ]
        if any(len(own.values) for own in series):
            out.append((head, distribution(series, _axis(head), f"{slug}-box-{head.name}")))
    return out


def _curves(results: Results, protocol: str, slug: str) -> list[tuple[str, Markup]]:
    rows = results.rows_of(protocol)
    named = {h.name: h for h in headings(results, protocol, results.clip_columns(protocol))}
    keys = list(zip(*(rows[name] for name in ENTRY), strict=True))
    out: list[tuple[str, Markup]] = []
    for field, (metric, what) in _CURVES.items():
        means = {}
        for entry in results.entries_of(protocol):
            own = [status == "ok" and key == entry.key for key, status in zip(keys, rows["status"], strict=True)]
            mean = mean_curve(rows.loc[own, field])
            if mean is not None:
                means[entry] = mean
        if means:
            note = named[metric].note if metric in named else ""
            heading = f"{what}, {note}" if note else what
            series = [Series(entry.label, entry.number, values, entry.is_reference) for entry, values in means.items()]
            out.append((heading, curves(series, list(SHIFTS), what, f"{slug}-{field}")))
    return out


def charts(results: Results, protocol: str, slug: str) -> Charts:
    """The drawings of one protocol. `slug` makes ids on the page unique."""
    known, speed = results.board_of(protocol), speeds(results.rows_of(protocol))
    heads = headings(results, protocol, results.columns(protocol)) + ([SPEED] if speed else [])
    entries = [entry for entry in results.entries_of(protocol) if entry.key in known]
    table = {
        entry: {h.name: _numbers(known[entry.key], h, speed.get(entry.key, math.nan)) for h in heads}
        for entry in entries
    }
    data: dict[str, object] = {
        "metrics": [{"name": h.name, "heading": h.text, "note": h.note, "log": h is SPEED} for h in heads],
        "entries": [
            {
                "label": entry.label,
                "number": entry.number,
                "reference": entry.is_reference,
                "values": {name: [json_number(v) for v in values] for name, values in table[entry].items()},
            }
            for entry in entries
        ],
    }
    choosers, boxes = _choosers(table, heads, slug), _distributions(results, protocol, slug)
    return Charts(protocol, slug, choosers, data, boxes, _curves(results, protocol, slug))
