# SPDX-License-Identifier: Apache-2.0
"""What C++ libraries write to file descriptor 2, without the notices that MediaPipe and TensorFlow Lite put there."""

import atexit
import functools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Lines of absl's log of the levels I and W, what precedes them, and TensorFlow Lite's INFO. Errors (E, F) pass.
_PASS_ON = r"""
import re, sys
notice = re.compile(rb"[IW]\d{4} [\d:.]+ |INFO: |WARNING: All log messages before absl::InitializeLog")
for line in sys.stdin.buffer:
    if not notice.match(line):
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
"""
_WAIT_S = 1.0

_lock = threading.Lock()
_within = 0
_screen = -1  # where file descriptor 2 pointed

__all__ = ["without_notices"]


@functools.cache
def _filter() -> int:
    """The pipe into a process that passes on what is no notice.

    A process, so that the last words before a crash are read too: a thread would end with what it listens to.
    """
    process = subprocess.Popen(
        [sys.executable, "-ISc", _PASS_ON], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
    )
    assert process.stdin is not None
    pipe = process.stdin

    def end() -> None:
        with suppress(subprocess.TimeoutExpired, OSError):  # a process that was forked may still hold the pipe
            pipe.close()
            process.wait(_WAIT_S)

    atexit.register(end)
    return pipe.fileno()


@contextmanager
def without_notices() -> Iterator[None]:
    """Keep notices off the screen meanwhile. Whatever else is written passes, line by line.

    It is for moments: a progress bar is not drawn meanwhile.
    """
    global _within, _screen
    with _lock:
        _within += 1
        if _within == 1:
            with suppress(OSError):  # no process may be started, or there is no file descriptor 2
                pipe, _screen = _filter(), os.dup(2)
                os.dup2(pipe, 2)
    try:
        yield
    finally:
        with _lock:
            _within -= 1
            if _within == 0 and _screen >= 0:
                os.dup2(_screen, 2)
                os.close(_screen)
                _screen = -1
