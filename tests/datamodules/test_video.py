# SPDX-License-Identifier: Apache-2.0
"""Frames by time at any rate, upright and in the right colours; files written whole or not at all, in sync with their
sound."""

import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from datamodules import audio, video
from datamodules.errors import MediaError
from datamodules.sound import Sound

# Frame j of a numbered video is a flat grey of this level, which survives compression well enough to be told from its
# neighbours.
LEVELS = 16 + 3 * np.arange(70)


def _flat(j: int, size_hw: tuple[int, int] = (32, 48)) -> np.ndarray:
    return np.full((*size_hw, 3), LEVELS[j], np.uint8)


def _numbers(frames: Iterable[np.ndarray]) -> list[int]:
    """Which source frame each frame of a numbered video shows."""
    return [int(np.abs(LEVELS - frame.mean()).argmin()) for frame in frames]


def _encode(
    path: Path,
    images: Sequence[np.ndarray],
    times: Sequence[Fraction],
    *,
    base: Fraction = Fraction(1, 90000),
    rate: Fraction | int = 25,
    rotation: int = 0,
) -> Path:
    """H.264 with the given presentation times, in seconds."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=rate, options={"crf": "12", "preset": "ultrafast"})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = base
        if rotation:
            stream.set_display_rotation(rotation)
        for image, time in zip(images, times, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(time / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _write(path: Path, frames: int = 50, **options: Any) -> Path:
    with video.VideoWriter(path, 25.0, (32, 48), preset="ultrafast", **options) as writer:
        for j in range(frames):
            writer.write(_flat(j % 70))
    return path


# Reading by time


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])  # mkv rounds every time to a millisecond
@pytest.mark.parametrize(
    "rate", [Fraction(30), Fraction(2213, 100), Fraction(24), Fraction(60), Fraction(30000, 1001), Fraction(25)]
)
def test_any_rate_becomes_25_fps_by_time(tmp_path: Path, rate: Fraction, suffix: str) -> None:
    count = 60
    path = _encode(
        tmp_path / f"a{suffix}", [_flat(j) for j in range(count)], [j / rate for j in range(count)], rate=rate
    )
    shown = _numbers(video.read_frames(path))
    times = [Fraction(k, 25) for k in range(100) if Fraction(k, 25) < count / rate]
    assert len(shown) == len(times)
    # Exact, but for frames that come up to 1 ms late: those count already, give or take the container's rounding.
    earliest, latest = ([int((t + Fraction(late, 10000)) * rate) for t in times] for late in (4, 16))
    assert np.mean([e == z for e, z in zip(earliest, latest, strict=True)]) > 0.8
    assert all(e <= j <= z for e, j, z in zip(earliest, shown, latest, strict=True))
    assert _numbers(video.read_frames(path, fps=None)) == list(range(count))
    assert _numbers(video.read_frames(path, fps=float(rate))) == list(range(count))


def test_variable_rate(tmp_path: Path) -> None:
    times = [Fraction(t, 1000) for t in (0, 50, 70, 200, 210, 220, 500)]
    path = _encode(tmp_path / "vfr.mp4", [_flat(j) for j in range(7)], times)
    shown = _numbers(video.read_frames(path))
    at = [Fraction(k, 25) for k in range(len(shown))]
    assert shown == [max(j for j in range(7) if times[j] <= t) for t in at]
    assert len(shown) >= 13  # up to 0.5 s, and the last frame
    assert _numbers(video.read_frames(path, fps=None)) == list(range(7))


def test_times_that_jitter_by_a_millisecond_lose_no_frame(tmp_path: Path) -> None:
    times = [Fraction(400 * j + (0, 9, -9)[j % 3], 10000) for j in range(50)]
    path = _encode(tmp_path / "a.mp4", [_flat(j) for j in range(50)], times)
    assert _numbers(video.read_frames(path)) == list(range(50))


def test_video_that_starts_after_its_sound_shows_its_first_frame_from_zero(tmp_path: Path) -> None:
    path = tmp_path / "late.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        sound: Any = container.add_stream("aac", rate=16000, layout="mono")
        for j in range(25):
            frame = av.VideoFrame.from_ndarray(_flat(j), format="rgb24")
            frame.pts, frame.time_base = j + 10, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        samples.sample_rate, samples.pts, samples.time_base = 16000, 0, Fraction(1, 16000)
        container.mux(sound.encode(samples))
        container.mux(sound.encode(None))
    assert _numbers(video.read_frames(path)) == [0] * 10 + list(range(25))


def test_broadcast_stream_starts_at_its_first_frame(tmp_path: Path) -> None:
    path = _encode(tmp_path / "a.ts", [_flat(j) for j in range(30)], [Fraction(j, 25) + 7 for j in range(30)])
    with av.open(str(path)) as container:
        assert container.start_time == 7_000_000  # microseconds
    assert _numbers(video.read_frames(path)) == list(range(30))


def test_a_hole_of_over_a_minute_is_an_error(tmp_path: Path) -> None:
    path = _encode(tmp_path / "a.mkv", [_flat(j) for j in range(3)], [Fraction(0), Fraction(1), Fraction(90)])
    with pytest.raises(MediaError, match=r"no picture for 89 s from 1\.\d\d s on. Expected holes of at most 60 s"):
        list(video.read_frames(path))


def test_frames_do_not_share_memory(tmp_path: Path) -> None:
    path = _encode(tmp_path / "a.mp4", [_flat(0), _flat(40)], [Fraction(0), Fraction(1, 5)], rate=5)
    for frame in (frames := list(video.read_frames(path))):
        assert frame.flags.writeable
        assert frame.flags.c_contiguous
        frame[:] = 0
    assert len(frames) == 10
    for frame in video.read_frames(path):
        assert frame.any()
        frame[:] = 0  # a frame that is shown twice must not come back black


@pytest.mark.parametrize("fps", [0.0, -25.0, float("nan"), float("inf")])
def test_rate_must_be_positive(tmp_path: Path, fps: float) -> None:
    with pytest.raises(ValueError, match="Expected a positive number of frames a second"):
        list(video.read_frames(_write(tmp_path / "a.mp4", 2), fps=fps))


# Upright and in colour


def _corners(image: np.ndarray) -> list[int]:
    """Brightness of the corners, clockwise from the upper left, as ranks."""
    h, w = image.shape[:2]
    spots = [image[:8, :8], image[:8, w - 8 :], image[h - 8 :, w - 8 :], image[h - 8 :, :8]]
    return list(np.argsort([spot.mean() for spot in spots]))


def _marked() -> np.ndarray:
    image = np.full((32, 48, 3), 30, np.uint8)
    image[:16, 24:], image[16:, 24:], image[16:, :24] = 90, 150, 210
    return image


@pytest.mark.parametrize("turn", [0, 90, 180, 270])  # degrees clockwise
def test_display_rotation_is_obeyed(tmp_path: Path, turn: int) -> None:
    path = tmp_path / "a.mp4"
    _encode(path, [_marked()] * 3, [Fraction(j, 25) for j in range(3)], rotation=-turn if turn < 180 else 360 - turn)
    info = video.probe(path)
    assert info.rotation == turn
    expected = np.rot90(_marked(), -turn // 90)
    assert (info.height, info.width) == expected.shape[:2]
    for frame in video.read_frames(path):
        assert frame.shape == expected.shape
        assert _corners(frame) == _corners(expected)
        assert np.abs(frame.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("transpose", [False, True])
def test_mirrored_display_matrix_is_obeyed(tmp_path: Path, transpose: bool) -> None:
    path = _encode(tmp_path / "a.mp4", [_marked()] * 3, [Fraction(j, 25) for j in range(3)], rotation=180)
    content = path.read_bytes()
    one, deep = 1 << 16, 1 << 30
    half_turn = struct.pack(">9i", -one, 0, 0, 0, -one, 0, 48 * one, 32 * one, deep)
    matrix = (0, one, 0, one, 0, 0, 0, 0, deep) if transpose else (-one, 0, 0, 0, one, 0, 48 * one, 0, deep)
    start = content.index(b"tkhd")
    at = content.index(struct.pack(">2i", -one, 0), start)
    assert at - start < 60
    assert content[at : at + 20] == half_turn[:20]
    path.write_bytes(content[:at] + struct.pack(">9i", *matrix) + content[at + 36 :])
    expected = _marked().swapaxes(0, 1) if transpose else _marked()[:, ::-1]
    for frame in video.read_frames(path):
        assert np.abs(frame.astype(int) - expected).mean() < 4


# Y, Cb, Cr of pure red: limited range, BT.601 and BT.709.
@pytest.mark.parametrize(
    ("colorspace", "yuv"), [(1, (63, 102, 240)), (2, (81, 90, 240)), (5, (81, 90, 240)), (6, (81, 90, 240))]
)
def test_colour_matrix_of_the_file_is_used(tmp_path: Path, colorspace: int, yuv: tuple[int, int, int]) -> None:
    path = tmp_path / "red.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"crf": "0"})
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv444p"
        stream.codec_context.colorspace = colorspace
        planes = np.broadcast_to(np.array(yuv, np.uint8)[:, None, None], (3, 32, 32))
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(planes), format="yuv444p")
        frame.colorspace = colorspace
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (image,) = video.read_frames(path)
    assert np.abs(image.astype(int) - (255, 0, 0)).max() <= 2


@pytest.mark.parametrize(("size_hw", "pixels"), [((128, 96), "yuv420p"), ((127, 95), "yuv444p"), ((64, 33), "yuv444p")])
def test_colours_and_size_survive_writing(tmp_path: Path, size_hw: tuple[int, int], pixels: str) -> None:
    rough = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = cv2.resize(rough, size_hw[::-1], interpolation=cv2.INTER_LINEAR)
    with video.VideoWriter(tmp_path / "a.mp4", 25.0, size_hw, crf=1, preset="ultrafast") as writer:
        for _ in range(3):
            writer.write(image)
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert context.pix_fmt == pixels
        assert [context.colorspace, context.color_primaries, context.color_trc, context.color_range] == [1, 1, 1, 1]
    frames = list(video.read_frames(tmp_path / "a.mp4"))
    assert len(frames) == 3
    error = frames[1].astype(int) - image
    assert frames[1].shape == image.shape
    assert np.abs(error).mean() < 2
    assert np.abs(error.mean((0, 1))).max() < 0.3  # no channel is darker or brighter on the whole


# Files that cannot be used


def test_files_that_are_not_video(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.mp4: no such file"):
        video.probe(tmp_path / "none.mp4")
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "a.txt").write_text("Hello.\n" * 50)
    image = cv2.imencode(".png", np.zeros((32, 32, 3), np.uint8))[1].tobytes()
    (tmp_path / "image.mp4").write_bytes(image)
    (tmp_path / "photo.mp4").write_bytes(cv2.imencode(".jpg", np.zeros((32, 32, 3), np.uint8))[1].tobytes())
    (tmp_path / "sound.mp4").write_bytes(
        b"RIFF\x64\0\0\0WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16)
    )
    with (tmp_path / "sound.mp4").open("ab") as file:
        file.write(b"data\x40\0\0\0" + bytes(64))
    found = {
        "zero.mp4": "0 bytes",
        "noise.mp4": "cannot be opened",
        "a.txt": "text file|cannot be opened",
        "image.mp4": "a single image",
        "photo.mp4": "a single image",
        "sound.mp4": "sound but no video track",
    }
    for name, message in found.items():
        for use in (video.probe, lambda path: list(video.read_frames(path))):
            with pytest.raises(MediaError, match=f"{name}.*({message}).*Expected"):
                use(tmp_path / name)


def test_cut_off_video_yields_what_decodes_and_then_raises(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.mp4", 70)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])  # the index comes first in our files
    seen: list[np.ndarray] = []
    with pytest.raises(MediaError, match=r"a\.mp4: video ends after .*cut off or damaged\. Expected 2\.80 s"):
        seen.extend(video.read_frames(path))
    assert 5 < len(seen) < 60
    assert _numbers(seen) == list(range(len(seen)))
    path.write_bytes(content[:200])
    with pytest.raises(MediaError, match=r"cannot be opened|cannot be decoded|neither video nor sound"):
        video.probe(path)


def test_damaged_middle_does_not_pass_for_a_shorter_video(tmp_path: Path) -> None:
    path = _encode(tmp_path / "a.mkv", [_flat(j) for j in range(60)], [Fraction(j, 25) for j in range(60)])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(MediaError, match="cut off or damaged"):
        list(video.read_frames(path))


def test_cover_picture_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        cover: Any = container.add_stream("png", rate=25)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        sound: Any = container.add_stream("aac", rate=16000, layout="mono")
        container.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        samples.sample_rate, samples.pts, samples.time_base = 16000, 0, Fraction(1, 16000)
        container.mux(sound.encode(samples))
        container.mux(sound.encode(None))
    with pytest.raises(MediaError, match="sound but no video track"):
        video.probe(path)
    assert len(audio.load_audio(path)) >= 16000


# Writing


def test_probe_of_a_written_file(tmp_path: Path) -> None:
    path = _write(tmp_path / "new" / "12:30 a.mp4", audio=np.zeros(32000, np.float32))
    assert video.probe(path) == video.VideoInfo(path, 48, 32, 25.0, 50, 2.0, 0, True)
    assert not video.probe(_write(tmp_path / "mute.mp4", 5)).has_audio


@pytest.mark.parametrize("fps", [25.0, 22.13, 30000 / 1001, 60.0, 12.5])
def test_rate_is_written_exactly(tmp_path: Path, fps: float) -> None:
    with video.VideoWriter(tmp_path / "a.mp4", fps, (32, 48), preset="ultrafast") as writer:
        for j in range(30):
            writer.write(_flat(j))
    assert video.probe(tmp_path / "a.mp4").fps == pytest.approx(fps, rel=1e-5)
    assert _numbers(video.read_frames(tmp_path / "a.mp4", fps)) == list(range(30))


@pytest.mark.parametrize("fps", [25.0, 30.0])
def test_sound_stays_with_its_frame(tmp_path: Path, fps: float) -> None:
    """A click at the start of each white frame comes back within 10 ms, in spite of the encoder's priming samples."""
    white = (0, 7, 30, 55)
    wave = np.zeros(round(60 / fps * 16000), np.float32)
    for k in white:
        wave[round(k * 16000 / fps) :][:64] = 0.8 * np.sin(2 * np.pi * 1000 * np.arange(64) / 16000)
    with video.VideoWriter(tmp_path / "a.mp4", fps, (32, 48), audio=wave, preset="ultrafast") as writer:
        for k in range(60):
            writer.write(np.full((32, 48, 3), 255 if k in white else 0, np.uint8))
    frames = list(video.read_frames(tmp_path / "a.mp4", fps))
    back = audio.load_audio(tmp_path / "a.mp4")
    assert tuple(k for k, frame in enumerate(frames) if frame.mean() > 128) == white
    assert len(frames) == 60
    assert len(wave) <= len(back) < len(wave) + 1024
    for k in white:
        middle = round(k * 16000 / fps) + 32
        begin = max(middle - 480, 0)
        near = np.abs(back[begin : middle + 480])
        centre = begin + (near**2 @ np.arange(len(near))) / (near**2).sum()
        assert abs(centre - middle) < 0.01 * 16000
        assert near.max() > 0.3


@pytest.mark.parametrize("seconds", [0.5, 3.0])
def test_sound_of_another_length_is_kept_whole(tmp_path: Path, seconds: float) -> None:
    wave = np.full(round(seconds * 16000), 0.1, np.float32)
    path = _write(tmp_path / "a.mp4", 50, audio=wave)
    assert len(wave) <= len(audio.load_audio(path)) < len(wave) + 1024
    assert len(list(video.read_frames(path))) == 50


def test_sound_and_pictures_are_interleaved(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.mp4", 500, audio=np.zeros(20 * 16000, np.float32))
    with av.open(str(path)) as container:
        order = [(packet.pos, packet.stream.type) for packet in container.demux() if packet.size]
    kinds = [kind for _, kind in sorted(order)]
    first_half = kinds[: len(kinds) // 2]
    assert 0.3 < first_half.count("audio") / kinds.count("audio") < 0.7


def test_metadata_comes_back(tmp_path: Path) -> None:
    tags = {"weights_sha256": "0f" * 32, "title": "Späße é", "lipsync_bench": '{"seed": 0}'}
    with av.open(str(_write(tmp_path / "a.mp4", 3, metadata=tags))) as container:
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
        _write_all(tmp_path / "old.mp4", [_flat(0)] * frames, error)
    assert [path.name for path in tmp_path.iterdir()] == ["old.mp4"]
    assert (tmp_path / "old.mp4").read_bytes() == b"old"


def test_the_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with video.VideoWriter(path, 25.0, (32, 48)) as writer:
        for _ in range(100):  # the encoder holds some back before anything reaches the disk
            writer.write(_flat(0))
        assert not path.exists()
        assert [p.name.startswith(".a.") for p in tmp_path.iterdir()] == [True]
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    with pytest.raises(RuntimeError, match=r"not open.*Add the with"):
        writer.write(_flat(0))


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    left = [tmp_path / f".a.{'0' * 32}.tmp.mp4", tmp_path / f".ab.{'0' * 32}.tmp.mp4", tmp_path / ".a.tmp.mp4"]
    for file in left:
        file.write_bytes(b"half")
    with video.VideoWriter(path, 25.0, (32, 48)) as first:
        first.write(_flat(1))
        with video.VideoWriter(path, 25.0, (32, 48)) as second:
            second.write(_flat(40))
        first.write(_flat(1))
    assert not left[0].exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([left[1].name, left[2].name, "a.mp4"])
    assert _numbers(video.read_frames(path)) == [1, 1]  # the one that ended last


@pytest.mark.parametrize(("rate", "channels"), [(48000, 2), (8000, 1), (44100, 2)])
def test_sound_in_pieces_keeps_rate_and_channels(tmp_path: Path, rate: int, channels: int) -> None:
    t = np.arange(2 * rate) / rate
    wave = np.stack([0.5 * np.sin(2 * np.pi * f * t) for f in (300, 700)[:channels]]).astype(np.float32)
    pieces = iter(np.array_split(wave, 37, axis=1))
    path = _write(tmp_path / "a.mp4", 50, audio=Sound(rate, channels, pieces))
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        assert (stream.rate, stream.channels) == (rate, channels)
        back = np.concatenate([frame.to_ndarray() for frame in container.decode(stream)], axis=1)
    assert wave.shape[1] <= back.shape[1] < wave.shape[1] + 3 * 1024
    inner = slice(rate // 2, rate)
    assert np.abs(back[:, inner] - wave[:, inner]).mean() < 0.02


def test_writer_without_frames(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no frame was written.*Expected at least one"):
        _write(tmp_path / "a.mp4", 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "frame", [np.zeros((32, 47, 3), np.uint8), np.zeros((32, 48), np.uint8), np.zeros((32, 48, 3), np.float32)]
)
def test_writer_checks_frames(tmp_path: Path, frame: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"frame 1 is .*Expected uint8 RGB \(32, 48, 3\).*Resize"):
        _write_all(tmp_path / "a.mp4", [_flat(0), frame])
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


# Real clips


@pytest.mark.parametrize(
    ("name", "size", "fps", "frames", "at_25"),
    [
        ("talk1.mp4", 700, 22.13, 135, 154),
        ("talk2.mp4", 844, 25.0, 125, 125),
        ("talk4.mp4", 700, 30.0, 199, 166),
        ("talk5.mp4", 524, 25.0, 122, 122),
    ],
)
def test_real_clips(real_clips: Path, name: str, size: int, fps: float, frames: int, at_25: int) -> None:
    info = video.probe(real_clips / name)
    assert (info.width, info.height, info.frames, info.rotation, info.has_audio) == (size, size, frames, 0, True)
    assert info.fps == pytest.approx(fps, abs=0.01)
    assert info.duration_s == pytest.approx(frames / fps, abs=0.01)
    count = 0
    for count, frame in enumerate(video.read_frames(real_clips / name), 1):  # noqa: B007
        assert frame.shape == (size, size, 3)
    assert count == at_25
    assert count / 25 == pytest.approx(len(audio.load_audio(real_clips / name)) / 16000, abs=0.1)


@pytest.mark.parametrize("size_hw", [(128, 128), (132, 140)])
def test_the_same_frames_give_the_same_bytes_also_where_sides_are_no_multiples_of_a_macroblock(tmp_path, size_hw):
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
