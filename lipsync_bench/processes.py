# SPDX-License-Identifier: Apache-2.0
"""Which of several processes this is, which device is its own, and its memory."""

import ctypes
import functools
import itertools
import os
from contextlib import suppress
from datetime import timedelta

import torch
import torch.distributed

LONGEST_WAIT = timedelta(days=7)  # of the quickest process for the slowest
_LAUNCHERS = (  # torchrun; Open MPI; MPICH and Intel MPI
    ("RANK", "WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
)
_LOCAL_RANKS = ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID")

_meetings = itertools.count()

__all__ = ["device_of", "has_meeting_place", "rank_and_world", "return_memory", "wait_for_all"]


def _slurm() -> tuple[str, str] | None:
    """Task and tasks of a step of srun. The script of sbatch is no task, though it is told the job's number of them."""
    task = os.environ.get("SLURM_PROCID")
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS") or os.environ.get("SLURM_NTASKS")
    in_step = "SLURM_STEP_ID" in os.environ or task != "0"
    return (task, tasks) if task is not None and tasks is not None and in_step else None


def _announced() -> tuple[str, str, str] | None:
    """Rank, number of processes, and the names of the variables that tell them."""
    for names in _LAUNCHERS:
        rank, world = (os.environ.get(name) for name in names)
        if rank is not None and world is not None:
            return rank, world, " and ".join(names)
    rank, world = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank not in (None, "0") or world not in (None, "1"):
        return rank or "unset", world or "unset", "RANK and WORLD_SIZE"
    slurm = _slurm()
    return None if slurm is None else (*slurm, "SLURM_PROCID and SLURM_NTASKS")


def rank_and_world() -> tuple[int, int]:
    """Rank and number of processes as torchrun, mpirun or srun announce them; (0, 1) for a process alone.

    Raises:
        ValueError: One of the two is missing, or they are no rank among processes: each process would take itself for
            another, and a part of the work would be done by nobody.
    """
    announced = _announced()
    if announced is None:
        return 0, 1
    rank, world, names = announced
    if not (rank.isascii() and rank.isdigit() and world.isascii() and world.isdigit() and int(rank) < int(world)):
        raise ValueError(
            f"{names} are {rank} and {world} in the environment. Expected a rank below the number of processes. Start "
            "with torchrun, mpirun or srun, or unset both"
        )
    return int(rank), int(world)


def has_meeting_place() -> bool:
    """Whether the processes are told where to wait for each other."""
    return "MASTER_ADDR" in os.environ and "MASTER_PORT" in os.environ


@functools.lru_cache(maxsize=1)
def _store(rank: int, world: int) -> torch.distributed.Store:
    found = torch.distributed.rendezvous("env://", rank=rank, world_size=world, timeout=LONGEST_WAIT)
    return next(iter(found))[0]


def wait_for_all() -> None:
    """Return when every process has come here; for processes that have a meeting place, any number of times.

    No process group is made: torchmetrics would wait for all in it, and under torchrun there can be no second one.
    """
    rank, world = rank_and_world()
    store, number = _store(rank, world), next(_meetings)
    for phase in ("come", "gone"):
        key = f"lipsync_bench/{number}/{phase}"
        if store.add(key, 1) == world:
            store.set(f"{key}/all", "1")
        if phase == "come" or rank == 0:  # which may keep the store for the others
            store.wait([f"{key}/all"], LONGEST_WAIT)


def device_of(name: str) -> str:
    """The device of that name; "auto" is this process's GPU where there is one, else the CPU.

    Raises:
        ValueError: There is no such device, or it does not work; says which there are.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = ["cpu", *(f"cuda:{index}" for index in range(gpus))]
    if torch.backends.mps.is_available():
        there.append("mps")
    if name == "auto":
        local = next((os.environ[variable] for variable in _LOCAL_RANKS if variable in os.environ), "0")
        name = f"cuda:{int(local) % gpus}" if gpus else "cpu"  # a launcher may show each process its own GPU alone
    if name not in there and not (name == "cuda" and gpus):
        raise ValueError(f"device {name!r}: not there. Expected auto or one of {', '.join(there)}. Set --device")
    try:
        torch.empty(1, device=name)
    except RuntimeError as error:  # such as one whose memory others have filled, or that is set to one process alone
        raise ValueError(
            f"device {name!r} does not work: {str(error).partition(chr(10))[0]}. Expected auto or one of "
            f"{', '.join(there)} that does. Set --device"
        ) from error
    return name


def return_memory() -> None:
    """Give freed memory back to the system, where the C library can (glibc); after steps that held much of it."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
