# SPDX-License-Identifier: Apache-2.0
"""Sound as people hear it: a file's own rate, mono or stereo, piece by piece, to be written beside new pictures.

`audio.load_audio` is what the networks hear. Both count from the same instant, so that a frame made for sample s of the
one belongs to the same moment of the other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from datamodules.errors import MediaError
from datamodules.media import MAX_GAP_S, REPAIR, open_media, time_zero, until_error

AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
_FALLBACK_RATE = 48000
_MIN_GAP_S = 0.1  # smaller holes in the timestamps are jitter or rounding

__all__ = ["AAC_RATES", "Sound", "read_sound"]


@dataclass(frozen=True)
class Sound:
    """A sound track that is read once.

    Args:
        rate: samples a second.
        channels: 1 or 2.
        pieces: float32 (channels, n) in [-1, 1], of any n, one after the other without holes.
    """

    rate: int
    channels: int
    pieces: Iterator[np.ndarray]


def _track(container: Any, path: Path) -> Any:
    if not container.streams.audio:
        raise MediaError(f"{path}: no audio track. Expected a file with sound. Choose another file (--audio)")
    return container.streams.audio[0]


def _decoded(path: Path, rate: int, layout: str) -> Iterator[tuple[int, np.ndarray]]:
    """Pieces with the number of their first sample, counted from time 0 of the file."""
    with open_media(path) as container:
        stream, zero = _track(container, path), time_zero(container)
        resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
        position = 0
        for frame in until_error(container.decode(stream), []):  # load_audio tells a file that is cut off
            if frame.pts is not None and frame.time_base:
                position = round((frame.pts * frame.time_base - zero) * rate)
            frame.pts = None  # holes are filled below; the resampler would move the samples after them
            for piece in resampler.resample(frame):
                yield position, piece.to_ndarray()
                position += piece.samples
        for piece in resampler.resample(None):
            yield position, piece.to_ndarray()
            position += piece.samples


def _pieces(path: Path, rate: int, layout: str, samples: float) -> Iterator[np.ndarray]:
    channels = 2 if layout == "stereo" else 1
    count, first = 0, True
    for position, piece in _decoded(path, rate, layout):
        if first:
            piece = piece[:, max(-position, 0) :]  # samples before time 0 are never presented
            position = max(position, 0)
        hole = position - count
        if hole > MAX_GAP_S * rate:
            raise MediaError(f"{path}: no audio for {hole / rate:.0f} s. Expected smaller holes. {REPAIR}")
        if hole > (0 if first else _MIN_GAP_S * rate):
            piece = np.concatenate([np.zeros((channels, hole), np.float32), piece], axis=1)
        first = False
        piece = piece[:, : max(0, int(min(samples - count, piece.shape[1])))]
        if piece.shape[1] == 0 and count >= samples:
            return
        count += piece.shape[1]
        yield np.ascontiguousarray(piece, np.float32)


def read_sound(path: Path | str, seconds: float | None = None) -> Sound:
    """The first audio track of a media file, decoded while it is read; holds one packet.

    The rate is the file's own where AAC has it, else 48 kHz. More than two channels are mixed down to stereo as libav
    does it. Time 0, priming samples and holes are treated as by `audio.load_audio`.

    Args:
        path: any container and codec that PyAV reads.
        seconds: stop after this time.

    Raises:
        FileNotFoundError, MediaError: no such file, not media, or no sound in it.
    """
    path = Path(path)
    with open_media(path) as container:
        stream = _track(container, path)
        rate = stream.rate if stream.rate in AAC_RATES else _FALLBACK_RATE
        layout = "mono" if stream.channels == 1 else "stereo"
    samples = float("inf") if seconds is None else round(seconds * rate)
    return Sound(rate, 1 if layout == "mono" else 2, _pieces(path, rate, layout, samples))
