# SPDX-License-Identifier: Apache-2.0
"""A stream copied into another container gives the same frames and the same audio; lips and audio stay in sync."""

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from lipsync_bench.datamodules.media.audio import load_audio
from lipsync_bench.datamodules.media.original_audio import read_original_audio
from lipsync_bench.datamodules.media.video import probe, read_frames
from tests.datamodules.numbered_videos import flat, numbers

FRAMES = 40
CLICK_S = 0.5


def _audio(rate: int) -> np.ndarray:
    """Noise, quiet but for a click."""
    samples = np.random.default_rng(0).uniform(-0.02, 0.02, round(FRAMES / 25 * rate)).astype(np.float32)
    samples[round(CLICK_S * rate) :][: rate // 100] *= 40
    return samples


def _write(
    path: Path,
    *,
    video: str = "libx264",
    audio: str = "aac",
    rate: int = 44100,
    sorting: int | None = None,
    late: Fraction = Fraction(0),
    times: list[Fraction] | None = None,
    fps: int = 25,
) -> Path:
    """40 numbered frames and their audio, interleaved; the frames `late` seconds after the audio."""
    times = times or [Fraction(k, 25) for k in range(FRAMES)]
    with av.open(str(path), "w") as container:
        pictures: Any = container.add_stream(video, rate=fps)
        pictures.width, pictures.height, pictures.pix_fmt = 48, 32, "yuv420p"
        pictures.codec_context.time_base = Fraction(1, 1000) if late else Fraction(1, fps)
        if sorting is not None:
            pictures.codec_context.max_b_frames = sorting
        track: Any = container.add_stream(audio, rate=rate, layout="mono")
        packets = []
        for k, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(flat(k), format="rgb24")
            frame.time_base = pictures.codec_context.time_base
            frame.pts = round((time + late) / frame.time_base)
            packets += pictures.encode(frame)
        packets += pictures.encode(None)
        audio = av.AudioFrame.from_ndarray(_audio(rate)[None], format="fltp", layout="mono")
        audio.sample_rate, audio.pts, audio.time_base = rate, 0, Fraction(1, rate)
        context = track.codec_context
        pieces = av.AudioResampler(
            format=context.format or "s16", layout="mono", rate=rate, frame_size=context.frame_size or 1024
        )
        for piece in [*pieces.resample(audio), *pieces.resample(None)]:
            packets += track.encode(piece)
        packets += track.encode(None)
        for packet in sorted(packets, key=lambda p: float((p.dts or 0) * p.time_base)):
            container.mux(packet)
    return path


def _copy(source: Path, target: Path, **options: str) -> Path:
    """The same packets in another container."""
    with av.open(str(source)) as there, av.open(str(target), "w", options=options) as here:
        streams = {stream.index: here.add_stream_from_template(stream) for stream in there.streams}
        for packet in there.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                here.mux(packet)
    return target


def _click(samples: np.ndarray) -> float:
    return float(np.flatnonzero(np.abs(samples) > 0.2)[0] / 16000)


@pytest.mark.parametrize("rate", [24, 30, 60])
def test_avi_shows_the_frames_of_another_rate_at_the_same_instants(tmp_path: Path, rate: int) -> None:
    """Its timestamps count in frames: that they are coarse makes none of them late."""
    times = [Fraction(k, rate) for k in range(FRAMES)]
    mp4, avi = (_write(tmp_path / name, audio="libmp3lame", fps=rate, times=times) for name in ("a.mp4", "a.avi"))
    assert numbers(read_frames(avi)) == numbers(read_frames(mp4))


COPIES: dict[str, dict[str, str]] = {
    "a.mkv": {},
    "a.ts": {},
    "a.flv": {},
    "a.mov": {},
    "fragments.mp4": {"movflags": "frag_keyframe+empty_moov"},
    "fragments_with_edits.mp4": {"movflags": "frag_keyframe+empty_moov+delay_moov"},
    "no_edits.mp4": {"use_editlist": "0"},
}


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize(("sorting", "rate"), [(2, 44100), (0, 44100), (2, 16000)])
def test_a_copied_stream_is_the_same(tmp_path: Path, name: str, sorting: int, rate: int) -> None:
    if name == "a.flv" and rate == 16000:
        pytest.skip("FLV has no AAC at 16 kHz")
    original = _write(tmp_path / "original.mp4", sorting=sorting, rate=rate)
    copy = _copy(original, tmp_path / name, **COPIES[name])
    assert numbers(read_frames(original)) == list(range(FRAMES))
    np.testing.assert_array_equal(list(read_frames(copy)), list(read_frames(original)))
    np.testing.assert_array_equal(load_audio(copy), load_audio(original))
    mine, theirs = (np.concatenate(list(read_original_audio(path).pieces), axis=1) for path in (copy, original))
    np.testing.assert_array_equal(mine, theirs)
    assert _click(load_audio(copy)) == pytest.approx(CLICK_S, abs=0.002)
    assert probe(copy).nominal_fps == probe(original).nominal_fps == 25


@pytest.mark.parametrize(
    ("name", "video", "audio", "rate"),
    [
        ("a.mkv", "libx264", "aac", 16000),
        ("a.ts", "libx264", "aac", 16000),
        ("a.ts", "mpeg2video", "mp2", 48000),
        ("a.ts", "libx264", "ac3", 48000),
        ("a.mpg", "mpeg2video", "mp2", 44100),
        ("a.flv", "flv", "libmp3lame", 44100),
        ("a.asf", "mpeg4", "libmp3lame", 44100),
        ("a.wmv", "wmv2", "libmp3lame", 44100),
        ("a.webm", "libvpx", "libopus", 48000),
        ("a.avi", "mpeg4", "pcm_s16le", 16000),
        ("a.avi", "libx264", "pcm_s16le", 48000),
        ("a.avi", "libx264", "libmp3lame", 44100),
        ("a.avi", "mpeg4", "ac3", 48000),
        ("a.mov", "libx264", "pcm_s16le", 48000),
    ],
)
def test_each_container_begins_with_its_first_frame(
    tmp_path: Path, name: str, video: str, audio: str, rate: int
) -> None:
    sorting = 2 if video in ("libx264", "mpeg2video") or name == "a.avi" else 0
    path = _write(tmp_path / name, video=video, audio=audio, rate=rate, sorting=sorting)
    shown = numbers(read_frames(path))
    assert len(shown) == FRAMES
    assert np.abs(np.array(shown) - np.arange(FRAMES)).max() <= 1  # old codecs blur the levels
    assert shown[1] == 1
    track = read_original_audio(path)
    samples = np.concatenate(list(track.pieces), axis=1)[0]
    assert _click(load_audio(path)) == pytest.approx(CLICK_S, abs=0.002)
    assert np.flatnonzero(np.abs(samples) > 0.2)[0] / track.rate == pytest.approx(CLICK_S, abs=0.002)


@pytest.mark.parametrize("late_ms", [7, 21, 23, 40])
def test_a_frame_some_milliseconds_late_is_the_first(tmp_path: Path, late_ms: int) -> None:
    """As in Matroska files whose video was copied from a file with AAC or Opus."""
    late = Fraction(late_ms, 1000)
    path = _write(tmp_path / "a.mkv", audio="pcm_s16le", rate=48000, sorting=0, late=late)
    assert numbers(read_frames(path)) == list(range(FRAMES))
    assert _click(load_audio(path)) == pytest.approx(CLICK_S - late, abs=0.0015)


@pytest.mark.parametrize(("name", "late_ms"), [("a.mp4", 200), ("a.mkv", 200), ("a.ts", 480), ("a.mp4", 480)])
def test_a_real_delay_of_the_video_is_kept(tmp_path: Path, name: str, late_ms: int) -> None:
    path = _write(tmp_path / name, sorting=0, late=Fraction(late_ms, 1000))
    shown = numbers(read_frames(path))
    held = shown.index(1) - 1
    assert shown == [0] * held + list(range(FRAMES))
    # Where the container does not state the priming, 23 ms of it are left out of both.
    assert _click(load_audio(path)) - CLICK_S + late_ms / 1000 == pytest.approx(held / 25, abs=0.021)


def test_times_that_jitter_lose_no_frame(tmp_path: Path) -> None:
    jitter = [Fraction(40 * k + (0, 12, -12)[k % 3], 1000) for k in range(FRAMES)]
    path = _write(tmp_path / "a.mkv", audio="pcm_s16le", sorting=0, late=Fraction(1, 1000), times=jitter)
    assert numbers(read_frames(path)) == list(range(FRAMES))


def test_a_lengthened_first_packet_is_not_a_delay(tmp_path: Path) -> None:
    """Without an edit list, the muxer starts both tracks at 0; here the first frame comes 23 ms after the priming."""
    original = _write(tmp_path / "original.mp4", sorting=0)
    copy = _copy(original, tmp_path / "copy.mp4", use_editlist="0")
    with av.open(str(copy)) as container:
        first, second = (frame.pts * frame.time_base for frame, _ in zip(container.decode(video=0), "ab", strict=False))
    assert (first, second) == (0, pytest.approx(0.04 + 1024 / 44100, abs=1e-3))
    assert numbers(read_frames(copy)) == list(range(FRAMES))


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_real_clips_are_the_same_in_any_container(real_clips: Path, tmp_path: Path, number: int) -> None:
    original = real_clips / f"talk{number}.mp4"
    samples = load_audio(original)
    digest = [frame.tobytes() for frame in read_frames(original)]
    for name, options in COPIES.items():
        copy = _copy(original, tmp_path / name, **options)
        np.testing.assert_array_equal(load_audio(copy), samples, err_msg=name)
        count = 0
        for count, (frame, expected) in enumerate(zip(read_frames(copy), digest, strict=True), 1):
            assert frame.tobytes() == expected, (name, count)
        assert count == len(digest)
        assert math.isclose(probe(copy).nominal_fps, probe(original).nominal_fps)
