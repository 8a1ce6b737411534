# SPDX-License-Identifier: Apache-2.0
"""Videos read: frames by time at any rate, upright and in the right colours; files that cannot be used."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.media import audio, video
from tests.datamodules.numbered_videos import flat, numbers, write_numbered


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


# Reading by time


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])  # mkv rounds every time to a millisecond
@pytest.mark.parametrize(
    "rate", [Fraction(30), Fraction(2213, 100), Fraction(24), Fraction(60), Fraction(30000, 1001), Fraction(25)]
)
def test_any_rate_becomes_25_fps_by_time(tmp_path: Path, rate: Fraction, suffix: str) -> None:
    count = 60
    path = _encode(
        tmp_path / f"a{suffix}", [flat(j) for j in range(count)], [j / rate for j in range(count)], rate=rate
    )
    shown = numbers(video.read_frames(path))
    times = [Fraction(k, 25) for k in range(100) if Fraction(k, 25) < count / rate]
    assert len(shown) == len(times)
    # Exact, but for frames that come up to 1 ms late: those count already, give or take the container's rounding.
    earliest, latest = ([int((t + Fraction(late, 10000)) * rate) for t in times] for late in (4, 16))
    assert np.mean([e == z for e, z in zip(earliest, latest, strict=True)]) > 0.8
    assert all(e <= j <= z for e, j, z in zip(earliest, shown, latest, strict=True))
    assert numbers(video.read_frames(path, fps=None)) == list(range(count))
    assert numbers(video.read_frames(path, fps=float(rate))) == list(range(count))


def test_variable_rate(tmp_path: Path) -> None:
    times = [Fraction(t, 1000) for t in (0, 50, 70, 200, 210, 220, 500)]
    path = _encode(tmp_path / "vfr.mp4", [flat(j) for j in range(7)], times)
    shown = numbers(video.read_frames(path))
    at = [Fraction(k, 25) for k in range(len(shown))]
    assert shown == [max(j for j in range(7) if times[j] <= t) for t in at]
    assert len(shown) >= 13  # up to 0.5 s, and the last frame
    assert numbers(video.read_frames(path, fps=None)) == list(range(7))


def test_times_that_jitter_by_a_millisecond_lose_no_frame(tmp_path: Path) -> None:
    times = [Fraction(400 * j + (0, 9, -9)[j % 3], 10000) for j in range(50)]
    path = _encode(tmp_path / "a.mp4", [flat(j) for j in range(50)], times)
    assert numbers(video.read_frames(path)) == list(range(50))


def test_video_that_starts_after_its_audio_shows_its_first_frame_from_zero(tmp_path: Path) -> None:
    path = tmp_path / "late.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        track: Any = container.add_stream("aac", rate=16000, layout="mono")
        for j in range(25):
            frame = av.VideoFrame.from_ndarray(flat(j), format="rgb24")
            frame.pts, frame.time_base = j + 10, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        samples.sample_rate, samples.pts, samples.time_base = 16000, 0, Fraction(1, 16000)
        container.mux(track.encode(samples))
        container.mux(track.encode(None))
    assert numbers(video.read_frames(path)) == [0] * 10 + list(range(25))


def test_broadcast_stream_starts_at_its_first_frame(tmp_path: Path) -> None:
    path = _encode(tmp_path / "a.ts", [flat(j) for j in range(30)], [Fraction(j, 25) + 7 for j in range(30)])
    with av.open(str(path)) as container:
        assert container.start_time == 7_000_000  # microseconds
    assert numbers(video.read_frames(path)) == list(range(30))


def test_a_hole_of_over_a_minute_is_an_error(tmp_path: Path) -> None:
    path = _encode(tmp_path / "a.mkv", [flat(j) for j in range(3)], [Fraction(0), Fraction(1), Fraction(90)])
    with pytest.raises(MediaError, match=r"no frame for 89 s from 1\.\d\d s on. Expected holes of at most 60 s"):
        list(video.read_frames(path))


def test_frames_do_not_share_memory(tmp_path: Path) -> None:
    path = _encode(tmp_path / "a.mp4", [flat(0), flat(40)], [Fraction(0), Fraction(1, 5)], rate=5)
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
        list(video.read_frames(write_numbered(tmp_path / "a.mp4", 2), fps=fps))


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
        "sound.mp4": "audio but no video track",
    }
    for name, message in found.items():
        for use in (video.probe, lambda path: list(video.read_frames(path))):
            with pytest.raises(MediaError, match=f"{name}.*({message}).*Expected"):
                use(tmp_path / name)


def test_cut_off_video_yields_what_decodes_and_then_raises(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "a.mp4", 70)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])  # the index comes first in our files
    seen: list[np.ndarray] = []
    with pytest.raises(MediaError, match=r"a\.mp4: video ends after .*cut off or damaged\. Expected 2\.80 s"):
        seen.extend(video.read_frames(path))
    assert 5 < len(seen) < 60
    assert numbers(seen) == list(range(len(seen)))
    path.write_bytes(content[:200])
    with pytest.raises(MediaError, match=r"cannot be opened|cannot be decoded|neither video nor audio"):
        video.probe(path)


def test_damaged_middle_does_not_pass_for_a_shorter_video(tmp_path: Path) -> None:
    path = _encode(tmp_path / "a.mkv", [flat(j) for j in range(60)], [Fraction(j, 25) for j in range(60)])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(MediaError, match="cut off or damaged"):
        list(video.read_frames(path))


def test_cover_picture_is_not_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        cover: Any = container.add_stream("png", rate=25)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        track: Any = container.add_stream("aac", rate=16000, layout="mono")
        container.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        samples.sample_rate, samples.pts, samples.time_base = 16000, 0, Fraction(1, 16000)
        container.mux(track.encode(samples))
        container.mux(track.encode(None))
    with pytest.raises(MediaError, match="audio but no video track"):
        video.probe(path)
    assert len(audio.load_audio(path)) >= 16000


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
    count = 0
    for count, frame in enumerate(video.read_frames(real_clips / name), 1):  # noqa: B007
        assert frame.shape == (size, size, 3)
    assert count == at_25
    assert count / 25 == pytest.approx(len(audio.load_audio(real_clips / name)) / 16000, abs=0.1)
