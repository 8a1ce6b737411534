# SPDX-License-Identifier: Apache-2.0
"""Worker processes that may die: one job each at a time, so that a death is one job's failure and the others go on.

The pools of the standard library and of loky give up all waiting jobs when one worker is killed (out of memory, a crash
in a codec), and pebble's workers share one pipe, so that a death in the middle of a message breaks or blocks them all.
Here each worker has its own: the parent knows which job it had, reports it as `WorkerDied` and starts another worker.
"""

import contextlib
import faulthandler
import logging
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Generic, TypeVar, cast

import cv2

from lipsync_bench.datamodules.cores import usable_cores

Job = TypeVar("Job")
Result = TypeVar("Result")

logger = logging.getLogger(__name__)

__all__ = ["WorkerDied", "run_jobs"]


class WorkerDied(RuntimeError):
    """The process that had the job ended without an answer."""


@dataclass
class _Worker(Generic[Job]):
    process: SpawnProcess
    connection: Connection
    job: Job | None = None


def _work(connection: Connection, function: Callable[[Job], Result]) -> None:
    """Answer jobs until the parent is gone or sends None."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    faulthandler.enable()
    cv2.setNumThreads(1)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while (job := connection.recv()) is not None:
            connection.send(function(job))


def _give(worker: _Worker[Job], job: Job) -> None:
    worker.job = job
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died just now: receiving will tell
        worker.connection.send(job)


def _start(function: Callable[[Job], Result]) -> _Worker[Job]:
    context = multiprocessing.get_context("spawn")  # fork would copy locks of libraries that have threads
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, function), daemon=True)
    process.start()
    theirs.close()  # so that the end of the process is the end of the pipe
    return _Worker(process, ours)


def _stop(workers: Sequence[_Worker[Job]], *, kill: bool) -> list[int]:
    for worker in workers:
        if kill:
            worker.process.kill()
        worker.connection.close()  # an idle worker sees the end and returns
    for worker in workers:
        worker.process.join()
    return [worker.process.pid or 0 for worker in workers]


def run_jobs(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int | None = None,
    executor: str = "local",
    gpus: float | None = 0.0,
) -> Generator[tuple[Job, Result | WorkerDied], None, None]:
    """Yield every job with its result, in the order of completion.

    Closing the generator, or an exception such as KeyboardInterrupt in it, kills the workers at once.

    Args:
        function: Importable by name; it has to catch its own exceptions, for one that it raises ends the worker.
        jobs: Picklable.
        workers: Processes; one for each core (of Ray's cluster) if None. With 1, everything runs in this process, where
            a crash is not survived; not on Ray.
        executor: "local", or "ray" or "ray:ADDRESS", see `ray_pool`.
        gpus: With Ray, GPUs for each job; see there.

    Raises:
        ValueError: Ray is not installed, or there is no cluster at the address.
    """
    if executor != "local":
        from lipsync_bench.datamodules.prepare.ray_pool import run_jobs_ray

        yield from run_jobs_ray(function, jobs, workers, executor.partition(":")[2], gpus)
        return
    workers = min(len(jobs), workers or usable_cores())
    if workers <= 1:
        for job in jobs:
            yield job, function(job)
        return
    waiting = deque(jobs)
    pool: list[_Worker[Job]] = []
    clean = False
    try:
        while waiting or pool:
            while waiting and len(pool) < workers:
                worker: _Worker[Job] = _start(function)
                pool.append(worker)
                _give(worker, waiting.popleft())
            ready = wait([worker.connection for worker in pool])
            for worker in [worker for worker in pool if worker.connection in ready]:
                job = cast(Job, worker.job)
                try:
                    answer: Result | WorkerDied = worker.connection.recv()
                except (EOFError, OSError):  # before the answer, or in its middle
                    pool.remove(worker)
                    _stop([worker], kill=False)
                    answer = WorkerDied(f"the worker process ended with status {worker.process.exitcode}")
                    yield job, answer
                    continue
                if waiting:
                    _give(worker, waiting.popleft())
                else:
                    pool.remove(worker)
                    _stop([worker], kill=False)
                yield job, answer
        clean = True
    finally:
        if not clean:
            _stop(pool, kill=True)
