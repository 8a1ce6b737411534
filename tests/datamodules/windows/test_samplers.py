# SPDX-License-Identifier: Apache-2.0
"""Keys of windows: shared out among processes, each exactly once in an evaluation."""

import pytest

from lipsync_bench.datamodules.windows.samplers import EpochSampler, EvaluationSampler


def test_training_keys_over_ranks() -> None:
    keys = []
    for rank in range(2):
        sampler = EpochSampler(11, rank, 2)
        sampler.set_epoch(7)
        assert len(list(sampler)) == len(sampler) == 5
        keys += list(sampler)
    assert sorted(keys) == [(7, index) for index in range(10)]


@pytest.mark.parametrize(("length", "world_size"), [(5, 2), (4, 4), (7, 3), (6, 1)])
def test_evaluation_keys_over_ranks_are_each_index_once(length: int, world_size: int) -> None:
    samplers = [EvaluationSampler(length, rank, world_size) for rank in range(world_size)]
    for sampler in samplers:
        sampler.set_epoch(3)
        assert len(list(sampler)) == len(sampler)
    assert sorted(key for sampler in samplers for key in sampler) == [(0, index) for index in range(length)]


def test_a_rank_without_windows_is_refused() -> None:
    with pytest.raises(ValueError, match=r"3 samples for 4 processes.*--trainer.devices"):
        EvaluationSampler(3, 0, 4)
