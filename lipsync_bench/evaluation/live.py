# SPDX-License-Identifier: Apache-2.0
"""The display of a running `bench evaluate`: progress, and the means of the rows so far."""

import math
import sys
from collections import defaultdict
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from lipsync_bench.datamodules.files.disk import printable
from lipsync_bench.datamodules.progress import progress_bar
from lipsync_bench.metrics.registry import COLUMNS

__all__ = ["RunningTable"]


class RunningTable:
    """A progress bar above a table of running means; drawn only on a terminal.

        with RunningTable(len(pairs), show=True) as table:
            table.add(row)
            table.advance()

    Args:
        total: Number of pairs.
        show: Whether to draw.
    """

    def __init__(self, total: int, show: bool) -> None:
        self._progress = progress_bar()
        self._task = self._progress.add_task("evaluate", total=total)
        self._sums: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(lambda: [0.0, 0]))
        self._counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        self._live = Live(self._picture(), console=Console(stderr=True), transient=True, refresh_per_second=4)
        self._show = show and sys.stderr.isatty()

    def __enter__(self) -> "RunningTable":
        if self._show:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._show:
            self._live.stop()

    def add(self, row: Mapping[str, object]) -> None:
        """Add a row to the means."""
        method = str(row["method"])
        self._counts[method][row["status"] == "failed"] += 1
        for column in COLUMNS:
            value = row.get(column.name)
            if column.kind == "clip" and isinstance(value, int | float) and math.isfinite(value):
                total = self._sums[method][column.name]
                total[0] += value
                total[1] += 1

    def advance(self) -> None:
        """Count one pair as finished."""
        self._progress.advance(self._task)
        if self._show:
            self._live.update(self._picture())

    def means(self) -> dict[str, dict[str, float]]:
        """Mean of each column over the rows so far, by method."""
        return {
            method: {name: total / count for name, (total, count) in sums.items()}
            for method, sums in self._sums.items()
        }

    def _picture(self) -> Group:
        means = self.means()
        table = Table(
            "",
            *(escape(printable(name)) for name in self._counts),
            caption="means so far; intervals and ranks follow at the end",
        )
        table.add_row("clips", *(f"{good}{f' + {bad} failed' if bad else ''}" for good, bad in self._counts.values()))
        for column in COLUMNS:
            cells = [means.get(method, {}).get(column.name) for method in self._counts]
            if any(cell is not None for cell in cells):
                texts = ("–" if cell is None else f"{cell:.{column.digits}f}" for cell in cells)
                table.add_row(column.heading, *texts)
        return Group(self._progress, table) if self._counts else Group(self._progress)
