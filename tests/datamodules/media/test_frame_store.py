# SPDX-License-Identifier: Apache-2.0
"""Frames on the disk: bit for bit, read again, gone afterwards."""

import numpy as np
import pytest

from lipsync_bench.datamodules.media.frame_store import FrameStore


@pytest.mark.parametrize("size_hw", [(64, 96), (33, 47), (720, 1280)])
def test_frames_come_back_bit_for_bit_as_often_as_they_are_read(tmp_path, size_hw):
    random = np.random.default_rng(0)
    frames = [random.integers(0, 256, (*size_hw, 3), np.uint8) for _ in range(5)]
    store = FrameStore(tmp_path / "row" / "clip.mkv")
    for frame in frames:
        store.add(frame)
    for _ in range(2):
        back = list(store.read())
        assert len(back) == len(frames)
        assert all((a == b).all() for a, b in zip(frames, back, strict=True))
    store.close()
    assert not list((tmp_path / "row").iterdir())


@pytest.mark.parametrize("count", [1, 15, 16, 17, 40])
def test_frames_are_read_backwards_too(tmp_path, count):
    store = FrameStore(tmp_path / "clip.mkv")
    frames = [np.full((32, 48, 3), 6 * k, np.uint8) for k in range(count)]
    for frame in frames:
        store.add(frame)
    for _ in range(2):
        assert [int(frame[0, 0, 0]) for frame in store.read_back()] == [6 * k for k in reversed(range(count))]
        assert all((a == b).all() for a, b in zip(frames, store.read(), strict=True))
    store.close()


def test_an_interrupted_or_empty_store_leaves_nothing(tmp_path):
    store = FrameStore(tmp_path / "clip.mkv")
    store.add(np.zeros((32, 32, 3), np.uint8))
    store.close()
    FrameStore(tmp_path / "other.mkv").close()
    assert not list(tmp_path.iterdir())
