# SPDX-License-Identifier: Apache-2.0
"""The options of commands whose work can be split among processes and machines."""

from dataclasses import dataclass

from cyclopts import Group, Parameter

from lipsync_bench.datamodules.limits import within
from lipsync_bench.datamodules.slices import WHOLE, Slice, parse_slice, slice_of

__all__ = ["Splitting"]


@Parameter(name="*", group=Group("Several machines", sort_key=6))
@dataclass(frozen=True)
class Splitting:
    """How the work is split; see docs/clusters.md.

    Args:
        slice: Do one of N parts of the work, as 2/8; the part that ends last joins all. If not given it is what
            torchrun, mpirun, srun or a SLURM array say; 1/1 does everything there too.
        executor: Where jobs run: local, or ray (ray:ADDRESS for a running cluster, ray:local for one of its own).
        ray_gpus: With Ray, GPUs for each job, such as 0.25; if not given 1 for networks where there are GPUs.
    """

    slice: str | None = None
    executor: str = "local"
    ray_gpus: float | None = None

    def __post_init__(self) -> None:
        if self.slice is not None:
            parse_slice(self.slice)
        if self.executor not in ("local", "ray") and not self.executor.startswith("ray:"):
            raise ValueError(f"--executor {self.executor}. Expected local, ray or ray:ADDRESS")
        within("ray_gpus", self.ray_gpus, 0, 64)

    @property
    def on_ray(self) -> bool:
        """Whether jobs run on Ray."""
        return self.executor != "local"

    def part(self) -> Slice:
        """This process's part. Ray's own processes are often started by srun, whose variables are not meant there."""
        return slice_of(WHOLE if self.on_ray and self.slice is None else self.slice)
