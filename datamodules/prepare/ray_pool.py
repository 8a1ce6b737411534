# SPDX-License-Identifier: Apache-2.0
"""`run_jobs` on a Ray cluster: one task for each job, so that a worker that dies is one job's failure here too.

Tasks of Ray Core, not Ray Data, which waits without end when many workers die: broken videos are the normal case.
Files are not sent: all machines see the same ones, at the same paths.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import cv2

from lipsync_bench.datamodules.prepare.pool import WorkerDied

Job = TypeVar("Job")
Result = TypeVar("Result")

__all__ = ["room", "run_jobs_ray"]


def _connected(address: str) -> Any:
    """Ray's module, connected to the cluster; without an address to the one that Ray finds, else to one of its own."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ValueError(
            "--executor ray: ray is not installed. Expected its package. Run: pip install 'lipsync_bench[ray]'"
        ) from error
    if not ray.is_initialized():
        try:
            ray.init(
                address=address or None,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.WARNING,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"--executor ray{address and f':{address}'}: {str(error).partition(chr(10))[0]}. Expected the address "
                "of a running cluster, such as ray:10.0.0.1:6379, or ray:local for one on this machine alone"
            ) from error
    return ray


def room(executor: str, gpus: float | None) -> int:
    """How many jobs of `gpus` GPUs the cluster runs at once; without GPUs, its cores."""
    has = _connected(executor.partition(":")[2]).cluster_resources()
    each = 1.0 if gpus is None else gpus
    return max(1, int(has.get("GPU", 0.0) / each if has.get("GPU") and each else has.get("CPU", 1.0)))


def _answer(function: Callable[[Job], Result], folder: str, job: Job) -> Result:
    os.chdir(folder)  # relative paths are the driver's
    cv2.setNumThreads(1)
    return function(job)


def run_jobs_ray(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int | None = None,
    address: str = "",
    gpus: float | None = 0.0,
) -> Generator[tuple[Job, Result | WorkerDied], None, None]:
    """As `run_jobs`. A job is never tried again by Ray, and only so many are handed over that all workers have some.

    Args:
        function: As there; all machines need this package.
        jobs: As there.
        workers: How many jobs run at once, at most; twice as many as the cluster has cores are handed over if None.
        address: Of the cluster, as `ray.init` takes it. A connection that there is already is used.
        gpus: GPUs for each job, also a part of one; None is 1 where the cluster has any.

    Raises:
        ValueError: As there; or the cluster has fewer GPUs.
    """
    ray = _connected(address)
    has = ray.cluster_resources()
    here = has.get("GPU", 0.0)
    if gpus is None:
        gpus = min(1.0, here)
    if gpus > here:  # Ray would wait for ever
        raise ValueError(f"--ray-gpus {gpus:g}: the Ray cluster has {here:g} GPUs. Expected no more. Set it lower")
    at_once = workers or 2 * max(1, int(has.get("CPU", 1)))
    task = ray.remote(_answer).options(max_retries=0, num_cpus=1, num_gpus=gpus)
    errors = ray.exceptions
    of_one_job = (  # others, such as the loss of the cluster, are everybody's
        errors.WorkerCrashedError,
        errors.OutOfMemoryError,
        errors.NodeDiedError,
        errors.ObjectLostError,
        errors.RayTaskError,
    )
    waiting, running = deque(jobs), dict[Any, Job]()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.popleft()
                running[task.remote(function, str(Path.cwd()), job)] = job
            for done in ray.wait(list(running))[0]:
                job = running.pop(done)
                try:
                    answer: Result | WorkerDied = ray.get(done)
                except of_one_job as error:
                    text = str(error).strip().splitlines() or [""]
                    answer = WorkerDied(f"the Ray worker ended with {type(error).__name__}: {text[-1]}")
                yield job, answer
    finally:
        for task_of_job in running:
            ray.cancel(task_of_job, force=True)
