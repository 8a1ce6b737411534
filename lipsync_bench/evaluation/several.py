# SPDX-License-Identifier: Apache-2.0
"""One evaluation by several processes that this one starts: on this machine, or on a Ray cluster."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import pandas as pd

from lipsync_bench.datamodules.errors import JobsFailed
from lipsync_bench.datamodules.prepare.pool import WorkerDied, run_jobs
from lipsync_bench.datamodules.slices import WHOLE, rank_and_world
from lipsync_bench.datamodules.splitting import Splitting
from lipsync_bench.evaluation.options import Running
from lipsync_bench.evaluation.task.selection import Result
from lipsync_bench.on_devices import on_devices

__all__ = ["Several"]


class _Job(NamedTuple):
    call: Callable[..., Result]
    running: Running
    slice: str


def _slice(job: _Job) -> Result | Exception:
    """A slice's rows are in its files; tables are sent by the slice that ended last alone."""
    try:
        result = job.call(running=job.running, splitting=Splitting(job.slice), progress=False)
    except Exception as error:  # is raised again by the process that handed out the slices
        return error
    return replace(result, rows=pd.DataFrame()) if result.missing else result


class Several(NamedTuple):
    """An evaluation that several processes share.

    Args:
        call: The evaluation, which lacks the three following arguments.
        running: With the number of processes.
        splitting: Where they run.
        progress: Show that of the first process.
    """

    call: Callable[..., Result]
    running: Running
    splitting: Splitting
    progress: bool

    @staticmethod
    def wanted(running: Running, splitting: Splitting) -> bool:
        """Whether several processes are to be started.

        Raises:
            ValueError: This process is one of several already.
        """
        if (running.devices or 1) <= 1 and not splitting.on_ray:
            return False
        asked = "--executor ray" if splitting.on_ray else f"--devices {running.devices}"
        if splitting.slice not in (None, WHOLE):
            raise ValueError(
                f"{asked} with --slice {splitting.slice}. Expected one of the two, because both split the clips. Leave "
                "one of them out"
            )
        if rank_and_world()[1] > 1 and not splitting.on_ray:
            raise ValueError(
                f"{asked} in one of {rank_and_world()[1]} processes of torchrun, mpirun or srun. Expected one of the "
                "two, because both start a process a GPU. Leave out --devices, or start one process"
            )
        return True

    def run(self) -> Result:
        """Run it.

        Raises:
            Exception: That of the first process that failed.
            JobsFailed: A process of Ray died.
        """
        alone = replace(self.running, devices=None)
        if not self.splitting.on_ray:
            return on_devices(self.running.devices or 1, self.call, running=alone, progress=self.progress)
        from lipsync_bench.datamodules.prepare.ray_pool import room

        gpus = 0.0 if alone.device == "cpu" else self.splitting.ray_gpus
        count = self.running.devices or room(self.splitting.executor, gpus)
        jobs = [_Job(self.call, alone, f"{index + 1}/{count}") for index in range(count)]
        results = dict(run_jobs(_slice, jobs, count, self.splitting.executor, gpus))
        for result in results.values():
            if isinstance(result, Exception) and not isinstance(result, WorkerDied):
                raise result
        died = [f"{job.slice} ({result})" for job, result in results.items() if isinstance(result, WorkerDied)]
        if died:
            raise JobsFailed(
                f"{len(died)} of {count} slices ended early: {died[0]}. Expected all to end. What is finished is kept; "
                "the same command resumes"
            )
        whole = [result for result in results.values() if isinstance(result, Result) and not result.missing]
        return whole[-1] if whole else self.call(running=alone, splitting=Splitting(WHOLE), progress=self.progress)
