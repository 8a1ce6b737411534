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
    """The device of that name; "auto" is this process's GPU where there is one, else the CPU."""
    if name != "auto":
        return name
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def return_memory() -> None:
    """Give freed memory back to the system, where the C library can (glibc); after steps that held much of it."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
