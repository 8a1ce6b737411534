# SPDX-License-Identifier: Apache-2.0
"""Which part of the work is this process's, as the option --slice, torchrun, mpirun, srun or SLURM's arrays say.

Slice k of N takes every N-th job from the k-th on, so that all slices find work of all kinds.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

Item = TypeVar("Item")

_LAUNCHERS = (  # torchrun; Open MPI; MPICH and Intel MPI
    ("RANK", "WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
)
_ARRAY = "SLURM_ARRAY_TASK_"
WHOLE = "1/1"
"""The option for everything, whatever the environment says."""

__all__ = ["WHOLE", "Slice", "parse_slice", "rank_and_world", "slice_of"]


@dataclass(frozen=True)
class Slice:
    """One of several parts of a list of jobs.

    Args:
        index: Which, from 0.
        count: Of how many.
        said_by: Where that was found: the option, or variables of the environment.
    """

    index: int = 0
    count: int = 1
    said_by: str = field(default="", compare=False)

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """The items that are this slice's."""
        return items[self.index :: self.count]

    @property
    def suffix(self) -> str:
        """As in names of files."""
        return f"{self.index + 1}-of-{self.count}"

    def __str__(self) -> str:
        """As the option."""
        return f"{self.index + 1}/{self.count}"


def _slurm_step() -> tuple[str, str] | None:
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
    slurm = _slurm_step()
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


def _array_task() -> Slice:
    """The task of a SLURM array among its tasks, whose ids may begin anywhere and have any step."""
    found = {name: os.environ.get(f"{_ARRAY}{name}") for name in ("ID", "MIN", "MAX", "STEP", "COUNT")}
    if found["ID"] is None:
        return Slice()
    told = ", ".join(f"{_ARRAY}{name}={value}" for name, value in found.items() if value is not None)
    wrong = ValueError(
        f"{told} in the environment. Expected the id, the least id and the number of the array's tasks, with one step "
        f"between ids, as of sbatch --array=0-7. Give --slice I/N, or --slice {WHOLE} where each task is to do all"
    )
    values = {name: int(text) for name, text in found.items() if text is not None and re.fullmatch(r"[0-9]{1,9}", text)}
    if len(values) < sum(text is not None for text in found.values()) or not {"MIN", "COUNT"} <= values.keys():
        raise wrong
    count, least, most = values["COUNT"], values["MIN"], values.get("MAX")
    step = values.get("STEP") or (1 if most is None else max(1, (most - least) // max(1, count - 1)))
    regular = most is None or (most - least) // step == count - 1  # not as of --array=1,2,7
    index, rest = divmod(values["ID"] - least, step)
    if rest or not 0 <= index < count or not regular:
        raise wrong
    return Slice(index, count, f"{_ARRAY}ID")


def parse_slice(text: str) -> Slice:
    """The slice of an option I/N.

    Raises:
        ValueError: It is none.
    """
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    index, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= index <= count:
        raise ValueError(f"--slice {text}. Expected I/N with I from 1 to N, such as --slice 2/8")
    return Slice(index - 1, count, "--slice")


def slice_of(option: str | None = None) -> Slice:
    """This process's part: as the option I/N says, else as the environment says; everything where neither does.

    A SLURM array and the processes of srun, mpirun or torchrun in each of its tasks multiply: 4 tasks of 2 processes
    are 8 slices.

    Raises:
        ValueError: The option or a variable is no slice; or the option is given to processes of torchrun, which would
            all do the same.
    """
    if option is not None:
        given = parse_slice(option)
        world = os.environ.get("WORLD_SIZE", "1")
        if given.count > 1 and world != "1":
            raise ValueError(
                f"--slice {option} and WORLD_SIZE={world} in the environment. Expected one of the two, because each "
                "process of torchrun would do the same. Leave out --slice, or start without torchrun"
            )
        return given
    task, (rank, world_size) = _array_task(), rank_and_world()
    announced = _announced() if world_size > 1 else None
    said_by = " and ".join(name for name in (task.said_by, announced[2] if announced else "") if name)
    return Slice(task.index * world_size + rank, task.count * world_size, said_by)
