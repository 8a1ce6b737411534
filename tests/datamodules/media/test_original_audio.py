# SPDX-License-Identifier: Apache-2.0
"""The original audio in pieces equals `load_audio`, but at the file's own rate and with its channels."""

import wave
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.media.audio import load_audio
from lipsync_bench.datamodules.media.original_audio import read_original_audio


def _wav(path: Path, samples: np.ndarray, rate: int) -> Path:
    """int16 (S, channels)."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def _noise(count: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-9000, 9000, (count, channels))


def _all(path: Path, seconds: float | None = None) -> np.ndarray:
    return np.concatenate(list(read_original_audio(path, seconds).pieces), axis=1)


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (44100, 2), (8000, 2)])
def test_samples_come_back_exactly(tmp_path: Path, rate: int, channels: int) -> None:
    samples = _noise(10_001, channels)
    path = _wav(tmp_path / "a.wav", samples, rate)
    audio = read_original_audio(path)
    assert (audio.rate, audio.channels) == (rate, channels)
    pieces = list(audio.pieces)
    assert len(pieces) > 1
    assert all(piece.dtype == np.float32 for piece in pieces)
    np.testing.assert_allclose(np.concatenate(pieces, axis=1).T, samples / 32768, atol=1e-7)


@pytest.mark.parametrize("seconds", [0.0, 0.25, 0.5, 9.0])
def test_it_ends_at_the_given_time(tmp_path: Path, seconds: float) -> None:
    path = _wav(tmp_path / "a.wav", _noise(8000, 1), 16000)
    count = sum(piece.shape[1] for piece in read_original_audio(path, seconds).pieces)
    assert count == min(8000, round(16000 * seconds))


@pytest.mark.parametrize(("channels", "rate", "expected"), [(6, 48000, (48000, 2)), (1, 192000, (48000, 1))])
def test_formats_that_aac_does_not_support_are_converted(
    tmp_path: Path, channels: int, rate: int, expected: tuple[int, int]
) -> None:
    path = _wav(tmp_path / "a.wav", _noise(rate // 2, channels), rate)
    audio = read_original_audio(path)
    assert (audio.rate, audio.channels) == expected
    assert sum(piece.shape[1] for piece in audio.pieces) == pytest.approx(expected[0] / 2, abs=100)


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
@pytest.mark.parametrize("late_s", [0.0, 0.5])
def test_it_begins_and_pauses_when_load_audio_does(tmp_path: Path, codec: str, late_s: float) -> None:
    """Audio that starts after the video and has a hole of half a second; AAC brings priming samples of its own."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        stream: Any = container.add_stream(codec, rate=16000, layout="mono")
        for j in range(50):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = j, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for k in range(16):
            samples = (_noise(1024, 1).T).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.time_base = 16000, Fraction(1, 16000)
            frame.pts = k * 1024 + round(late_s * 16000) + (8000 if k >= 8 else 0)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    expected, found = load_audio(path), _all(path)[0]
    assert abs(len(found) - len(expected)) <= 16  # Matroska rounds times to a millisecond
    np.testing.assert_allclose(found[: len(expected)], expected[: len(found)], atol=1e-6)


def test_files_without_audio(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.wav: no such file"):
        read_original_audio(tmp_path / "none.wav")
    path = tmp_path / "mute.mp4"
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        container.mux(video.encode(None))
    with pytest.raises(MediaError, match=r"mute\.mp4: no audio track\. Expected a file with audio"):
        read_original_audio(path)
