# SPDX-License-Identifier: Apache-2.0
"""Audio, videos and images: a small one of each container and codec that PyAV and OpenCV write."""

import struct
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from benchmarks.fuzz.kinds import Kind
from lipsync_bench.datamodules.datasets.stills import read_still
from lipsync_bench.datamodules.media.audio import load_audio
from lipsync_bench.datamodules.media.original_audio import read_original_audio
from lipsync_bench.datamodules.media.video import probe, read_frames

FRAMES = 25
SIZE_HW = (48, 64)
RATE = 16000

__all__ = ["KINDS", "image", "tone", "write_video"]


def tone(seconds: float = FRAMES / 25, rate: int = RATE) -> np.ndarray:
    """A tone in noise, float32 (S,)."""
    rng = np.random.default_rng(0)
    count = round(seconds * rate)
    return (0.3 * np.sin(np.arange(count) * 0.17) + 0.05 * rng.standard_normal(count)).astype(np.float32)


def image(k: int, size_hw: tuple[int, int] = SIZE_HW) -> np.ndarray:
    """Frame k: a bright square that moves over a gradient, uint8 RGB."""
    height, width = size_hw
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows * 3, columns * 2, rows + columns], axis=-1).astype(np.uint8)
    image[8:24, k : k + 16] = (230, 180, 40)
    return image


def _audio_frames(codec: Any) -> Iterator[Any]:
    """The tone in frames of the size and sample type of an encoder."""
    resampler = av.AudioResampler(format=codec.format, layout=codec.layout, rate=codec.sample_rate)
    frame = av.AudioFrame.from_ndarray(tone()[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts = RATE, None
    fifo = av.AudioFifo()
    for piece in (*resampler.resample(frame), *resampler.resample(None)):
        piece.pts = None
        fifo.write(piece)
    while (piece := fifo.read(codec.frame_size or 1024, partial=True)) is not None:
        yield piece


def write_video(
    path: Path,
    video: str | None,
    audio: str | None,
    form: str,
    pixels: str = "yuv420p",
    rate: int = RATE,
    options: dict[str, str] | None = None,
) -> None:
    """Write a file with these codecs (None for no such track) in this container, with one thread."""
    with av.open(str(path), "w", format=form, options={"fflags": "+bitexact", **(options or {})}) as container:
        video_stream = audio_stream = None
        if video is not None:
            video_stream = container.add_stream(video, rate=Fraction(25))
            video_stream.height, video_stream.width = SIZE_HW
            video_stream.pix_fmt = pixels
            video_stream.codec_context.thread_count = 1
        if audio is not None:
            audio_stream = container.add_stream(audio, rate=rate, layout="mono")
            audio_stream.codec_context.thread_count = 1
            audio_stream.codec_context.bit_rate = 64000
            audio_stream.codec_context.open()
        for k in range(FRAMES if video_stream is not None else 0):
            frame = av.VideoFrame.from_ndarray(image(k), format="rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = k, Fraction(1, 25)
            container.mux(video_stream.encode(frame))
        if video_stream is not None:
            container.mux(video_stream.encode(None))
        if audio_stream is not None:
            for piece in _audio_frames(audio_stream.codec_context):
                container.mux(audio_stream.encode(piece))
            container.mux(audio_stream.encode(None))


def _write_wav(path: Path, code: int, bits: int, extensible: bool = False) -> None:
    """A RIFF file without an encoder, as recorders write them."""
    samples = tone()
    if code == 3:
        data = samples.astype(f"<f{bits // 8}").tobytes()
    elif bits == 8:
        data = (samples * 127 + 128).astype(np.uint8).tobytes()
    elif bits == 24:
        data = (samples * 2**31).astype("<i4").view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()
    else:
        data = (samples * 2 ** (bits - 1)).astype(f"<i{bits // 8}").tobytes()
    head = struct.pack("<HHIIHH", 0xFFFE if extensible else code, 1, RATE, RATE * bits // 8, bits // 8, bits)
    if extensible:
        head += struct.pack("<HHIH", 22, bits, 4, code) + bytes.fromhex("000000001000800000aa00389b71")
    chunks = b"".join(
        name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
        for name, body in ((b"fmt ", head), (b"LIST", b"INFOISFT\x04\0\0\0fuzz"), (b"data", data))
    )
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)


def _read_audio(path: Path) -> None:
    load_audio(path)
    deque(read_original_audio(path).pieces, maxlen=0)


def _read_video(path: Path) -> None:
    """Read a video as preparation and evaluation do, without its faces."""
    info = probe(path)
    for _ in read_frames(path):
        pass
    if info.has_audio:
        load_audio(path)


def _write_image(folder: Path, name: str) -> None:
    cv2.imwrite(str(folder / name), image(3)[..., ::-1])


def _still(path: Path) -> None:
    read_still(path, 32)


def _kind(name: str, file: str, read: Any, *codecs: Any, **more: Any) -> Kind:
    return Kind(name, file, lambda folder: write_video(folder / file, *codecs, **more), read)


def _wav(name: str, code: int, bits: int, extensible: bool = False) -> Kind:
    return Kind(name, "a.wav", lambda folder: _write_wav(folder / "a.wav", code, bits, extensible), _read_audio)


def _image(name: str, file: str) -> Kind:
    return Kind(name, file, partial(_write_image, name=file), _still)


_FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}

KINDS = (
    _wav("wav_pcm8", 1, 8),
    _wav("wav_pcm16", 1, 16),
    _wav("wav_pcm24", 1, 24),
    _wav("wav_pcm32", 1, 32),
    _wav("wav_float", 3, 32),
    _wav("wav_double", 3, 64),
    _wav("wav_extensible", 1, 24, True),
    _kind("wav_adpcm_ima", "a.wav", _read_audio, None, "adpcm_ima_wav", "wav"),
    _kind("wav_adpcm_ms", "a.wav", _read_audio, None, "adpcm_ms", "wav"),
    _kind("flac", "a.flac", _read_audio, None, "flac", "flac"),
    _kind("mp3", "a.mp3", _read_audio, None, "libmp3lame", "mp3"),
    _kind("aac", "a.aac", _read_audio, None, "aac", "adts"),
    _kind("m4a", "a.m4a", _read_audio, None, "aac", "ipod"),
    _kind("ogg_opus", "a.ogg", _read_audio, None, "libopus", "ogg"),
    _kind("mp4", "a.mp4", _read_video, "libx264", "aac", "mp4"),
    _kind("mp4_fragmented", "a.mp4", _read_video, "libx264", "aac", "mp4", options=_FRAGMENTS),
    _kind("mp4_without_audio", "a.mp4", _read_video, "mpeg4", None, "mp4"),
    _kind("mov", "a.mov", _read_video, "mjpeg", "pcm_s16le", "mov", "yuvj420p"),
    _kind("mkv", "a.mkv", _read_video, "libx264", "flac", "matroska"),
    _kind("webm", "a.webm", _read_video, "libvpx", "libopus", "webm"),
    _kind("avi", "a.avi", _read_video, "mpeg4", "pcm_s16le", "avi"),
    _kind("ts", "a.ts", _read_video, "mpeg2video", "mp2", "mpegts"),
    _kind("flv", "a.flv", _read_video, "flv", "libmp3lame", "flv", rate=22050),
    _kind("wmv", "a.wmv", _read_video, "wmv2", "wmav2", "asf"),
    _kind("gif", "a.gif", _read_video, "gif", None, "gif", "rgb8"),
    _image("png", "a.png"),
    _image("jpg", "a.jpg"),
    _image("webp", "a.webp"),
    _image("bmp", "a.bmp"),
)
