# SPDX-License-Identifier: Apache-2.0
"""From rows to intervals, tests of all pairs of entries, and ranks in which entries that do not differ are tied.

The statistics are in `lipsync_bench.results.statistics`. Two entries of the leaderboard are **separated** in a metric
if the corrected p-value of their test is below 0.05 and the mean difference, if there is one, has the sign of the rank
sum; the better entry **beats** the other. The order of rows, clips and methods does not matter.

**Ranks.** Entries that are not separated share a rank, also through a chain: if neither A and B nor B and C are
separated, all three share one, even if A beats C. So a worse rank is only given below a gap that no pair bridges.
(These are the strong components of the relation "is not beaten by", which are totally ordered.) The rank is 1 plus the
number of entries above the gap. **Groups** show the details within a rank: two entries share a letter exactly if they
are not separated (compact letter display, H. Piepho, Journal of Computational and Graphical Statistics 13, 2004).

A "clip" here is a pair of video and audio: entries are compared on the same pairs.
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
from lipsync_bench.results.printing import letters
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

_PAIR = ("clip", "audio_clip")
_Entry = tuple[str, ...]
_NAMES = list(enumerate(ENTRY))[1:]  # of the two entries of a pair; the protocol is common to both

__all__ = ["intervals", "paired_tests", "ranks"]


@dataclass(frozen=True)
class _Table:
    """The rows of one protocol: for each entry and metric an array over the pairs of clip and audio."""

    units: Units
    values: dict[tuple[_Entry, str], np.ndarray]
    entries: list[_Entry]
    metrics: list[str]


def _tables(rows: pd.DataFrame) -> Iterable[_Table]:
    texts = {name: rows[name].fillna("").astype(str) for name in (*ENTRY, *_PAIR, "speaker")}
    rows = rows.assign(**texts)
    twice = rows[rows.duplicated([*ENTRY, *_PAIR])]
    if len(twice):
        first = twice.iloc[0]
        raise ValueError(
            f"{len(twice)} rows occur twice, such as {first['method']} on {first['clip']}. Expected one row for each "
            "method and clip: read results folders with read_rows, join several with: bench leaderboard merge"
        )
    for _, group in rows.groupby("protocol", sort=True):
        group = group.assign(_pair=group.groupby(list(_PAIR), sort=True).ngroup())
        good = group[group["status"] == "ok"]
        pairs = int(group["_pair"].max()) + 1
        known = group[group["speaker"] != ""].groupby("_pair")["speaker"].min()
        entries = sorted({tuple(entry) for entry in group[list(ENTRY)].itertuples(index=False)})
        metrics = [c.name for c in CLIP_COLUMNS if c.name in group and good[c.name].notna().any()]
        values = {(entry, metric): np.full(pairs, math.nan) for entry in entries for metric in metrics}
        for entry, own in good.groupby(list(ENTRY)):
            places = own["_pair"].to_numpy()
            for metric in metrics:
                values[tuple(entry), metric][places] = own[metric].to_numpy(dtype=float)
        yield _Table(Units.of(known.reindex(range(pairs)).tolist(), pairs), values, entries, metrics)


def intervals(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95% bootstrap interval of each entry and metric.

    Args:
        rows: As returned by `read_rows`, in any order.

    Returns:
        One table row for each entry and metric: `ENTRY`, metric, and the fields of `Estimate`.

    Raises:
        ValueError: A row occurs twice.
    """
    out = []
    for table in _tables(rows):
        estimates = bootstrap_intervals(table.values, table.units)
        for entry in table.entries:
            for metric in table.metrics:
                out.append(
                    {**dict(zip(ENTRY, entry, strict=True)), "metric": metric, **asdict(estimates[entry, metric])}
                )
    return pd.DataFrame(out, columns=[*ENTRY, "metric", *Estimate.__dataclass_fields__])


def paired_tests(rows: pd.DataFrame, leave_out: Sequence[str] = (GROUND_TRUTH,), ends: bool = True) -> pd.DataFrame:
    """All pairs of entries of a protocol, tested in each metric that has a better direction.

    Args:
        rows: As returned by `read_rows`, in any order.
        leave_out: Methods that are not ranked. Fewer methods make the correction milder.
        ends: Also compute the intervals of the differences. Ranks do not need them and take half the time without.

    Returns:
        For each metric and pair of entries: protocol, metric, the two entries (`a_method`, `a_generator_sha256`,
        `a_paste`, and the same with `b_`), `difference` (mean of a - b over the clips in which both are finite) with
        its 95% interval `low` and `high` (NaN without `ends`), `n`, `unit`, `units`, `equal`, `direction`, `p` (see
        `PairedTest`), `p_holm`, and `better`: "a" or "b" if p_holm is below 0.05 and the mean difference, if there is
        one, has the sign of the rank sum; else "".

    Raises:
        ValueError: A row occurs twice.
    """
    higher = {c.name: c.higher_is_better for c in CLIP_COLUMNS if c.higher_is_better is not None}
    out: list[dict[str, object]] = []
    for table in _tables(rows):
        pairs = list(combinations([entry for entry in table.entries if entry[1] not in leave_out], 2))
        metrics = [metric for metric in table.metrics if metric in higher]
        both = {
            (a, b, metric): _finite_difference(table.values[a, metric], table.values[b, metric])
            for metric in metrics
            for a, b in pairs
        }
        estimates = bootstrap_intervals(both, table.units) if ends else {}
        for metric in metrics:
            tests = [paired_test(table.values[a, metric], table.values[b, metric], table.units) for a, b in pairs]
            for (a, b), test, p_holm in zip(pairs, tests, holm([test.p for test in tests]), strict=True):
                known = both[a, b, metric][~np.isnan(both[a, b, metric])]
                mean = float(known.mean()) if len(known) else math.nan
                estimate = estimates.get((a, b, metric))
                names = {f"{side}_{key}": entry[k] for side, entry in (("a", a), ("b", b)) for k, key in _NAMES}
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
    """Ranks with ties, and letters of the groups that are not separated (see the head of this file).

    Args:
        tests: As returned by `paired_tests`.

    Returns:
        For each metric and entry that shares a clip with another: `ENTRY`, metric, rank, `group` (letters, in the
        order of ranks), `beaten_by` and `beats` (numbers of entries), and `lines`, the number of ranked entries.
    """
    out: list[dict[str, object]] = []
    for (protocol, metric), group in tests[tests["n"] > 0].groupby(["protocol", "metric"], sort=True):
        sides = [[tuple(entry) for entry in group[[f"{s}_{key}" for _, key in _NAMES]].to_numpy()] for s in "ab"]
        entries = sorted({*sides[0], *sides[1]})
        beats = np.zeros((len(entries), len(entries)), dtype=bool)
        for a, b, better in zip(*sides, group["better"], strict=True):
            winner, loser = (a, b) if better == "a" else (b, a)
            beats[entries.index(winner), entries.index(loser)] |= better != ""
        _, component = connected_components(~beats.T, connection="strong")
        above = beats & (component[:, None] != component[None, :])
        rank, beaten_by = 1 + above.sum(axis=0), beats.sum(axis=0)
        order = sorted(range(len(entries)), key=lambda k: (rank[k], beaten_by[k], -beats[k].sum(), entries[k]))
        joined = ~(beats | beats.T)[np.ix_(order, order)]
        cliques = sorted(sorted(clique) for clique in networkx.find_cliques(networkx.from_numpy_array(joined)))
        for place, k in enumerate(order):
            group_letters = "".join(letters(number) for number, clique in enumerate(cliques) if place in clique)
            found = {"rank": int(rank[k]), "group": group_letters, "beaten_by": int(beaten_by[k])}
            counts = {"beats": int(beats[k].sum()), "lines": len(entries)}
            out.append({**dict(zip(ENTRY, (protocol, *entries[k]), strict=True)), "metric": metric, **found, **counts})
    return pd.DataFrame(out, columns=[*ENTRY, "metric", "rank", "group", "beaten_by", "beats", "lines"])
