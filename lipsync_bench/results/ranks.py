# SPDX-License-Identifier: Apache-2.0
"""From rows to intervals, tests of all pairs, and ranks with ties that the data cannot separate.

How the numbers come about stands in `lipsync_bench.results.statistics`. Two lines of the leaderboard are
**separated** in a metric if the corrected p-value of their test is below 0.05 and the mean difference, where there is
one, points to the side of the rank sum; the line on the better side **beats** the other. The order of rows, clips and
methods plays no part in anything here.

**Ranks.** Lines that are not separated share a rank, also through a chain: if A cannot be told from B, nor B from C,
all three share one, even if A beats C. So a worse rank is only given below a gap that no pair bridges. (These are the
strong components of the relation "is not beaten by", which order themselves.) The rank is 1 plus the number of lines
above the gap. **Groups** tell the finer truth inside a rank: two lines have a letter in common exactly if they are not
separated (the compact letter display of H. Piepho, Journal of Computational and Graphical Statistics 13, 2004).

A "clip" in all this is a pair of a video and a sound: lines are compared on the same pairs.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

import networkx
import numpy as np
import pandas as pd
from scipy.sparse.csgraph import connected_components

from lipsync_bench.metrics.registry import CLIP_COLUMNS
from lipsync_bench.results.rows import ENTRY, GROUND_TRUTH
from lipsync_bench.results.statistics import (
    CONFIDENCE,
    Estimate,
    PairedTest,
    Units,
    bootstrap_intervals,
    holm,
    paired_test,
)
from lipsync_bench.results.texts import letters

_PAIR = ("clip", "audio_clip")
_Line = tuple[str, ...]
_NAMES = list(enumerate(ENTRY))[1:]  # of the two lines of a pair; the protocol is common to both

__all__ = ["intervals", "paired_tests", "ranks"]


@dataclass(frozen=True)
class _Table:
    """The rows of one protocol, as one column over the pairs of clip and sound for each line and metric."""

    units: Units
    values: dict[tuple[_Line, str], np.ndarray]
    lines: list[_Line]
    metrics: list[str]


def _tables(rows: pd.DataFrame) -> Iterable[_Table]:
    texts = {name: rows[name].fillna("").astype(str) for name in (*ENTRY, *_PAIR, "speaker")}
    rows = rows.assign(**texts)
    twice = rows[rows.duplicated([*ENTRY, *_PAIR])]
    if len(twice):
        first = twice.iloc[0]
        raise ValueError(
            f"{len(twice)} rows are there twice, such as {first['method']} on {first['clip']}. Expected one row for "
            "each method and clip: read results folders with read_rows, join several with: bench leaderboard merge"
        )
    for _, group in rows.groupby("protocol", sort=True):
        group = group.assign(_pair=group.groupby(list(_PAIR), sort=True).ngroup())
        good = group[group["status"] == "ok"]
        pairs = int(group["_pair"].max()) + 1
        known = group[group["speaker"] != ""].groupby("_pair")["speaker"].min()
        lines = sorted({tuple(line) for line in group[list(ENTRY)].itertuples(index=False)})
        metrics = [c.name for c in CLIP_COLUMNS if c.name in group and good[c.name].notna().any()]
        values = {(line, metric): np.full(pairs, math.nan) for line in lines for metric in metrics}
        for line, own in good.groupby(list(ENTRY)):
            places = own["_pair"].to_numpy()
            for metric in metrics:
                values[tuple(line), metric][places] = own[metric].to_numpy(dtype=float)
        yield _Table(Units.of(known.reindex(range(pairs)).tolist(), pairs), values, lines, metrics)


def intervals(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Mean and 95% bootstrap interval of each line and metric.

    Args:
        rows: As `read_rows` gives them, in any order.
        seed: Of the resampling.

    Returns:
        One line for each line of the leaderboard and metric: `ENTRY`, metric, and the fields of `Estimate`.

    Raises:
        ValueError: A row is there twice.
    """
    out = []
    for table in _tables(rows):
        estimates = bootstrap_intervals(table.values, table.units, seed)
        for line in table.lines:
            for metric in table.metrics:
                out.append({**dict(zip(ENTRY, line, strict=True)), "metric": metric, **asdict(estimates[line, metric])})
    return pd.DataFrame(out, columns=[*ENTRY, "metric", *Estimate.__dataclass_fields__])


def paired_tests(
    rows: pd.DataFrame, leave_out: Sequence[str] = (GROUND_TRUTH,), seed: int = 0, ends: bool = True
) -> pd.DataFrame:
    """All pairs of lines of a protocol, tested in each metric that has a better side.

    Args:
        rows: As `read_rows` gives them, in any order.
        leave_out: Methods that are no competitors. Each one less makes the correction milder for the others.
        seed: Of the resampling.
        ends: Resample for the intervals of the differences too. Ranks do without, in half the time.

    Returns:
        For each metric and pair of lines: protocol, metric, the two lines (`a_method`, `a_generator_sha256`, `a_paste`,
        and so `b_`), `difference` (mean of a - b over the clips in which both are finite) with its 95% interval `low`
        and `high` (NaN without `ends`), `n`, `unit`, `units`, `equal`, `direction`, `p` (see `PairedTest`), `p_holm`,
        and `better`: "a" or "b" if p_holm is below 0.05 and the mean difference, where there is one, points to the side
        of the ranks; else "".

    Raises:
        ValueError: A row is there twice.
    """
    higher = {c.name: c.higher_is_better for c in CLIP_COLUMNS if c.higher_is_better is not None}
    out: list[dict[str, object]] = []
    for table in _tables(rows):
        pairs = list(combinations([line for line in table.lines if line[1] not in leave_out], 2))
        metrics = [metric for metric in table.metrics if metric in higher]
        both = {
            (a, b, metric): _finite_difference(table.values[a, metric], table.values[b, metric])
            for metric in metrics
            for a, b in pairs
        }
        estimates = bootstrap_intervals(both, table.units, seed) if ends else {}
        for metric in metrics:
            tests = [paired_test(table.values[a, metric], table.values[b, metric], table.units) for a, b in pairs]
            for (a, b), test, p_holm in zip(pairs, tests, holm([test.p for test in tests]), strict=True):
                known = both[a, b, metric][~np.isnan(both[a, b, metric])]
                mean = float(known.mean()) if len(known) else math.nan
                estimate = estimates.get((a, b, metric))
                names = {f"{side}_{key}": line[k] for side, line in (("a", a), ("b", b)) for k, key in _NAMES}
                low, high = (estimate.low, estimate.high) if estimate is not None else (math.nan, math.nan)
                difference = {"difference": mean, "low": low, "high": high}
                better = _better(test, p_holm, mean, higher[metric])
                corrected = {"p_holm": float(p_holm), "better": better}
                out.append({"protocol": a[0], "metric": metric, **names, **difference, **asdict(test), **corrected})
    fields = [f"{side}_{key}" for side in "ab" for _, key in _NAMES]
    head = ["protocol", "metric", *fields, "difference", "low", "high"]
    return pd.DataFrame(out, columns=[*head, *PairedTest.__dataclass_fields__, "p_holm", "better"])


def _finite_difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(a) & np.isfinite(b), a - b, math.nan)


def _better(test: PairedTest, p_holm: float, difference: float, higher: bool) -> str:
    if not p_holm < 1 - CONFIDENCE or (not math.isnan(difference) and np.sign(difference) != test.direction):
        return ""
    return "a" if (test.direction > 0) == higher else "b"


def ranks(tests: pd.DataFrame) -> pd.DataFrame:
    """Ranks with ties and letters of the groups that the data cannot separate (see the head of this file).

    Args:
        tests: As `paired_tests` gives them.

    Returns:
        For each metric and line that shares a clip with any other: `ENTRY`, metric, rank, `group` (letters, in the
        order of ranks), `beaten_by` and `beats` (numbers of entries), and `lines`, the number of ranked entries.
    """
    out: list[dict[str, object]] = []
    for (protocol, metric), group in tests[tests["n"] > 0].groupby(["protocol", "metric"], sort=True):
        sides = [[tuple(line) for line in group[[f"{s}_{key}" for _, key in _NAMES]].to_numpy()] for s in "ab"]
        lines = sorted({*sides[0], *sides[1]})
        beats = np.zeros((len(lines), len(lines)), dtype=bool)
        for a, b, better in zip(*sides, group["better"], strict=True):
            winner, loser = (a, b) if better == "a" else (b, a)
            beats[lines.index(winner), lines.index(loser)] |= better != ""
        _, component = connected_components(~beats.T, connection="strong")
        above = beats & (component[:, None] != component[None, :])
        rank, beaten_by = 1 + above.sum(axis=0), beats.sum(axis=0)
        order = sorted(range(len(lines)), key=lambda k: (rank[k], beaten_by[k], -beats[k].sum(), lines[k]))
        joined = ~(beats | beats.T)[np.ix_(order, order)]
        cliques = sorted(sorted(clique) for clique in networkx.find_cliques(networkx.from_numpy_array(joined)))
        for place, k in enumerate(order):
            group_letters = "".join(letters(number) for number, clique in enumerate(cliques) if place in clique)
            found = {"rank": int(rank[k]), "group": group_letters, "beaten_by": int(beaten_by[k])}
            counts = {"beats": int(beats[k].sum()), "lines": len(lines)}
            out.append({**dict(zip(ENTRY, (protocol, *lines[k]), strict=True)), "metric": metric, **found, **counts})
    return pd.DataFrame(out, columns=[*ENTRY, "metric", "rank", "group", "beaten_by", "beats", "lines"])
