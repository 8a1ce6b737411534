# SPDX-License-Identifier: Apache-2.0
"""What the tests share that kill the real commands: start one, kill it at a moment, compare what is left."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from lipsync_bench.datamodules.files.disk import sha256

ROOT = Path(__file__).parents[2]
LIMIT_S = 120.0

__all__ = ["ROOT", "digests", "kill_when"]


def kill_when(reached: Callable[[], bool], *args: object, alone: bool = False) -> int:
    """Start `bench` with these arguments, kill it once something is reached, and return its process group.

    Args:
        reached: asked again and again.
        args: of the command.
        alone: the command's own process is killed, as for want of memory; else all its processes at once.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "lipsync_bench.bench", *map(str, args)],
        env={
            **os.environ,
            "OMP_NUM_THREADS": str(torch.get_num_threads()),  # numbers to the last digit
            "PYTHONPATH": str(ROOT),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + LIMIT_S
        while not reached():
            assert process.poll() is None, "ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        if alone:
            process.kill()
            process.wait()
    finally:
        if not alone or process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == -signal.SIGKILL, "ended before it could be killed"
    time.sleep(0.1)  # its workers, for which nobody waits, are gone by then
    return process.pid


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file, hidden ones too."""
    return {path.relative_to(folder).as_posix(): sha256(path) for path in folder.rglob("*") if path.is_file()}
