# SPDX-License-Identifier: Apache-2.0
"""Which of several tracks is meant, and what is refused before it takes memory."""

import struct
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition

from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.media.audio import load_audio
from lipsync_bench.datamodules.media.original_audio import read_original_audio
from lipsync_bench.datamodules.media.video import probe, read_frames
from tests.datamodules.numbered_videos import flat, numbers

_NONE = Disposition(0)


def _tone(hz: int) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(16384) / 16000)).astype(np.float32)


def _pitch(samples: np.ndarray, rate: int) -> int:
    return round(int(np.abs(np.fft.rfft(samples[:rate])).argmax()))


def _write(path: Path, pictures: list[tuple[int, Disposition]], tones: list[tuple[int, Disposition]]) -> Path:
    """Video tracks that begin with frame j of a numbered video, audio tracks of a pitch; each with its disposition."""
    with av.open(str(path), "w") as container:
        tracks: list[Any] = []
        for _, disposition in pictures:
            codec = "mjpeg" if disposition & Disposition.attached_pic else "libx264"
            tracks.append(container.add_stream(codec, rate=25))
            tracks[-1].width, tracks[-1].height = 48, 32 + 16 * len(tracks)
            tracks[-1].pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            tracks[-1].disposition = disposition
        for _, disposition in tones:
            tracks.append(container.add_stream("aac", rate=16000, layout="mono"))
            tracks[-1].disposition = disposition
        for track, (first, disposition) in zip(tracks, pictures, strict=False):
            for k in range(1 if disposition & Disposition.attached_pic else 25):
                frame = av.VideoFrame.from_ndarray(flat(first + k, (track.height, 48)), format="rgb24")
                frame.pts, frame.time_base = k, Fraction(1, 25)
                container.mux(track.encode(frame))
            container.mux(track.encode(None))
        for track, (hz, _) in zip(tracks[len(pictures) :], tones, strict=True):
            for start in range(0, 16384, 1024):
                piece = av.AudioFrame.from_ndarray(_tone(hz)[None, start : start + 1024], format="fltp", layout="mono")
                piece.sample_rate, piece.pts, piece.time_base = 16000, start, Fraction(1, 16000)
                container.mux(track.encode(piece))
            container.mux(track.encode(None))
    return path


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize(
    ("pictures", "tones", "first", "hz"),
    [
        ([(0, _NONE), (30, Disposition.default)], [(440, _NONE), (1000, Disposition.default)], 30, 1000),
        ([(0, Disposition.default), (30, _NONE)], [(440, Disposition.default), (1000, _NONE)], 0, 440),
        ([(60, Disposition.attached_pic), (5, Disposition.default)], [(440, Disposition.default)], 5, 440),
    ],
)
def test_the_default_track_is_taken(
    tmp_path: Path,
    suffix: str,
    pictures: list[tuple[int, Disposition]],
    tones: list[tuple[int, Disposition]],
    first: int,
    hz: int,
) -> None:
    path = _write(tmp_path / f"a{suffix}", pictures, tones)
    frames = list(read_frames(path))
    assert numbers(frames) == list(range(first, first + 25))
    assert (probe(path).height, probe(path).width) == frames[0].shape[:2]
    assert _pitch(load_audio(path), 16000) == hz
    assert _pitch(np.concatenate(list(read_original_audio(path).pieces), axis=1)[0], 16000) == hz


def test_audio_for_the_blind_is_not_taken_where_nothing_is_default(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.mkv", [(0, _NONE)], [(440, Disposition.visual_impaired), (1000, _NONE)])
    assert _pitch(load_audio(path), 16000) == 1000


def test_a_track_without_a_decoder_is_not_taken(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.mp4", [(0, Disposition.default), (30, _NONE)], [])
    content = path.read_bytes()
    at = content.index(b"avc1", content.index(b"stsd"))
    path.write_bytes(content[:at] + b"zzz1" + content[at + 4 :])
    assert numbers(read_frames(path)) == list(range(30, 55))
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz1"))
    with pytest.raises(MediaError, match=r"a\.mp4: holds a video track of an unknown codec"):
        list(read_frames(path))


# What asks for more memory than its size lets one think


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _huge_png(side: int) -> bytes:
    """A black image of 1 bit a pixel."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + side // 8)) for _ in range(side)) + packer.flush()
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


@pytest.mark.parametrize("header_side", [64, 16000])
def test_huge_frames_are_refused(tmp_path: Path, header_side: int) -> None:
    """16000 x 16000 pixels in 31 kB, where the header of the file says so and where it does not."""
    path, picture = tmp_path / "a.mov", _huge_png(16000)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("png", rate=25)
        stream.width = stream.height = header_side
        stream.pix_fmt = "monob"
        for k in range(3):
            packet = av.Packet(picture)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, k, k, Fraction(1, 25)
            packet.is_keyframe = True
            container.mux(packet)
    for use in (probe, lambda p: next(read_frames(p))):
        with pytest.raises(MediaError, match=r"a\.mov: .*Expected .*at most 36 million pixels a frame"):
            use(path)


def _wav(path: Path, rate: int, bits: int = 16, channels: int = 1, data: bytes = bytes(8000)) -> Path:
    block = channels * bits // 8
    head = struct.pack("<HHIIHH", 1, channels, rate, rate * block & 0xFFFFFFFF, block, bits)
    path.write_bytes(
        b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt " + struct.pack("<I", 16) + head
        + b"data" + struct.pack("<I", len(data)) + data
    )  # fmt: skip
    return path


@pytest.mark.parametrize(
    ("rate", "bits", "channels", "found"),
    [
        (1, 16, 1, "1 samples a second"),
        (999, 16, 1, "999 samples a second"),
        (2_000_000_000, 16, 1, "2000000000 samples"),
        (16000, 64, 1, "64-bit integer audio"),
        (16000, 16, 200, "200 channels"),
    ],
)
def test_unsupported_audio_formats_are_refused(tmp_path: Path, rate: int, bits: int, channels: int, found: str) -> None:
    path = _wav(tmp_path / "a.wav", rate, bits, channels)
    for use in (load_audio, lambda p: list(read_original_audio(p).pieces)):
        with pytest.raises(MediaError, match=rf"a\.wav: .*{found}.*Expected.*Export it again"):
            use(path)


@pytest.mark.parametrize("rate", [1000, 8000, 768_000])
def test_odd_rates_are_read(tmp_path: Path, rate: int) -> None:
    assert len(load_audio(_wav(tmp_path / "a.wav", rate))) == -(-4000 * 16000 // rate)


def test_a_day_of_silence_in_a_small_file_is_refused(tmp_path: Path) -> None:
    """FLAC makes an hour of silence 100 kB; timestamps can leave holes of a minute between packets."""
    path = tmp_path / "a.mka"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("pcm_s16le", rate=1000, layout="mono")
        for minute in range(7 * 60):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 1000, 60_000 * minute, Fraction(1, 1000)
            container.mux(stream.encode(frame))
    with pytest.raises(MediaError, match=r"a\.mka: more than 6 hours of audio\. Expected less"):
        load_audio(path)


@pytest.mark.parametrize("channels", [3, 9, 64])
def test_channels_that_libav_cannot_place_are_mixed(tmp_path: Path, channels: int) -> None:
    samples = np.repeat(np.arange(2000, dtype="<i2")[:, None], channels, axis=1)
    path = _wav(tmp_path / "a.wav", 16000, 16, channels, samples.tobytes())
    np.testing.assert_allclose(load_audio(path), np.arange(2000) / 32768, atol=1e-6)
    track = read_original_audio(path)
    assert sum(piece.shape[1] for piece in track.pieces) == 2000
