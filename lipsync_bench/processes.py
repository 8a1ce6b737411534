# SPDX-License-Identifier: Apache-2.0
"""Which of several processes this is, and which device is its own."""

import os

import torch

__all__ = ["device_of", "rank_and_world"]


def rank_and_world() -> tuple[int, int]:
    """Rank and number of processes as torchrun and srun announce them."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def device_of(name: str) -> str:
    """The device of that name; "auto" is this process's GPU where there is one, else the CPU."""
    if name != "auto":
        return name
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
