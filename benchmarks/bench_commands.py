# SPDX-License-Identifier: Apache-2.0
"""The time of `bench --help` and of the message after wrong usage, against starting Python and importing torch."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from benchmarks.tools.comparison import Aim, Comparison

BENCH = Path(sys.executable).with_name("bench")
AIM = Aim("value", "<", 1.5)
IMPORT_TORCH = 'python -c "import torch"'

__all__: list[str] = []


def _run(arguments: list[str], status: int) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == status, done.stderr  # a command that crashes is fast too


@pytest.fixture
def references() -> dict[str, Callable[[], None]]:
    if not BENCH.is_file():
        pytest.fail(f"{BENCH}: no such command. Expected the package to be installed. Run: make env")
    return {
        "python -c pass": partial(_run, [sys.executable, "-c", "pass"], 0),
        IMPORT_TORCH: partial(_run, [sys.executable, "-c", "import torch"], 0),
    }


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["--help"], 0), (["dub", "--nonsense"], 2), (["evaluate"], 1)],
    ids=["help", "unknown option", "arguments missing"],
)
def test_command(
    comparison: Comparison, references: dict[str, Callable[[], None]], arguments: list[str], status: int
) -> None:
    own, others = comparison.alternate(partial(_run, [str(BENCH), *arguments], status), references, rounds=5)
    comparison.record(f"`bench {' '.join(arguments)}`", "s", own, f"`{IMPORT_TORCH}`", others[IMPORT_TORCH], AIM)
    pure = others["python -c pass"].median
    comparison.note(
        f"`bench {' '.join(arguments)}`: of {own.median:.2f} s, Python itself (`python -c pass`) {pure:.2f}."
    )
