# SPDX-License-Identifier: Apache-2.0
"""Commands as processes: each in a group of its own, which is ended as a whole."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from lipsync_bench.evaluation.elsewhere import supervisor

_TAIL_BYTES, _TAIL_LINES, _TAIL_CHARACTERS = 4096, 5, 600

__all__ = ["Processes", "Stopped", "tail"]


class Stopped(Exception):
    """The run ends; no command is started any more."""


def tail(log: Path) -> str:
    """The last lines of a log, joined by " | "."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    return " | ".join([line for line in lines if line][-_TAIL_LINES:])[-_TAIL_CHARACTERS:]


class Processes:
    """Starts commands, from any thread, and ends all that run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(
        self, words: Sequence[str], log: Path, cwd: Path, env: Mapping[str, str], timeout: float
    ) -> tuple[int | None, float]:
        """Run a command to its end. Its exit status, None at the time limit; and the seconds that it took.

        Args:
            words: Program and arguments.
            log: Takes what it prints, on both streams.
            cwd: Where it runs.
            env: All environment variables.
            timeout: Seconds, after which it is ended.

        Raises:
            Stopped: `stop` was called.
        """
        start = time.monotonic()
        with log.open("wb") as file, self._lock:
            if self._stopped:
                raise Stopped
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(supervisor.__file__).resolve()), *words],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=env,
                start_new_session=True,
            )
            self._running.add(process)
        status = None
        try:
            with suppress(subprocess.TimeoutExpired):
                status = process.wait(timeout)
        finally:
            with self._lock:
                self._running.discard(process)
            self._end(process)
        if self._stopped:
            raise Stopped
        return status, time.monotonic() - start

    def _end(self, process: "subprocess.Popen[bytes]") -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # also what a command that has ended has left behind
        process.wait()
        if process.stdin is not None:
            process.stdin.close()

    def stop(self) -> None:
        """End all that run, and start nothing any more."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
