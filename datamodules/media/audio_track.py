# SPDX-License-Identifier: Apache-2.0
"""The decoded frames of a file's audio track, each with its position on the time axis of the video."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.media.container import audio_stream, open_media, video_stream
from lipsync_bench.datamodules.media.damage import REPAIR, Damage, check_end, until_error
from lipsync_bench.datamodules.media.track_times import (
    PRIMING,
    inexact_s,
    stated_duration,
    tick,
    time_zero,
    unstated_priming,
    unstretched,
)

# A longer hole in the timestamps is taken for a broken timestamp: filling it would need unbounded time and memory.
MAX_GAP_S = 60.0
# Other rates do not occur, and resampling them to 16 kHz takes memory that the size of the file does not bound.
MIN_RATE, MAX_RATE = 1000, 768_000
MAX_CHANNELS = 64
MAX_HOURS = 6  # length of a track; 64 kB/s at 16 kHz
_MIN_GAP_S = 0.1  # recordings with packet loss leave holes in the timestamps; smaller ones are jitter or rounding

__all__ = ["MAX_GAP_S", "audio_frames", "checked_audio", "mono_samples"]


def checked_audio(container: Any, path: Path) -> Any:
    """The audio track to read. Raises MediaError if there is none that can be used."""
    stream = audio_stream(container)
    if stream is None:
        raise MediaError(
            f"{path}: no audio track. Expected a file with audio. Choose another file, or add a track with: "
            "ffmpeg -i INPUT -i AUDIO.wav -c:v copy OUTPUT.mp4"
        )
    if stream.codec_context is None:
        raise MediaError(f"{path}: an audio track of an unknown codec. Expected one that libav decodes. {REPAIR}")
    if stream.rate:  # else only the frames tell
        _check_format(path, stream.rate, stream.channels)
    return stream


def _check_format(path: Path, rate: int, channels: int) -> None:
    if not (MIN_RATE <= rate <= MAX_RATE and channels <= MAX_CHANNELS):
        raise MediaError(
            f"{path}: audio of {channels} channels, {rate} samples a second. Expected at most {MAX_CHANNELS} channels, "
            f"{MIN_RATE} to {MAX_RATE} samples a second. Export it again, best as 16-bit wav of one channel at 16 kHz."
        )


def _place(container: Any, stream: Any, zero: Fraction, head: list[Any]) -> tuple[int, int]:
    """The number of the first sample, counted from time 0, and the number that its timestamp states.

    Containers round timestamps, some to a millisecond. If time 0 is that close to the start of a packet, or to the end
    of the priming, it is exactly there, so that the same packets in another container give the same samples.
    """
    first, rate = head[0], head[0].sample_rate
    if first.pts is None or not first.time_base:
        return 0, 0
    start = (first.pts * first.time_base - zero) * rate
    stated = round(start)
    video = video_stream(container)
    ticks = tick(container, stream) + (0 if video is None else tick(container, video))
    slack = ticks / 2 * rate + 1
    priming = PRIMING.get(stream.codec_context.name, 0)
    exact = {-priming: -priming, 0: -unstated_priming(container)}
    if len(head) > 1 and head[1].pts is not None:
        second = (head[1].pts * head[1].time_base - zero) * rate
        start = unstretched(container, start / rate, second / rate, Fraction(first.samples, rate)) * rate
        packet = head[1].samples  # the first packet may be shorter
        if not stream.codec_context.name.startswith("pcm"):  # PCM packets have any length
            aligned = round((start + first.samples) / packet) * packet - first.samples
            exact.setdefault(aligned, aligned)
    near = [exact[place] for place in (0, *exact) if abs(start - place) <= slack]
    return (near[0] if near else round(start)), stated


def mono_samples(frame: Any, path: Path) -> np.ndarray:
    """Samples of one decoded frame as float32 (S,), full scale 1, mean over channels."""
    samples = frame.to_ndarray()
    channels = frame.layout.nb_channels
    if not frame.format.is_planar:
        samples = samples.reshape(-1, channels).T
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128) / 128
    elif samples.dtype.kind == "i":
        samples = samples.astype(np.float32) / np.float32(2.0 ** (8 * samples.dtype.itemsize - 1))
    samples = samples.astype(np.float32, copy=False)
    if not np.isfinite(samples).all():
        raise MediaError(
            f"{path}: NaN or infinite audio samples near {float(frame.time or 0):.2f} s. Expected finite samples. "
            "Export the audio again, best as 16-bit wav."
        )
    return samples.mean(axis=0) if channels > 1 else samples[0]


def audio_frames(path: Path, damage: Damage) -> Iterator[tuple[int, Any]]:
    """Decoded frames with the number of their first sample at the file's own rate, counted from time 0.

    Frames follow each other without a hole unless the timestamps have one above 0.1 s. The first ones may be before
    time 0. Holds two frames in memory.

    Args:
        path: Any container and codec that PyAV reads.
        damage: Counts what the decoder could not read.

    Raises:
        FileNotFoundError: There is no such file.
        MediaError: The audio cannot be used, or ends too early.
    """
    with open_media(path) as container:
        stream = checked_audio(container, path)
        zero, stated = time_zero(container), stated_duration(container, stream, path)
        errors: list[Exception] = []
        frames = until_error(container.decode(stream), errors, damage)
        head = list(islice(frames, 2))
        position, start = _place(container, stream, zero, head) if head else (0, 0)
        rate, unit = (head[0].sample_rate, max(frame.samples for frame in head)) if head else (1, 0)
        for index, frame in enumerate(chain(head, frames)):
            _check_format(path, frame.sample_rate, frame.layout.nb_channels)
            if frame.sample_rate != rate:
                raise MediaError(
                    f"{path}: the audio's rate changes from {rate} to {frame.sample_rate} Hz. Expected one rate. "
                    f"{REPAIR}"
                )
            if frame.format.bytes > 4 and frame.format.name[:3] != "dbl":
                raise MediaError(
                    f"{path}: {8 * frame.format.bytes}-bit integer audio. Expected at most 32 bits, or floats. Export "
                    "it again, best as 16-bit wav at 16 kHz."
                )
            stamped = position
            if index and frame.pts is not None and frame.time_base:
                stamped = round((frame.pts * frame.time_base - zero) * rate)
            hole = stamped - position if index else max(position, 0)
            if hole > MAX_GAP_S * rate:
                raise MediaError(
                    f"{path}: no audio for {hole / rate:.0f} s from {(stamped - hole) / rate:.2f} s on. Expected holes "
                    f"of at most {MAX_GAP_S:.0f} s. {REPAIR}"
                )
            if hole > _MIN_GAP_S * rate and index:
                position = stamped
            yield position, frame
            position += frame.samples
            if position > MAX_HOURS * 3600 * rate:
                raise MediaError(f"{path}: more than {MAX_HOURS} hours of audio. Expected less. Cut it into parts.")
        shortest = max(unit / rate, 0.01, inexact_s(container))
        check_end(path, "audio", (position - start) / rate, stated, shortest, errors, damage)
