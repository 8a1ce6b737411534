# SPDX-License-Identifier: Apache-2.0
"""Durations of wav files: computed from blocks and samples, not from a byte rate that may be nominal."""

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.media.audio import load_audio
from lipsync_bench.datamodules.media.wav import wav_duration

RATE, SAMPLES = 16000, 25600


def _wav(path: Path, codec: str, layout: str = "mono") -> Path:
    """1.6 s of a codec, as libav writes it."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=RATE, layout=layout)
        context = stream.codec_context
        pieces = av.AudioResampler(
            format=context.format or "s16", layout=layout, rate=RATE, frame_size=context.frame_size or 1024
        )
        samples = (8000 * np.sin(np.arange(SAMPLES) * 0.1)).astype(np.int16)
        complete = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        complete.sample_rate, complete.pts, complete.time_base = RATE, 0, Fraction(1, RATE)
        for piece in [*pieces.resample(complete), *pieces.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path


def _set(path: Path, offset: int, layout: str, value: int, chunk: bytes = b"fmt ") -> None:
    content = bytearray(path.read_bytes())
    struct.pack_into(layout, content, content.index(chunk) + 8 + offset, value)
    path.write_bytes(content)


CODECS = [
    ("pcm_s16le", "mono"),
    ("pcm_u8", "mono"),
    ("pcm_s24le", "stereo"),
    ("pcm_f64le", "mono"),
    ("pcm_alaw", "mono"),
    ("adpcm_ima_wav", "mono"),
    ("adpcm_ima_wav", "stereo"),
    ("adpcm_ms", "mono"),
    ("adpcm_ms", "stereo"),
    ("adpcm_yamaha", "mono"),
    ("g722", "mono"),
    ("mp2", "mono"),
]


@pytest.mark.parametrize("byte_rate", [0, 1, RATE, 0xFFFFFFFF])
@pytest.mark.parametrize(("codec", "layout"), CODECS)
def test_a_nominal_byte_rate_is_not_an_error(tmp_path: Path, codec: str, layout: str, byte_rate: int) -> None:
    path = _wav(tmp_path / "a.wav", codec, layout)
    _set(path, 8, "<I", byte_rate)
    seconds = wav_duration(path)
    assert seconds == pytest.approx(1.6, abs=0.07)  # the last block may be filled up
    assert len(load_audio(path)) / 16000 == pytest.approx(seconds, abs=0.04)


@pytest.mark.parametrize(("codec", "layout"), CODECS)
def test_a_cut_file_is_found(tmp_path: Path, codec: str, layout: str) -> None:
    path = _wav(tmp_path / "a.wav", codec, layout)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 85 // 100])
    with pytest.raises(MediaError, match=r"a\.wav: audio ends after 1\.\d\d s, the file is cut off"):
        load_audio(path)


def test_blocks_without_their_samples(tmp_path: Path) -> None:
    """The number of samples in an ADPCM block is left out, and the fact chunk is wrong."""
    for codec in ("adpcm_ima_wav", "adpcm_ms"):
        path = _wav(tmp_path / f"{codec}.wav", codec)
        expected = wav_duration(path)
        _set(path, 18, "<H", 0)
        assert wav_duration(path) == expected
        _set(path, 0, "<I", 7, b"fact")
        assert wav_duration(path) == expected


@pytest.mark.parametrize("block", [0, 1, 60000])
def test_a_wrong_block_size_of_uncompressed_audio(tmp_path: Path, block: int) -> None:
    path = _wav(tmp_path / "a.wav", "pcm_s16le")
    _set(path, 12, "<H", block)
    assert wav_duration(path) == 1.6
    assert len(load_audio(path)) == SAMPLES


@pytest.mark.parametrize("name", [b"RF64", b"BW64"])
def test_64_bit_sizes(tmp_path: Path, name: bytes) -> None:
    samples = np.arange(SAMPLES, dtype="<i2").tobytes()
    fmt = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
    sizes = struct.pack("<QQQI", 72 + len(samples), len(samples), SAMPLES, 0)
    head = b"WAVEds64" + struct.pack("<I", len(sizes)) + sizes + b"fmt " + struct.pack("<I", len(fmt)) + fmt
    complete = name + b"\xff" * 4 + head + b"data" + b"\xff" * 4 + samples
    path = tmp_path / "a.wav"
    path.write_bytes(complete)
    assert wav_duration(path) == 1.6
    assert len(load_audio(path)) == SAMPLES
    path.write_bytes(complete[:-20000])
    with pytest.raises(MediaError, match="cut off"):
        load_audio(path)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + bytes(16), b"ID3\4" + bytes(60)])
def test_headers_without_a_duration(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    assert wav_duration(tmp_path / "a.wav") is None
