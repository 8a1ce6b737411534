# SPDX-License-Identifier: Apache-2.0
"""Writing videos: complete or not at all, in sync with their audio."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from lipsync_bench.datamodules.media import audio, video
from lipsync_bench.datamodules.media.original_audio import OriginalAudio
from tests.datamodules.numbered_videos import flat, numbers, write_numbered
from tests.leftovers import left_by_the_dead


def test_probe_of_a_written_file(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "new" / "12:30 a.mp4", audio=np.zeros(32000, np.float32))
    assert video.probe(path) == video.VideoInfo(path, 48, 32, 25.0, 50, 0, True)
    assert not video.probe(write_numbered(tmp_path / "mute.mp4", 5)).has_audio


@pytest.mark.parametrize("fps", [25.0, 22.13, 30000 / 1001, 60.0, 12.5])
def test_rate_is_written_exactly(tmp_path: Path, fps: float) -> None:
    with video.VideoWriter(tmp_path / "a.mp4", fps, (32, 48), preset="ultrafast") as writer:
        for j in range(30):
            writer.write(flat(j))
    assert video.probe(tmp_path / "a.mp4").fps == pytest.approx(fps, rel=1e-5)
    assert numbers(video.read_frames(tmp_path / "a.mp4", fps)) == list(range(30))


@pytest.mark.parametrize("fps", [25.0, 30.0])
def test_audio_stays_with_its_frame(tmp_path: Path, fps: float) -> None:
    """A click at the start of each white frame comes back within 10 ms, in spite of the encoder's priming samples."""
    white = (0, 7, 30, 55)
    samples = np.zeros(round(60 / fps * 16000), np.float32)
    for k in white:
        samples[round(k * 16000 / fps) :][:64] = 0.8 * np.sin(2 * np.pi * 1000 * np.arange(64) / 16000)
    with video.VideoWriter(tmp_path / "a.mp4", fps, (32, 48), audio=samples, preset="ultrafast") as writer:
        for k in range(60):
            writer.write(np.full((32, 48, 3), 255 if k in white else 0, np.uint8))
    frames = list(video.read_frames(tmp_path / "a.mp4", fps))
    back = audio.load_audio(tmp_path / "a.mp4")
    assert tuple(k for k, frame in enumerate(frames) if frame.mean() > 128) == white
    assert len(frames) == 60
    assert len(samples) <= len(back) < len(samples) + 1024
    for k in white:
        middle = round(k * 16000 / fps) + 32
        begin = max(middle - 480, 0)
        near = np.abs(back[begin : middle + 480])
        centre = begin + (near**2 @ np.arange(len(near))) / (near**2).sum()
        assert abs(centre - middle) < 0.01 * 16000
        assert near.max() > 0.3


@pytest.mark.parametrize("seconds", [0.5, 3.0])
def test_audio_of_another_length_is_kept_completely(tmp_path: Path, seconds: float) -> None:
    samples = np.full(round(seconds * 16000), 0.1, np.float32)
    path = write_numbered(tmp_path / "a.mp4", 50, audio=samples)
    assert len(samples) <= len(audio.load_audio(path)) < len(samples) + 1024
    assert len(list(video.read_frames(path))) == 50


def test_audio_and_frames_are_interleaved(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "a.mp4", 500, audio=np.zeros(20 * 16000, np.float32))
    with av.open(str(path)) as container:
        order = [(packet.pos, packet.stream.type) for packet in container.demux() if packet.size]
    kinds = [kind for _, kind in sorted(order)]
    first_half = kinds[: len(kinds) // 2]
    assert 0.3 < first_half.count("audio") / kinds.count("audio") < 0.7


def test_metadata_comes_back(tmp_path: Path) -> None:
    tags = {"weights_sha256": "0f" * 32, "title": "Späße é", "lipsync_bench": '{"seed": 0}'}
    with av.open(str(write_numbered(tmp_path / "a.mp4", 3, metadata=tags))) as container:
        assert tags.items() <= container.metadata.items()


def _write_all(path: Path, frames: list[np.ndarray], error: BaseException | None = None) -> None:
    with video.VideoWriter(path, 25.0, (32, 48)) as writer:
        for frame in frames:
            writer.write(frame)
        if error is not None:
            raise error


@pytest.mark.parametrize("error", [RuntimeError(), KeyboardInterrupt()])
@pytest.mark.parametrize("frames", [0, 100])
def test_an_exception_leaves_no_file(tmp_path: Path, error: BaseException, frames: int) -> None:
    (tmp_path / "old.mp4").write_bytes(b"old")
    with pytest.raises(type(error)):
        _write_all(tmp_path / "old.mp4", [flat(0)] * frames, error)
    assert [path.name for path in tmp_path.iterdir()] == ["old.mp4"]
    assert (tmp_path / "old.mp4").read_bytes() == b"old"


def test_the_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with video.VideoWriter(path, 25.0, (32, 48)) as writer:
        for _ in range(100):  # the encoder holds some back before anything reaches the disk
            writer.write(flat(0))
        assert not path.exists()
        assert [p.name.startswith(".a.") for p in tmp_path.iterdir()] == [True]
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    with pytest.raises(RuntimeError, match=r"not open.*Add the with"):
        writer.write(flat(0))


def test_files_of_a_killed_writer_are_removed_and_those_of_a_running_one_are_not(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    left = [left_by_the_dead(path), left_by_the_dead(tmp_path / "ab.mp4"), tmp_path / ".a.tmp.mp4"]
    for file in left:
        file.write_bytes(b"half")
    with video.VideoWriter(path, 25.0, (32, 48)) as first:
        first.write(flat(1))
        with video.VideoWriter(path, 25.0, (32, 48)) as second:
            second.write(flat(40))
        first.write(flat(1))
    assert not left[0].exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([left[1].name, left[2].name, "a.mp4"])
    assert numbers(video.read_frames(path)) == [1, 1]  # the one that ended last


@pytest.mark.parametrize(("rate", "channels"), [(48000, 2), (8000, 1), (44100, 2)])
def test_audio_in_pieces_keeps_rate_and_channels(tmp_path: Path, rate: int, channels: int) -> None:
    t = np.arange(2 * rate) / rate
    samples = np.stack([0.5 * np.sin(2 * np.pi * f * t) for f in (300, 700)[:channels]]).astype(np.float32)
    pieces = iter(np.array_split(samples, 37, axis=1))
    path = write_numbered(tmp_path / "a.mp4", 50, audio=OriginalAudio(rate, channels, pieces))
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        assert (stream.rate, stream.channels) == (rate, channels)
        back = np.concatenate([frame.to_ndarray() for frame in container.decode(stream)], axis=1)
    assert samples.shape[1] <= back.shape[1] < samples.shape[1] + 3 * 1024
    inner = slice(rate // 2, rate)
    assert np.abs(back[:, inner] - samples[:, inner]).mean() < 0.02


def test_writer_without_frames(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no frame was written.*Expected at least one"):
        write_numbered(tmp_path / "a.mp4", 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "frame", [np.zeros((32, 47, 3), np.uint8), np.zeros((32, 48), np.uint8), np.zeros((32, 48, 3), np.float32)]
)
def test_writer_checks_frames(tmp_path: Path, frame: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"frame 1 is .*Expected uint8 RGB \(32, 48, 3\).*Resize"):
        _write_all(tmp_path / "a.mp4", [flat(0), frame])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crf": 99}, "crf is 99. Expected 0"),
        ({"preset": "best"}, "preset is 'best'. Expected one of"),
        ({"audio": np.zeros(9, np.int16)}, "int16 .*Expected finite floats.*to_float"),
        ({"audio": np.array([np.nan], np.float32)}, "Expected finite floats"),
    ],
)
def test_writer_checks_arguments(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        video.VideoWriter(tmp_path / "a.mp4", 25.0, (32, 48), **options)


@pytest.mark.parametrize("size_hw", [(128, 128), (132, 140)])
def test_the_same_frames_give_the_same_bytes_also_where_sides_are_not_multiples_of_a_macroblock(tmp_path, size_hw):
    random = np.random.default_rng(0)
    base = random.integers(0, 255, (*size_hw, 3), np.uint8)
    frames = [np.roll(base, (k, 2 * k), (0, 1)) for k in range(30)]
    written = set()
    for k in range(3):
        rubbish = [np.full(size_hw[0] * size_hw[1] * 3, 80 * k + 7, np.uint8) for _ in range(20)]  # what memory held
        del rubbish
        path = tmp_path / f"{k}.mp4"
        with video.VideoWriter(path, 25.0, size_hw, threads=1) as writer:
            for frame in frames:
                writer.write(frame)
        written.add(path.read_bytes())
    assert len(written) == 1
