# SPDX-License-Identifier: Apache-2.0
"""Cores that this process may use, on any system."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lipsync_bench.datamodules.cores import usable_cores

PRODUCT = ("lipsync_bench", "datamodules", "models", "metrics", "benchmarks")


@pytest.mark.filterwarnings("ignore:Failed to inspect CPU affinity")  # said on Linux alone
def test_at_least_one_and_no_more_than_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # as on macOS and Windows
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    assert usable_cores() == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes are not tied to cores here")
def test_a_process_tied_to_one_core_has_one() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from lipsync_bench.datamodules.cores import usable_cores; print(usable_cores())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"


def test_nothing_asks_the_system_by_itself() -> None:
    root = Path(__file__).parents[2]
    files = [path for folder in PRODUCT for path in (root / folder).rglob("*.py")]
    assert len(files) > 100
    asking = ("sched_getaffinity", "os.cpu_count", "multiprocessing.cpu_count")
    assert [path for path in files if any(name in path.read_text(encoding="utf-8") for name in asking)] == []
