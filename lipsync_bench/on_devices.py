# SPDX-License-Identifier: Apache-2.0
"""Starts processes on this machine that share the work as those of torchrun do, one a GPU where there are GPUs."""

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from lipsync_bench.datamodules.errors import JobsFailed

Result = TypeVar("Result")

_GRACE_S = 20.0  # to end after Ctrl-C
_LOG = logging.getLogger("lipsync_bench")

__all__ = ["on_devices"]


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _interrupt(number: int, frame: object) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # from the terminal and from the parent: once is enough
    raise KeyboardInterrupt


def _work(
    connection: Connection,
    rank: int,
    variables: dict[str, str],
    logs: tuple[int, type[logging.Formatter]],
    call: Callable[..., Any],
    arguments: dict[str, Any],
) -> None:
    signal.signal(signal.SIGINT, _interrupt)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(variables)
    level, formatter = logs
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter("%(message)s" if rank == 0 else f"process {rank + 1}: %(message)s"))
    handler.setLevel(logging.NOTSET if rank == 0 else logging.WARNING)
    _LOG.setLevel(level)
    _LOG.addHandler(handler)
    try:
        result = call(**arguments)
        connection.send((result if rank == 0 else None, None, ""))
    except KeyboardInterrupt:
        pass
    except BaseException as error:
        text = traceback.format_exc()
        try:
            connection.send((None, error, text))
        except Exception:  # it cannot be pickled
            connection.send((None, JobsFailed(f"{type(error).__name__}: {error}"), text))


def _free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def on_devices(count: int, call: Callable[..., Result], **arguments: Any) -> Result:
    """Call a function in `count` processes, which find the variables that torchrun sets, and return the first's result.

    What the first process logs is shown, and the warnings of the others. All end when one fails, when this process is
    interrupted, or when it ends.

    Args:
        count: Processes.
        call: Can be pickled, as its arguments.
        arguments: Of the function.

    Raises:
        Exception: That of the first process that failed.
        JobsFailed: A process died.
        KeyboardInterrupt: After the processes have ended.
    """
    context = multiprocessing.get_context("spawn")
    common = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1"}
    common["MASTER_PORT"] = _free_port()
    formatter = next((type(handler.formatter) for handler in _LOG.handlers if handler.formatter), logging.Formatter)
    logs = _LOG.getEffectiveLevel(), formatter
    pool: dict[Connection, tuple[int, Any]] = {}
    first: Any = None
    try:
        for rank in range(count):
            ours, theirs = context.Pipe(duplex=False)
            variables = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            process = context.Process(target=_work, args=(theirs, rank, variables, logs, call, arguments))
            process.start()
            theirs.close()  # so that the end of the process is the end of the pipe
            pool[ours] = rank, process
        waiting = dict(pool)
        while waiting:
            for connection in wait(list(waiting)):
                assert isinstance(connection, Connection)
                rank, process = waiting.pop(connection)
                try:
                    result, error, text = connection.recv()
                except (EOFError, OSError):
                    process.join()
                    raise JobsFailed(
                        f"process {rank + 1} of {count} ended with status {process.exitcode} (out of memory, or a "
                        "crash in a codec). Expected all to end well. What is finished is kept; the same command "
                        "resumes"
                    ) from None
                if error is not None:
                    raise error from RuntimeError(f"in process {rank + 1} of {count}:\n{text}")
                first = result if rank == 0 else first
        return first
    except KeyboardInterrupt:
        for _, process in pool.values():
            with suppress(ProcessLookupError, TypeError):
                os.kill(process.pid, signal.SIGINT)
        deadline = time.monotonic() + _GRACE_S
        for _, process in pool.values():
            process.join(max(0.0, deadline - time.monotonic()))
        raise
    finally:
        for _, process in pool.values():
            process.kill()
        for connection, (_, process) in pool.items():
            process.join()
            connection.close()
