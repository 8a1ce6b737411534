# SPDX-License-Identifier: Apache-2.0
"""The original audio track for muxing: at the file's own rate, mono or stereo, in pieces.

`audio.load_audio` gives the networks' input. Both count from the same instant, so that frames generated for one are in
sync with the other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from lipsync_bench.datamodules.media.audio_track import audio_frames, checked_audio, mono_samples
from lipsync_bench.datamodules.media.container import open_media
from lipsync_bench.datamodules.media.damage import Damage

AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
_FALLBACK_RATE = 48000
_MIN_GAP_S = 0.1  # smaller holes in the timestamps are jitter or rounding

__all__ = ["AAC_RATES", "OriginalAudio", "read_original_audio"]


@dataclass(frozen=True)
class OriginalAudio:
    """An audio track that can be read once.

    Args:
        rate: samples a second.
        channels: 1 or 2.
        pieces: float32 (channels, n) in [-1, 1], n varies, in order and without holes.
    """

    rate: int
    channels: int
    pieces: Iterator[np.ndarray]


def _decoded(path: Path, rate: int, layout: str) -> Iterator[tuple[int, np.ndarray]]:
    """Pieces with the number of their first sample, counted from time 0 of the file."""
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
    position = 0
    for first, frame in audio_frames(path, Damage()):  # load_audio reports damage
        position = round(Fraction(first * rate, frame.sample_rate))
        if layout == "mono" and frame.layout.nb_channels > 2:  # libav cannot mix them
            mono = av.AudioFrame.from_ndarray(mono_samples(frame, path)[None], format="fltp", layout="mono")
            mono.sample_rate, frame = frame.sample_rate, mono
        frame.pts = None  # holes are filled below; the resampler would move the samples after them
        for piece in resampler.resample(frame):
            yield position, piece.to_ndarray()
            position += piece.samples
    for piece in resampler.resample(None):
        yield position, piece.to_ndarray()
        position += piece.samples


def _pieces(path: Path, rate: int, layout: str, samples: float) -> Iterator[np.ndarray]:
    channels = 2 if layout == "stereo" else 1
    count = 0
    at: int | None = None
    for position, piece in _decoded(path, rate, layout):
        # The resampler delays samples, so that a piece is never exactly at its frame; only holes are applied.
        at = position if at is None or position - at > _MIN_GAP_S * rate else at
        hole = max(at - count, 0)
        at, piece = at + piece.shape[1], piece[:, max(-at, 0) :]  # samples before time 0 are never presented
        if hole:
            piece = np.concatenate([np.zeros((channels, hole), np.float32), piece], axis=1)
        piece = piece[:, : max(0, int(min(samples - count, piece.shape[1])))]
        if piece.shape[1] == 0 and count >= samples:
            return
        count += piece.shape[1]
        yield np.ascontiguousarray(piece, np.float32)


def read_original_audio(path: Path | str, seconds: float | None = None) -> OriginalAudio:
    """The audio track of a media file (the one of `audio.load_audio`), decoded while it is read; holds one packet.

    The rate is the file's own if AAC supports it, else 48 kHz. More than two channels are mixed down to stereo by
    libav, or averaged if it does not know their layout. Time 0, priming samples and holes are treated as by
    `audio.load_audio`.

    Args:
        path: any container and codec that PyAV reads.
        seconds: stop after this time.

    Raises:
        FileNotFoundError, MediaError: no such file, not media, or no audio in it.
    """
    path = Path(path)
    with open_media(path) as container:
        stream = checked_audio(container, path)
        rate = stream.rate if stream.rate in AAC_RATES else _FALLBACK_RATE
        unknown = stream.channels > 8 and stream.layout.name.endswith("channels")
        layout = "mono" if stream.channels == 1 or unknown else "stereo"
    samples = float("inf") if seconds is None else round(seconds * rate)
    return OriginalAudio(rate, 1 if layout == "mono" else 2, _pieces(path, rate, layout, samples))
