# SPDX-License-Identifier: Apache-2.0
"""Measures the memory of a command while it runs, in a separate process."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_S = 0.5

__all__ = ["Watched", "imports_mb", "watch"]


@dataclass(frozen=True)
class Watched:
    """A command's memory in MB and its time, in total and in a phase that begins when `has_begun` is true.

    Args:
        peak: Peak of the whole run.
        peak_before: Peak before the phase.
        resident: Resident memory at each sample in the phase.
        seconds: Duration of the run.
        phase_s: Duration of the phase.
    """

    peak: float
    peak_before: float
    resident: list[float]
    seconds: float
    phase_s: float


def _megabytes(status: str, field: str) -> float:
    line = next(line for line in status.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024 / 1e6


def watch(command: Sequence[str], has_begun: Callable[[], bool], log: Path) -> Watched:
    """Run a command and sample /proc/<pid>/status until it ends.

    `ru_maxrss` is not used: Linux starts a child with its parent's peak.

    Args:
        command: Started without a shell; it must succeed.
        has_begun: Whether the phase has begun.
        log: File for its output.
    """
    start = begun = time.perf_counter()
    peak = peak_before = 0.0
    resident: list[float] = []
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            if "VmHWM:" in status:  # absent while the process is ending
                peak = _megabytes(status, "VmHWM")
                if has_begun():
                    begun = begun if resident else time.perf_counter()
                    resident.append(_megabytes(status, "VmRSS"))
                else:
                    peak_before = peak
            time.sleep(SAMPLE_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, log.read_text()
    end = time.perf_counter()
    return Watched(peak, peak_before, resident, end - start, end - begun)


def imports_mb(module: str) -> float:
    """The peak memory of a process that only imports this module."""
    code = f"import {module}; print(open('/proc/self/status').read())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return _megabytes(done.stdout, "VmHWM")
