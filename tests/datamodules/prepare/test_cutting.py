# SPDX-License-Identifier: Apache-2.0
"""Clips that lists of time stamps cut out of longer videos, as those of HDTF."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from lipsync_bench.datamodules.clips.clip import Clip, read_header
from lipsync_bench.datamodules.datasets.hdtf import HDTF
from lipsync_bench.datamodules.datasets.time_stamps import Stamp, read_stamps, speaker_of
from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.media.audio import load_audio
from lipsync_bench.datamodules.media.video import VideoWriter, probe, read_frames
from lipsync_bench.datamodules.prepare.cutting import Cutting, cut_video
from tests.datamodules.numbered_videos import numbers, write_numbered
from tests.datamodules.preparation import contents, failures, manifest, run, write_video

BOM = "\N{BYTE ORDER MARK}"


def write_lists(folder: Path) -> None:
    """Two parts, with what the published lists have: a byte order mark, blanks at line ends, empty lines."""
    folder.mkdir(parents=True)
    for name, text in {
        "RD_annotion_time.txt": "Radio1.mp4 00:00-00:01 00:01-00:02 \r\n\r\n",
        "RD_crop_wh.txt": "Radio1_1.mp4 10 200 5 200\n",
        "RD_resolution.txt": "Radio1.mp4 220\n",
        "WDA_annotion_time.txt": f"{BOM}AnnLee0.mp4 00:01-00:02\nAnnLee1.mp4 01:10-02:00 \n",
    }.items():
        (folder / name).write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("long") / "long.mp4", 52)


@pytest.fixture
def downloads(tmp_path: Path, video: Path) -> Path:
    """The lists, and two of the three videos that they name."""
    root = tmp_path / "hdtf"
    write_lists(root / "HDTF_dataset")
    for name in ("RD/Radio1.mp4", "AnnLee0.mp4"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(video, root / name)
    return root


def test_lists_as_they_are_published(tmp_path: Path) -> None:
    write_lists(tmp_path / "lists")
    assert read_stamps(tmp_path / "lists") == [
        Stamp("Radio1", 0, 0, 1, None, 220),
        Stamp("Radio1", 1, 1, 2, (10, 5, 200, 200), 220),
        Stamp("AnnLee0", 0, 1, 2),
        Stamp("AnnLee1", 0, 70, 120),
    ]
    assert [speaker_of(name) for name in ("AnnLee0", "AnnLee", "Radio12", "2020")] == [
        "AnnLee",
        "AnnLee",
        "Radio",
        "2020",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("A.mp4 00:30-00:20", r"X_annotion_time\.txt:1: found '00:30-00:20'\. Expected a time stamp such as"),
        ("A.mp4 00:30", r"found '00:30'\. Expected a time stamp"),
        ("A.mp4", r"A is without a time stamp\. Expected each video once"),
        ("A.mp4 0:1-0:2\n", r"found '0:1-0:2'"),
        ("A.mp4 00:01-00:02\nA.mp4 00:03-00:04", r":2: A is also on .*X_annotion_time\.txt:1"),
        ("../A.mp4 00:01-00:02", r"found '\.\./A'\. Expected the name of a video"),
    ],
)
def test_a_line_that_is_no_time_stamp_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "X_annotion_time.txt").write_text(line)
    with pytest.raises(ValueError, match=message):
        read_stamps(tmp_path)


def test_without_lists_the_error_says_where_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no list \*_annotion_time\.txt.*https://github\.com/MRzzm/HDTF"):
        read_stamps(tmp_path)


def test_a_part_has_the_frames_and_the_audio_of_its_time(tmp_path: Path) -> None:
    time = np.arange(3 * 16000) / 16000
    rising = (0.4 * np.sin(2 * np.pi * (200 * time + 300 * time**2))).astype(np.float32)
    source = write_numbered(tmp_path / "a.mp4", 70, audio=rising)
    cut_video(Cutting(source, Stamp("a", 0, 1, 2)), tmp_path / "part.mp4")
    assert numbers(read_frames(tmp_path / "part.mp4")) == list(range(25, 50))
    samples = load_audio(tmp_path / "part.mp4")[:16000]  # AAC fills its last frame
    assert len(samples) == 16000
    assert np.correlate(rising[15000:33000], samples, "valid").argmax() == 1000


def test_a_square_is_cut_out_and_resized(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 25.0, (60, 80), audio=np.zeros(16000, np.float32)) as writer:
        for _ in range(25):
            frame = np.zeros((60, 80, 3), np.uint8)
            frame[10:40, 20:50] = 200
            writer.write(frame)
    cut_video(Cutting(tmp_path / "a.mp4", Stamp("a", 0, 0, 1, (20, 10, 30, 30), 60)), tmp_path / "part.mp4")
    first = next(iter(read_frames(tmp_path / "part.mp4")))
    assert first.shape == (512, 512, 3)
    assert np.abs(first[20:-20, 20:-20].astype(int) - 200).max() < 8
    for square, height in (((20, 10, 30, 30), 720), ((60, 10, 30, 30), 60)):
        with pytest.raises(MediaError, match=r"frames of 80x60, the square 30x30 at .* Download it in that size"):
            cut_video(Cutting(tmp_path / "a.mp4", Stamp("a", 0, 0, 1, square, height)), tmp_path / "other.mp4")


def test_a_video_that_ends_before_the_part_leaves_no_file(tmp_path: Path) -> None:
    source = write_numbered(tmp_path / "a.mp4", 50, audio=np.zeros(32000, np.float32))
    with pytest.raises(MediaError, match=r"ends at 2\.0 s\. Expected a part from 1 s to 4 s"):
        cut_video(Cutting(source, Stamp("a", 0, 1, 4)), tmp_path / "part.mp4")
    assert not (tmp_path / "part.mp4").exists()
    cut_video(Cutting(source, Stamp("a", 0, 1, 3)), tmp_path / "part.mp4")  # stamps are rounded to seconds
    assert probe(tmp_path / "part.mp4").frames == 25


def test_hdtf_is_cut_and_prepared_and_what_is_there_is_kept(downloads: Path, caplog: pytest.LogCaptureFixture) -> None:
    report = run(downloads, dataset="hdtf")
    out = downloads.parent / "out"
    assert (report.done, report.skipped, report.failed) == (3, 0, 1)
    assert report.clips == ("AnnLee/AnnLee0_0", "Radio/Radio1_0", "Radio/Radio1_1")
    assert [row["id"] for row in failures(out)] == ["AnnLee/AnnLee1_0"]
    assert "AnnLee1.mp4: no such file" in failures(out)[0]["reason"]
    assert manifest(out)["source_root"] == str((out / "videos").resolve())
    header = read_header(out / "Radio" / "Radio1_1.safetensors")
    assert (header.source, header.frames, header.source_height) == ("Radio/Radio1_1.1s-2s.mp4", 25, 220)
    before = contents(out)
    shutil.rmtree(downloads / "RD")  # the clips hold without the longer videos
    assert run(downloads, dataset="hdtf").skipped == 3
    after = contents(out)
    assert {name for name in before if before[name] != after.get(name)} <= {"manifest.json", "failures.csv"}
    data = HDTF(out, val_fraction=0, test_fraction=0.5)
    with caplog.at_level(logging.WARNING):
        data.prepare_data()
        speakers = {split: {path.parent.name for path in data.clips(split)} for split in ("train", "test")}
    assert sorted(speakers["train"] | speakers["test"]) == ["AnnLee", "Radio"]
    assert not speakers["train"] & speakers["test"]
    assert "hdtf: 3 clips in" in caplog.text
    assert "Expected the 436" in caplog.text
    with pytest.raises(ValueError, match=r"3 clips in .* Expected the 436"):
        HDTF(out, check_counts="error").clips("train")


def test_other_stamps_are_another_clip(downloads: Path) -> None:
    run(downloads, dataset="hdtf")
    (downloads / "HDTF_dataset" / "WDA_annotion_time.txt").write_text("AnnLee0.mp4 00:00-00:02\n")
    report = run(downloads, dataset="hdtf")
    assert (report.done, report.skipped) == (1, 2)
    assert read_header(downloads.parent / "out" / "AnnLee" / "AnnLee0_0.safetensors").frames == 50


def test_clips_that_are_cut_already_are_taken_as_they_are(tmp_path: Path, good: Path) -> None:
    write_lists(tmp_path / "in")
    for name in ("Radio1_1", "AnnLee0_0"):
        shutil.copy(good, tmp_path / "in" / f"{name}.mp4")
    report = run(tmp_path / "in", dataset="hdtf")
    assert (report.clips, report.failed) == (("AnnLee/AnnLee0_0", "Radio/Radio1_1"), 2)
    assert manifest(tmp_path / "out")["source_root"] == str((tmp_path / "in").resolve())
    assert not (tmp_path / "out" / "videos").exists()


def test_the_data_sets_own_form_has_the_squares_of_the_lists(downloads: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        report = run(downloads, dataset="hdtf_512")
    assert report.clips == ("Radio/Radio1_1",)
    assert "no square for 3 clips, which are left out: Radio1_0, AnnLee0_0, AnnLee1_0" in caplog.text
    with Clip(downloads.parent / "out" / "Radio" / "Radio1_1.safetensors") as clip:
        assert (clip.header.source_width, clip.header.source_height) == (512, 512)
