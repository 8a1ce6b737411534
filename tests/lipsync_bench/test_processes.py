# SPDX-License-Identifier: Apache-2.0
"""Who each of several processes is, as launchers tell it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lipsync_bench.processes import rank_and_world

VARIABLES = (
    *("RANK", "WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMI_SIZE"),
    *("SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS"),
)


@pytest.fixture
def announce(monkeypatch):
    def announce(**variables):
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return announce


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, (1, 2)),
        ({"RANK": "0"}, (0, 1)),
        ({"WORLD_SIZE": "1"}, (0, 1)),
        ({"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4"}, (3, 4)),
        ({"PMI_RANK": "1", "PMI_SIZE": "4"}, (1, 4)),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, (1, 2)),  # srun
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"}, (0, 2)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, (0, 1)),  # the script of sbatch, which is alone
        (
            {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1"},
            (0, 1),
        ),
        ({"SLURM_NTASKS": "4"}, (0, 1)),  # salloc
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "RANK": "5", "WORLD_SIZE": "8"}, (5, 8)),  # torchrun in each task
    ],
)
def test_rank_and_number_of_processes(announce, variables, expected):
    announce(**variables)
    assert rank_and_world() == expected


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "1"},  # each process would leave the first clip to another
        {"WORLD_SIZE": "2"},  # each would take itself for the first
        {"RANK": "2", "WORLD_SIZE": "2"},
        {"RANK": "-1", "WORLD_SIZE": "2"},
        {"RANK": "one", "WORLD_SIZE": "2"},
        {"RANK": "0", "WORLD_SIZE": ""},
    ],
)
def test_a_rank_that_is_none_is_refused(announce, variables):
    announce(**variables)
    with pytest.raises(ValueError, match=r"RANK and WORLD_SIZE are .* Expected a rank below .* torchrun"):
        rank_and_world()


def test_processes_wait_for_each_other_any_number_of_times(tmp_path):
    """Without torchrun, which would keep the meeting place; the first process keeps it itself then."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script = (
        "import sys, time; from pathlib import Path; from lipsync_bench.processes import wait_for_all\n"
        "for k in range(3):\n"
        "    time.sleep(0.3 * (sys.argv[1] == '1')); Path(sys.argv[2], f'{k}-{sys.argv[1]}').touch(); wait_for_all()\n"
        "    assert len(list(Path(sys.argv[2]).glob(f'{k}-*'))) == 2\n"
    )
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(rank), str(tmp_path)],
            cwd=Path(__file__).parents[2],
            env={**os.environ, **place, "RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
