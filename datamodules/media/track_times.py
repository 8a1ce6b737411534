# SPDX-License-Identifier: Apache-2.0
"""The instant from which video and audio are counted, and how long the tracks of a file are said to be.

What a player does with the timestamps is right: the sample at t belongs to the picture shown at t. But the first
timestamps of a file say little. An audio encoder needs samples before the first ("priming"), an encoder that sorts
pictures gives the first one out late, and not every container can state either: copied from one container into another,
the same streams start 7 to 130 ms apart. So the instant from which pictures are counted must not be the first timestamp
of the file, or the first picture is shown twice and all others late.
"""

from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av

from lipsync_bench.datamodules.media.container import audio_stream, video_stream
from lipsync_bench.datamodules.media.wav import wav_duration

# Tracks that start no further apart start together, whatever the reason; three quarters of a frame at 25 fps.
_TOGETHER_S = Fraction(30, 1000)
_MOST_PRIMING = 2112  # samples; Apple's AAC encoder has the most of those in use
# Samples, of libav's encoders.
PRIMING = {"aac": 1024, "ac3": 256, "eac3": 256, "mp2": 481, "mp3": 1105, "mp3float": 1105, "opus": 312, "libopus": 312}
# Containers that may not state when a track starts: muxers put its first packet to 0.
_WITHOUT_START = frozenset({"mp4", "avi"})
# Containers that know when a frame is decoded, and not when it is shown, which is later if frames are sorted.
_DECODING_TIMES = frozenset({"avi", "asf"})
# How far their headers are from the end of a track: AVI counts empty packets, ASF states the end of the longest track.
_INEXACT_S = {"avi": 0.12, "asf": 0.5}
# No encoder's delay is longer. Where a muxer may not write when a track starts, it lengthens the first packet by it.
_MOST_DELAY_S = Fraction(1, 4)
_PACKETS = 100  # are looked at

# Raw streams have no header, and the durations libav states for them are guesses from the bit rate.
_GUESSED_DURATION = frozenset({"aac", "ac3", "amr", "eac3", "h264", "hevc", "m4v", "mp3", "mpeg", "mpegvideo"})

__all__ = [
    "PRIMING",
    "decoding_times",
    "inexact_s",
    "stated_duration",
    "tick",
    "time_zero",
    "track_fps",
    "unstated_priming",
    "unstretched",
]


def _formats(container: Any) -> set[str]:
    """libav's names for the kind of file."""
    return set(container.format.name.split(","))


def decoding_times(container: Any) -> bool:
    """Whether the file says when frames are decoded, and not when they are shown."""
    return bool(_formats(container) & _DECODING_TIMES)


def inexact_s(container: Any) -> float:
    """How far the stated duration of a track may be from its end because of the container, in seconds."""
    return max(_INEXACT_S.get(name, 0.0) for name in _formats(container))


def tick(container: Any, stream: Any) -> Fraction:
    """What the start of a track is rounded to, in seconds. The edit lists of MP4 count in milliseconds as a rule."""
    return max(Fraction(stream.time_base), Fraction("mp4" in _formats(container), 1000))


def track_fps(container: Any, stream: Any) -> Fraction | None:
    """Mean frames a second of a video track; None where the file does not say."""
    # AVI states the unit of its timestamps, and empty frames fill the time between the others.
    rate = stream.guessed_rate if decoding_times(container) else stream.average_rate or stream.guessed_rate
    return Fraction(rate) if rate else None


def unstated_priming(container: Any) -> int:
    """Samples of priming at the start of the audio that the container cannot tell from a delay of the pictures.

    AVI knows no timestamps below 0 and begins all tracks at 0: sorted pictures without their delay, audio with its.
    """
    video, audio = video_stream(container), audio_stream(container)
    if "avi" not in _formats(container) or video is None or audio is None or video.codec_context is None:
        return 0
    return PRIMING.get(audio.codec_context.name, 0) if video.codec_context.reorder_depth else 0


def unstretched(container: Any, first: Fraction, second: Fraction, usual: Fraction) -> Fraction:
    """When the first packet of a track starts: in MP4, MOV and AVI its timestamp may have been put to the file's start.

    Args:
        container: The file.
        first: Timestamp of the first packet or frame, in seconds.
        second: Of the next.
        usual: Length of a packet.
    """
    stretch = second - first - usual
    return first + stretch if _formats(container) & _WITHOUT_START and 0 < stretch <= _MOST_DELAY_S else first


def _start(container: Any, stream: Any) -> Fraction:
    """When a track starts in a container that may not state it."""
    start = Fraction(stream.start_time * stream.time_base)
    first = [entry.timestamp * stream.time_base for entry in islice(stream.index_entries, 3)]
    if len(first) < 3 or stream.codec_context.name.startswith("pcm"):  # whose packets are of any length
        return start
    return start + unstretched(container, first[0], first[1], first[2] - first[1]) - first[0]


def _states_priming(container: Any, audio: Any) -> bool:
    """Whether the file says how many of the first audio samples are not to be heard."""
    if _formats(container) & _WITHOUT_START:
        return any(entry.timestamp < audio.start_time for entry in islice(audio.index_entries, 1))
    try:
        with av.open(container.name, metadata_errors="replace") as again:  # going back in the open one may not be exact
            packets = islice(again.demux(again.streams[audio.index]), _PACKETS)
            packet = next((packet for packet in packets if packet.pts is not None), None)
            sides = () if packet is None else packet.iter_sidedata()
            return any(side.data_type == "skip_samples" and any(bytes(side)[:4]) for side in sides)
    except (av.error.FFmpegError, ValueError):  # whoever decodes will tell
        return False


def time_zero(container: Any) -> Fraction:
    """The timestamp, in seconds, that is time 0 of both audio and video.

    It is the start of the earlier track. But a picture that comes no later after the audio than encoders' delays
    explain is at time 0 itself, and the audio before it is left out. A longer delay of the picture is one: its first
    frame is shown from the start of the audio on. Delays count as explained by the audio's priming and the sorting of
    pictures unless the container says how much priming there is.
    """
    video, audio = video_stream(container), audio_stream(container)
    usable = [s for s in (video, audio) if s is not None and s.codec_context is not None and s.start_time is not None]
    starts = [stream.start_time * stream.time_base for stream in usable]
    if video not in usable or audio not in usable or video is None or audio is None or not audio.rate:
        return min(starts, default=Fraction(0))
    picture, sound = starts
    guessed = bool(_formats(container) & _WITHOUT_START)
    if picture <= sound and not guessed:
        return picture
    stated = _states_priming(container, audio)
    if guessed and not stated:
        picture, sound = _start(container, video), _start(container, audio)
    explained = _TOGETHER_S
    if not stated:
        sorting = 0 if decoding_times(container) else video.codec_context.reorder_depth
        sorting = sorting / (track_fps(container, video) or Fraction(25))
        explained = min(_MOST_DELAY_S, max(explained, Fraction(_MOST_PRIMING, audio.rate) + sorting))
    if picture - sound <= explained:
        return picture
    return sound if stated else sound + Fraction(PRIMING.get(audio.codec_context.name, 0), audio.rate)


def stated_duration(container: Any, stream: Any, path: Path) -> float | None:
    """Seconds from the stream's own start to its end as the file states them; None where it says nothing reliable."""
    names = _formats(container)
    if "wav" in names:
        return wav_duration(path)
    # An mp3 with a Xing header states its frames, and its encoder's delay makes it start later than 0.
    if names & _GUESSED_DURATION and not ("mp3" in names and stream.start_time):
        return None
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    # Matroska states the end of a single stream in a tag such as "00:00:05.013000000", and in no other place.
    tag = next((value for key, value in stream.metadata.items() if key.upper() == "DURATION"), "")
    try:
        hours, minutes, seconds = tag.split(":")
        end = (int(hours) * 60 + int(minutes)) * 60 + float(seconds)
    except ValueError:
        return None
    return end - float((stream.start_time or 0) * stream.time_base)
