# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from lipsync_bench.datamodules import ClipFolder
from lipsync_bench.datamodules.datasets.synthetic import make_corpus
from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.media.audio import load_audio
from lipsync_bench.datamodules.media.video import VideoWriter, read_frames
from lipsync_bench.datamodules.prepare.options import PrepareOptions
from lipsync_bench.datamodules.prepare.prepare import prepare
from lipsync_bench.inference.cutting import cut_by_time


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("talk")
    make_corpus(
        folder,
        speakers=1,
        clips_per_speaker=1,
        seconds=7.0,
        seed=3,
        val_clips=0,
        test_clips=0,
        workers=1,
        progress=False,
    )
    return next(folder.rglob("*.mp4"))


def test_the_parts_follow_each_other_with_their_audio_and_become_splits(talk, tmp_path):
    parts = cut_by_time(talk, tmp_path / "parts", val_seconds=2.0, test_seconds=2.4)
    whole = list(read_frames(talk, 25.0))
    assert [(part.split, part.first, part.frames) for part in parts] == [
        ("train", 0, len(whole) - 110),
        ("val", len(whole) - 110, 50),
        ("test", len(whole) - 60, 60),
    ]
    samples = load_audio(talk)
    for part in parts:
        frames = list(read_frames(part.path, 25.0))
        assert len(frames) == part.frames
        for index in (0, -1):  # the first and last pictures are those of the whole video, but for the encoding
            source = whole[part.first : part.first + part.frames][index]
            assert np.abs(frames[index].astype(int) - source).mean() < 2
        audio, expected = load_audio(part.path), samples[part.first * 640 : (part.first + part.frames) * 640]
        count = min(len(audio), len(expected))
        assert count >= 0.98 * len(expected)
        assert np.corrcoef(audio[:count], expected[:count])[0, 1] > 0.95  # AAC, but in place

    report = prepare(tmp_path / "parts", tmp_path / "clips", PrepareOptions("lrs2", workers=1), progress=False)
    assert (report.done, report.failed) == (3, 0)
    data = ClipFolder(root=tmp_path / "clips", splits=tmp_path / "clips" / "splits")
    assert [[path.stem for path in data.clips(split)] for split in ("train", "val", "test")] == [
        ["train"], ["val"], ["test"],
    ]  # fmt: skip


def test_too_short_a_video_is_told_and_nothing_is_written(talk, tmp_path):
    with pytest.raises(
        ValueError, match=r"has 7\.0 s; train, val and test would get 1\.0, 3\.0, 3\.0 s.*--test_seconds"
    ):
        cut_by_time(talk, tmp_path / "parts", val_seconds=3.0, test_seconds=3.0)
    assert not (tmp_path / "parts").exists()


def test_missing_and_silent_videos_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="--video"):
        cut_by_time(tmp_path / "none.mp4", tmp_path / "parts")
    with VideoWriter(tmp_path / "silent.mp4", 25.0, (64, 64)) as writer:
        writer.write(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(MediaError, match="no audio track"):
        cut_by_time(tmp_path / "silent.mp4", tmp_path / "parts")
