# SPDX-License-Identifier: Apache-2.0
"""The table that `bench evaluate` shows while it runs."""

import io
import math

import pytest
from rich.console import Console

from lipsync_bench.evaluation import live
from lipsync_bench.evaluation.live import RunningTable


def drawn(table: RunningTable) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(table._picture())
    return console.file.getvalue()


def test_it_shows_the_means_of_the_rows_so_far_and_counts_failures():
    table = RunningTable(3, show=False)
    assert "PSNR" not in drawn(table)
    table.add({"method": "a", "status": "ok", "psnr": 20.0, "ssim": 0.5, "psnr_uint8": 30.0})
    table.add({"method": "a", "status": "ok", "psnr": 30.0, "ssim": None, "lmd": math.nan})
    table.add({"method": "a", "status": "failed", "reason": "no face"})
    table.add({"method": "ground_truth", "status": "ok", "psnr": math.inf, "ssim": 1.0})
    table.advance()
    assert table.means() == {"a": {"psnr": 25.0, "ssim": 0.5}, "ground_truth": {"ssim": 1.0}}
    text = drawn(table)
    for part in ("25.00", "0.500", "2 + 1 failed", "1/3", "–"):
        assert part in text
    assert "uint8" not in text  # a diagnostic compares no methods


@pytest.mark.parametrize(("show", "terminal", "started"), [(True, True, 1), (True, False, 0), (False, True, 0)])
def test_it_draws_only_on_a_terminal(monkeypatch, show, terminal, started):
    calls = []
    monkeypatch.setattr(live.Live, "start", lambda self, refresh=False: calls.append("start"))
    monkeypatch.setattr(live.Live, "stop", lambda self: calls.append("stop"))
    monkeypatch.setattr(live.sys.stderr, "isatty", lambda: terminal, raising=False)
    with RunningTable(1, show):
        pass
    assert calls == ["start", "stop"] * started
