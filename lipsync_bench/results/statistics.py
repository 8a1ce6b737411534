# SPDX-License-Identifier: Apache-2.0
"""Bootstrap confidence intervals and paired tests over per-clip scores.

**Units.** Clips of one speaker resemble each other and carry less information than clips of as many speakers. If the
speaker of every clip is known and there are at least `MIN_SPEAKERS`, speakers are resampled and tested, else clips;
each result says which. A result over clips holds only for these speakers.

**Intervals** are percentile bootstrap intervals of the mean, expanded for few units (T. Hesterberg, "What Teachers
Should Know About the Bootstrap", The American Statistician 69(4), 2015, section 3.3): the tails are those with which
the interval of normal data is as long as Student's. All columns share the resamples of one matrix product;
scipy.stats.bootstrap gives the same (tested), column by column, 20 times slower.

**Tests** between two methods are Wilcoxon's signed-rank tests (scipy.stats.wilcoxon) over the units in which both have
a value. It is preferred to a permutation test of the mean, because an infinite PSNR (identical images) is a value with
a rank, but has no mean, and because one odd clip cannot decide. The p-values of all pairs within one metric are
corrected by Holm's step-down rule.

- Few units: the test is exact up to 50 units (with equal differences up to 13). Fewer than 6 can never reach 0.05, so
  that nothing is separated.
- Equal values (up to rounding) have no sign and are left out, as in Wilcoxon's paper; if all are equal, p is 1.
- Infinite values: an infinite difference outranks every finite one; infinite against infinite is equal. They are left
  out of means and intervals.
- Missing values and failed clips: the pair is compared on the `n` other clips; without any, p is NaN and is ignored in
  the correction.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import pandas as pd
from scipy.stats import norm, rankdata, t, wilcoxon

CONFIDENCE = 0.95
RESAMPLES = 9999
MIN_SPEAKERS = 10
"""The test over ten can reach p = 2/2^10, low enough for the 21 pairs of seven methods."""

_CHUNK = 1 << 20  # draws at a time: 8 MB
_TIE = 1e-9  # of the larger value: below it a difference is rounding
_EXACT = 13  # scipy's own limit for the exact test with ties, which it computes in a Python loop of a second

Unit = Literal["clips", "speakers"]
_Key = TypeVar("_Key")

__all__ = [
    "CONFIDENCE",
    "MIN_SPEAKERS",
    "Estimate",
    "PairedTest",
    "Units",
    "bootstrap_intervals",
    "holm",
    "paired_test",
    "unit_of",
]


@dataclass(frozen=True)
class Estimate:
    """The mean of a metric and its interval.

    Args:
        mean: Over the clips with a finite value; infinite if all known are, NaN if none is known.
        low: Lower end of the 95% interval; NaN for fewer than two units.
        high: Upper end.
        n: Clips in the mean; if it is infinite, clips with a value.
        unit: What was resampled.
        units: Number of units.
    """

    mean: float
    low: float
    high: float
    n: int
    unit: Unit
    units: int


@dataclass(frozen=True)
class PairedTest:
    """One method against another on the same clips.

    Args:
        p: Two-sided, not yet corrected; NaN without common clips.
        direction: Sign of the rank sum: 1 if the first one's values are higher, -1 if lower, 0 if neither.
        n: Clips in which both have a value.
        unit: What was tested.
        units: Number of units.
        equal: Units without a difference, which the test leaves out.
    """

    p: float
    direction: int
    n: int
    unit: Unit
    units: int
    equal: int


def unit_of(speakers: Iterable[object]) -> Unit:
    """Whether these clips are resampled by speaker: every speaker is known, and there are at least `MIN_SPEAKERS`.

    Args:
        speakers: One for each clip; None, NaN or "" where not known.
    """
    known = ["" if speaker is None or pd.isna(speaker) else str(speaker) for speaker in speakers]
    return "speakers" if all(known) and len(set(known)) >= MIN_SPEAKERS else "clips"


@dataclass(frozen=True)
class Units:
    """The units that are resampled and tested; made once for any number of columns over the same clips.

    Args:
        codes: (N,) the number of each clip's unit, from 0.
        unit: What the units are.
    """

    codes: np.ndarray
    unit: Unit

    @classmethod
    def of(cls, speakers: "Sequence[object] | Units | None", count: int) -> "Units":
        """Units of `count` clips.

        Args:
            speakers: One for each clip (see `unit_of`); None: clips. Units are given back as they are.
            count: N.

        Raises:
            ValueError: The number of speakers is not `count`.
        """
        given = len(speakers.codes) if isinstance(speakers, Units) else count if speakers is None else len(speakers)
        if given != count:
            raise ValueError(f"{given} speakers for {count} clips. Expected one for each: speakers=")
        if isinstance(speakers, Units):
            return speakers
        if speakers is None or unit_of(speakers) == "clips":
            return cls(np.arange(count), "clips")
        return cls(np.unique(np.array([str(s) for s in speakers]), return_inverse=True)[1], "speakers")


def _tail(units: int) -> float:
    """Share of resampled means below the interval, expanded for few units (Hesterberg 2015)."""
    return float(norm.cdf(math.sqrt(units / (units - 1)) * t.ppf((1 - CONFIDENCE) / 2, units - 1)))


@dataclass(frozen=True)
class _Sums:
    """Finite values of one column, summed by unit; units without any are left out."""

    sums: np.ndarray
    counts: np.ndarray
    constant: float | None

    @classmethod
    def of(cls, values: np.ndarray, codes: np.ndarray) -> "_Sums":
        finite = np.isfinite(values)
        counts = np.bincount(codes[finite], minlength=int(codes.max(initial=-1)) + 1)
        sums = np.bincount(codes[finite], values[finite], minlength=len(counts))
        known = values[finite]
        constant = float(known[0]) if len(known) and np.ptp(known) == 0 else None
        return cls(sums[counts > 0], counts[counts > 0].astype(float), constant)


def _ends(columns: Mapping[_Key, _Sums], seed: int) -> dict[_Key, tuple[float, float]]:
    """Ends of the interval of each column. A column's ends do not depend on the others beside it."""
    out: dict[_Key, tuple[float, float]] = dict.fromkeys(columns, (math.nan, math.nan))
    by_units: dict[int, list[_Key]] = {}
    for key, column in columns.items():
        if len(column.counts) >= 2 and column.constant is not None:
            out[key] = (column.constant, column.constant)
        elif len(column.counts) >= 2:
            by_units.setdefault(len(column.counts), []).append(key)
    for units, keys in by_units.items():
        counts = np.stack([columns[key].counts for key in keys], axis=1)
        sums = np.stack([columns[key].sums for key in keys], axis=1)
        centre = sums.sum(axis=0) / counts.sum(axis=0)
        different, which = np.unique(counts, axis=1, return_inverse=True)  # mostly one, which halves the product
        both = np.concatenate([sums - centre * counts, different], axis=1)  # centred, so that no digits are lost
        rng = np.random.default_rng(seed)
        means, step = [], max(1, _CHUNK // units)
        for first in range(0, RESAMPLES, step):
            rows = min(step, RESAMPLES - first)
            drawn = rng.integers(units, size=(rows, units)) + np.arange(rows)[:, None] * units
            times = np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units).astype(float)
            total = times @ both
            means.append(total[:, : len(keys)] / total[:, len(keys) + which.ravel()])
        tail = _tail(units)
        low, high = np.quantile(np.concatenate(means), (tail, 1 - tail), axis=0) + centre
        out |= {key: (float(low[k]), float(high[k])) for k, key in enumerate(keys)}
    return out


def bootstrap_intervals(
    values: Mapping[_Key, np.ndarray], speakers: Sequence[object] | Units | None = None, seed: int = 0
) -> dict[_Key, Estimate]:
    """Means with 95% bootstrap intervals of any number of columns over the same clips.

    Args:
        values: By any key, (N,) one value a clip, in the column's unit; NaN where missing, may be infinite. Resampling
            follows the order of the clips: sort them by id.
        speakers: Speakers of the N clips, or their units; if None or incomplete, clips are resampled (see the head of
            this file).
        seed: Seed of the resampling, so that the same rows give the same interval.

    Raises:
        ValueError: The number of speakers is not N.
    """
    lengths = {len(column) for column in values.values()}
    if not lengths:
        return {}
    if len(lengths) > 1:
        raise ValueError(f"columns of {sorted(lengths)} clips. Expected the same clips in each, NaN where missing.")
    units = Units.of(speakers, lengths.pop())
    columns = {key: _Sums.of(np.asarray(column, dtype=float), units.codes) for key, column in values.items()}
    ends = _ends(columns, seed)
    out = {}
    for key, column in values.items():
        known = np.asarray(column, dtype=float)[~np.isnan(np.asarray(column, dtype=float))]
        finite = known[np.isfinite(known)]
        mean = float(finite.mean()) if len(finite) else float(known[0]) if len(known) else math.nan
        out[key] = Estimate(mean, *ends[key], len(finite) or len(known), units.unit, len(columns[key].counts))
    return out


def _differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a - b of known values; 0 where they are equal up to rounding or infinite on the same side."""
    with np.errstate(invalid="ignore"):  # inf - inf, which is equal
        differences = a - b
    rounding = np.isfinite(differences) & (np.abs(differences) <= _TIE * np.maximum(np.abs(a), np.abs(b)))
    return np.where((a == b) | rounding, 0.0, differences)


def _by_speaker(differences: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Mean difference of each speaker; infinite, with the majority's sign, if the infinite clips do not balance."""
    finite = np.isfinite(differences)
    clips = np.bincount(codes)
    infinite = np.bincount(codes, np.where(finite, 0, np.sign(differences)), minlength=len(clips))
    counts = np.bincount(codes[finite], minlength=len(clips))
    sums = np.bincount(codes[finite], differences[finite], minlength=len(clips))
    means = np.where(infinite == 0, sums / np.maximum(counts, 1), np.copysign(math.inf, infinite))
    return means[clips > 0]


def _signed_rank(differences: np.ndarray) -> tuple[float, int]:
    """Two-sided p and direction of Wilcoxon's signed-rank test; no difference is 0 or NaN."""
    if len(differences) == 0:
        return 1.0, 0
    ranks = rankdata(np.abs(differences))
    plus, half = float(ranks[differences > 0].sum()), float(ranks.sum()) / 2
    direction = int(np.sign(plus - half))
    if len(differences) <= _EXACT and len(np.unique(ranks)) < len(ranks):
        signs = (np.arange(2 ** len(ranks))[:, None] >> np.arange(len(ranks))) & 1
        return float(np.mean(np.abs(signs @ ranks - half) >= abs(plus - half))), direction
    return float(wilcoxon(differences).pvalue), direction


def paired_test(a: np.ndarray, b: np.ndarray, speakers: Sequence[object] | Units | None = None) -> PairedTest:
    """Wilcoxon's signed-rank test between two methods on the same clips (see the head of this file).

    Args:
        a: (N,) one value a clip; NaN where missing, may be infinite.
        b: (N,) the other method's.
        speakers: Speakers of the N clips, or their units.

    Raises:
        ValueError: The lengths differ.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} clips against {len(b)}. Expected the same clips in each, NaN where missing.")
    known = Units.of(speakers, len(a))
    codes, unit = known.codes, known.unit
    both = ~np.isnan(a) & ~np.isnan(b)
    if not both.any():
        return PairedTest(math.nan, 0, 0, unit, 0, 0)
    differences = _differences(a[both], b[both])
    if unit == "speakers":
        differences = _by_speaker(differences, codes[both])
    different = differences[differences != 0]
    p, direction = _signed_rank(different)
    units = len(differences)
    return PairedTest(p, direction, int(both.sum()), unit, units, units - len(different))


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """p-values of one family, corrected by the step-down rule of S. Holm (Scandinavian Journal of Statistics 6, 1979).

    The k-th smallest of m is multiplied by m - k + 1; none falls below a smaller one's, none exceeds 1.

    Args:
        p_values: (m,) in any order; NaN does not belong to the family and stays NaN.
    """
    p = np.asarray(p_values, dtype=float)
    out = np.full(p.shape, math.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    out[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return out
