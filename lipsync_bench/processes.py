# SPDX-License-Identifier: Apache-2.0
"""Which of several processes this is, which device is its own, and its memory."""

import ctypes
import os
from contextlib import suppress

import torch

__all__ = ["device_of", "rank_and_world", "return_memory"]


def rank_and_world() -> tuple[int, int]:
    """Rank and number of processes as torchrun and srun announce them."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


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
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if gpus else "cpu"
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
