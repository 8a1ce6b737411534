# SPDX-License-Identifier: Apache-2.0
"""How much of the machine this process may use."""

__all__ = ["usable_cores"]


def usable_cores() -> int:
    """Processor cores for this process, at least 1, on any system.

    The fewest of the machine's cores, those of the process's affinity (taskset, SLURM), what a container's CPU quota
    comes to, rounded up, and LOKY_MAX_CPU_COUNT if it is set.
    """
    import joblib  # takes a tenth of a second, which commands that ask for no cores need not spend

    return int(joblib.cpu_count())
