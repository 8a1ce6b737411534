# SPDX-License-Identifier: Apache-2.0
"""Processes that work together: their meeting place, the device that is each one's own, and their memory."""

import ctypes
import functools
import itertools
import os
import socket
from contextlib import suppress
from datetime import timedelta

import torch
import torch.distributed

from lipsync_bench.datamodules.slices import rank_and_world

LONGEST_WAIT = timedelta(days=7)  # of the quickest process for the slowest
_LOCAL_RANKS = ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID")

_meetings = itertools.count()

__all__ = ["device_of", "has_meeting_place", "return_memory", "wait_for_all"]


def has_meeting_place() -> bool:
    """Whether the processes are told where to wait for each other."""
    return "MASTER_ADDR" in os.environ and "MASTER_PORT" in os.environ


@functools.lru_cache(maxsize=1)
def _store(rank: int, world: int) -> torch.distributed.Store:
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if rank == 0 and address == "127.0.0.1" and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        listener = socket.create_server((address, port))  # the store itself would listen to all networks
        return torch.distributed.TCPStore(
            *(address, port, world, True, LONGEST_WAIT), wait_for_workers=False, master_listen_fd=listener.detach()
        )
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
