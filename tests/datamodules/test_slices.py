# SPDX-License-Identifier: Apache-2.0
"""Which part of the work a process has, as launchers, SLURM or the user tell it."""

import pytest

from lipsync_bench.datamodules.slices import parse_slice, rank_and_world, slice_of

VARIABLES = (
    *("RANK", "WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMI_SIZE"),
    *("SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS"),
    *(f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "MIN", "MAX", "STEP", "COUNT")),
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


def array(task, least, count, **more):
    values = {"ID": task, "MIN": least, "COUNT": count, **more}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (0, 1)),
        (array(0, 0, 4), (0, 4)),
        (array(3, 3, 4, MAX=6, STEP=1), (0, 4)),  # --array=3-6
        (array(6, 3, 4), (3, 4)),
        (array(8, 0, 4, MAX=12, STEP=4), (2, 4)),  # --array=0-12:4
        (array(8, 0, 4, MAX=12), (2, 4)),
        (array(12, 0, 4, STEP=4), (3, 4)),
        (array(12, 0, 4, MAX=13, STEP=4), (3, 4)),
        (array(7, 7, 1, MAX=7, STEP=1), (0, 1)),
        ({**array(0, 0, 1), "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, (0, 1)),  # the array's script
        ({**array(3, 1, 4), "SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, (5, 8)),  # srun of 2 in an array of 4
        ({**array(3, 1, 4), "RANK": "2", "WORLD_SIZE": "3"}, (8, 12)),  # torchrun in each task
        ({"RANK": "5", "WORLD_SIZE": "8"}, (5, 8)),
    ],
)
def test_the_slice_that_the_environment_tells(announce, variables, expected):
    announce(**variables)
    found = slice_of()
    assert (found.index, found.count) == expected


def test_all_tasks_of_an_array_with_srun_do_everything_once(announce):
    done = []
    for task in range(0, 16, 4):
        for rank in "01":
            announce(**array(task, 0, 4, MAX=12, STEP=4), SLURM_PROCID=rank, SLURM_NTASKS="2", SLURM_STEP_ID="0")
            done += slice_of().of(range(19))
    assert sorted(done) == list(range(19))


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_ARRAY_TASK_ID": "3"},
        {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "4"},
        array(4, 0, 4),
        array(-1, 0, 4),
        array("x", 0, 4),
        array("", 0, 4),
        array(0, 0, 0),
        array(3, 0, 4, MAX=12, STEP=4),
        array(1, 1, 3, MAX=7, STEP=1),  # --array=1,2,7
        array(2, 1, 3, MAX=8),
        array(2, 1, 3, MAX="all"),
    ],
)
def test_an_array_that_is_none_is_refused(announce, variables):
    announce(**variables)
    with pytest.raises(ValueError, match=r"SLURM_ARRAY_TASK_ID=.* Expected the id, .* --slice I/N"):
        slice_of()
    assert slice_of("2/3").index == 1  # the way out


def test_the_option_counts_more_than_the_environment(announce):
    announce(**array(3, 1, 4), SLURM_PROCID="1", SLURM_NTASKS="2")
    assert str(slice_of("2/3")) == "2/3"
    assert slice_of("1/1").of("abc") == "abc"
    assert slice_of("2/3").of("abcdefgh") == "beh"
    assert slice_of("8/8").of("abc") == ""


@pytest.mark.parametrize(
    "text", ["0/2", "3/2", "1", "1/", "/2", "a/b", "-1/2", "1/0", "1.0/2", " 1/2", "1/2/3", "", "١/٢"]
)
def test_an_option_that_is_no_slice_is_refused(text):
    with pytest.raises(ValueError, match=r"--slice .*Expected I/N with I from 1 to N, such as --slice 2/8"):
        parse_slice(text)


def test_the_option_is_refused_to_processes_of_torchrun(announce):
    announce(RANK="0", WORLD_SIZE="2")
    with pytest.raises(ValueError, match=r"--slice 1/2 and WORLD_SIZE=2 .* Expected one of the two"):
        slice_of("1/2")
