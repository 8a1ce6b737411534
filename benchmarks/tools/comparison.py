# SPDX-License-Identifier: Apache-2.0
"""Measures code against a reference: in alternating rounds, with the ratio of each round, as rows of one table.

Absolute times on a shared machine are unreliable: what takes 10 ms now takes 15 ms in a minute. So code and reference
are timed in turns, A B A B, and the result is the median of the rounds' ratios. It is printed and stored, never
asserted. The ratio of processor times is given too, which hardly changes under other load; it does not include waiting
(such as for the disk).
"""

import operator
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Aim", "Comparison", "Rounds", "Row", "table"]

_SIGNS: dict[str, Callable[[float, float], bool]] = {"<": operator.lt, ">=": operator.ge}


@dataclass(frozen=True)
class Aim:
    """The target of a measurement.

    Args:
        of: The number of a row that it applies to.
        sign: How the number should compare with the limit.
        limit: In the unit of the row, or a ratio.
    """

    of: Literal["ratio", "value"]
    sign: Literal["<", ">="]
    limit: float


@dataclass(frozen=True)
class Rounds:
    """The measurements of all rounds.

    Args:
        values: Wall-clock times; or sizes.
        busy: Processor times of this process and its finished children; empty if meaningless.
    """

    values: tuple[float, ...]
    busy: tuple[float, ...] = ()

    def each(self, convert: Callable[[float], float]) -> "Rounds":
        """Convert every number, for example from seconds to frames a second."""
        return Rounds(tuple(map(convert, self.values)), tuple(map(convert, self.busy)))

    def __add__(self, other: "Rounds") -> "Rounds":
        return Rounds(
            tuple(a + b for a, b in zip(self.values, other.values, strict=True)),
            tuple(a + b for a, b in zip(self.busy, other.busy, strict=True)),
        )

    @property
    def median(self) -> float:
        """Median of the values."""
        return statistics.median(self.values)


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Args:
        name: What was measured.
        unit: Unit of both values.
        value: Median over the rounds.
        reference: Name of the reference.
        reference_value: Its median over the same rounds.
        ratio: Median of the rounds' ratios, value to reference; if the machine's speed changes, it differs from the
            ratio of the two medians.
        least, greatest: Extremes of the rounds' ratios.
        busy_ratio: As `ratio`, by processor time; None if meaningless.
        rounds: Number of rounds.
        aim: None if the row only explains another one.
    """

    name: str
    unit: str
    value: float
    reference: str
    reference_value: float
    ratio: float
    least: float
    greatest: float
    busy_ratio: float | None
    rounds: int
    aim: Aim | None

    @property
    def verdict(self) -> Literal["met", "missed", "unclear"] | None:
        """Whether the aim was reached; unclear if wall clock and processor time disagree; None without an aim."""
        if self.aim is None:
            return None
        numbers = [self.value] if self.aim.of == "value" else [self.ratio, self.busy_ratio]
        found = {_SIGNS[self.aim.sign](number, self.aim.limit) for number in numbers if number is not None}
        if len(found) == 2:
            return "unclear"
        return "met" if found == {True} else "missed"

    def markdown(self) -> str:
        """As a line of a Markdown table."""
        spread = f" ({_short(self.least)} to {_short(self.greatest)})" if self.rounds > 1 else ""
        aim = "none"
        if self.aim is not None:
            unit = "" if self.aim.of == "ratio" else f" {self.unit}"
            aim = f"{self.aim.sign} {self.aim.limit:g}{unit}: {self.verdict}"
        cells = (
            self.name,
            f"{_short(self.value)} {self.unit}",
            self.reference,
            f"{_short(self.reference_value)} {self.unit}",
            f"{_short(self.ratio)}{spread}",
            "" if self.busy_ratio is None else _short(self.busy_ratio),
            aim,
        )
        return f"| {' | '.join(cells)} |"


def _short(number: float) -> str:
    """Three digits."""
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"


def table(rows: Sequence[Row]) -> list[str]:
    """A Markdown table, line by line."""
    head = ("measured", "value", "against", "value", "ratio (of rounds)", "by processor time", "aim")
    return [f"| {' | '.join(head)} |", "|---|---:|---|---:|---:|---:|---|", *(row.markdown() for row in rows)]


class Comparison:
    """Measures and collects rows; the fixture `comparison` makes one for each test.

    Args:
        benchmark: The fixture of pytest-benchmark, which runs the rounds and stores rows and notes in its JSON.
        rows, notes: Lists for the rows and the lines below the table.
    """

    def __init__(self, benchmark: Any, rows: list[Row], notes: list[str]) -> None:
        self.benchmark = benchmark
        self._rows = rows
        self._notes = notes

    def alternate(
        self,
        measured: Callable[[], object],
        references: Mapping[str, Callable[[], object]],
        *,
        rounds: int,
        warm_up: bool = True,
    ) -> tuple[Rounds, dict[str, Rounds]]:
        """Time the references and the measured function in turns.

        Args:
            measured: The function to measure; its result is ignored.
            references: References by name, run in this order before it in every round.
            rounds: Three or more for a median. With `--benchmark-disable` there is one, as a check.
            warm_up: Run everything once untimed, so that imports, file caches and lazy set-up are not measured.

        Returns:
            Seconds of the measured function, and of each reference.
        """
        own: list[tuple[float, float]] = []
        others: dict[str, list[tuple[float, float]]] = {name: [] for name in references}

        def run_references() -> None:
            for name, reference in references.items():
                others[name].append(_seconds(reference))

        self.benchmark.pedantic(
            lambda: own.append(_seconds(measured)), setup=run_references, rounds=rounds, warmup_rounds=int(warm_up)
        )
        first = int(warm_up) if len(own) > rounds else 0  # with --benchmark-disable there is no warm-up
        timed = slice(first, first + rounds)  # --benchmark-cprofile adds a slower one at the end
        return _rounds(own[timed]), {name: _rounds(seconds[timed]) for name, seconds in others.items()}

    def record(self, name: str, unit: str, own: Rounds, reference: str, other: Rounds, aim: Aim | None = None) -> Row:
        """Add a row of a measurement and its reference, of the same rounds and in the same unit."""
        ratios = _ratios(own.values, other.values)
        busy = _ratios(own.busy, other.busy)
        row = Row(
            name=name,
            unit=unit,
            value=own.median,
            reference=reference,
            reference_value=other.median,
            ratio=statistics.median(ratios),
            least=min(ratios),
            greatest=max(ratios),
            busy_ratio=statistics.median(busy) if busy else None,
            rounds=len(ratios),
            aim=aim,
        )
        self._rows.append(row)
        self.benchmark.extra_info.setdefault("rows", []).append({**asdict(row), "verdict": row.verdict})
        return row

    def note(self, text: str) -> None:
        """Add a line below the table, such as where the time goes or which data was used."""
        self._notes.append(text)
        self.benchmark.extra_info.setdefault("notes", []).append(text)


def _ratios(values: Sequence[float], others: Sequence[float]) -> list[float]:
    return [value / other for value, other in zip(values, others, strict=True)]


def _rounds(pairs: Sequence[tuple[float, float]]) -> Rounds:
    return Rounds(tuple(clock for clock, _ in pairs), tuple(busy for _, busy in pairs))


def _busy() -> float:
    """Processor time in seconds of all threads of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _seconds(run: Callable[[], object]) -> tuple[float, float]:
    """Wall-clock time and processor time."""
    busy, start = _busy(), time.perf_counter()
    run()
    return time.perf_counter() - start, _busy() - busy
