# SPDX-License-Identifier: Apache-2.0
"""The common time 0 of video and audio, and the durations that a file states for its tracks.

Players use the timestamps correctly: the sample at t belongs to the frame shown at t. But the first timestamps of a
file are unreliable. An audio encoder needs samples before the first ("priming"), a video encoder that reorders frames
outputs the first one late, and not every container can state these delays: copied from one container to another, the
same streams start 7 to 130 ms apart. So time 0 must not be the first timestamp of the file, or the first frame would be
shown twice and all others late.
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
_MOST_PRIMING = 2112  # samples, of Apple's AAC encoder; other encoders in use have fewer
# Priming samples of libav's encoders.
PRIMING = {"aac": 1024, "ac3": 256, "eac3": 256, "mp2": 481, "mp3": 1105, "mp3float": 1105, "opus": 312, "libopus": 312}
# Containers that may not state when a track starts: muxers set its first packet to 0.
_WITHOUT_START = frozenset({"mp4", "avi"})
# Containers that store when a frame is decoded, not when it is shown, which is later if frames are reordered.
_DECODING_TIMES = frozenset({"avi", "asf"})
# Errors of the durations they state: AVI counts empty packets, ASF states the end of the longest track.
_INEXACT_S = {"avi": 0.12, "asf": 0.5}
# No encoder has a longer delay. A muxer that cannot write a track's start lengthens its first packet by the delay.
_MOST_DELAY_S = Fraction(1, 4)
_PACKETS = 100  # packets that are searched for priming

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
    """libav's names of the container format."""
    return set(container.format.name.split(","))


def decoding_times(container: Any) -> bool:
    """Whether the container stores when frames are decoded, not when they are shown."""
    return bool(_formats(container) & _DECODING_TIMES)


def inexact_s(container: Any) -> float:
    """The error of a track's stated duration that the container causes, in seconds."""
    return max(_INEXACT_S.get(name, 0.0) for name in _formats(container))


def tick(container: Any, stream: Any) -> Fraction:
    """The resolution of a track's start, in seconds. The edit lists of MP4 usually count in milliseconds."""
    return max(Fraction(stream.time_base), Fraction("mp4" in _formats(container), 1000))


def track_fps(container: Any, stream: Any) -> Fraction | None:
    """Mean frames a second of a video track; None if the file does not state it."""
    # AVI states the unit of its timestamps, and empty frames fill the time between the others.
    rate = stream.guessed_rate if decoding_times(container) else stream.average_rate or stream.guessed_rate
    return Fraction(rate) if rate else None


def unstated_priming(container: Any) -> int:
    """Priming samples at the start of the audio that the container cannot distinguish from a delay of the video.

    AVI has no timestamps below 0 and starts all tracks at 0: reordered video without its delay, audio with its priming.
    """
    video, audio = video_stream(container), audio_stream(container)
    if "avi" not in _formats(container) or video is None or audio is None or video.codec_context is None:
        return 0
    return PRIMING.get(audio.codec_context.name, 0) if video.codec_context.reorder_depth else 0


def unstretched(container: Any, first: Fraction, second: Fraction, usual: Fraction) -> Fraction:
    """The start of a track's first packet: in MP4, MOV and AVI its timestamp may have been set to the file's start.

    Args:
        container: The file.
        first: Timestamp of the first packet or frame, in seconds.
        second: Timestamp of the next one.
        usual: Length of a packet.
    """
    stretch = second - first - usual
    return first + stretch if _formats(container) & _WITHOUT_START and 0 < stretch <= _MOST_DELAY_S else first


def _start(container: Any, stream: Any) -> Fraction:
    """The start of a track in a container that may not state it."""
    start = Fraction(stream.start_time * stream.time_base)
    first = [entry.timestamp * stream.time_base for entry in islice(stream.index_entries, 3)]
    if len(first) < 3 or stream.codec_context.name.startswith("pcm"):  # PCM packets have any length
        return start
    return start + unstretched(container, first[0], first[1], first[2] - first[1]) - first[0]


def _states_priming(container: Any, audio: Any) -> bool:
    """Whether the file states how many of the first audio samples must be skipped."""
    if _formats(container) & _WITHOUT_START:
        return any(entry.timestamp < audio.start_time for entry in islice(audio.index_entries, 1))
    try:
        with av.open(container.name, metadata_errors="replace") as again:  # seeking back in the open one may be inexact
            packets = islice(again.demux(again.streams[audio.index]), _PACKETS)
            packet = next((packet for packet in packets if packet.pts is not None), None)
            sides = () if packet is None else packet.iter_sidedata()
            return any(side.data_type == "skip_samples" and any(bytes(side)[:4]) for side in sides)
    except (av.error.FFmpegError, ValueError):  # decoding will report it
        return False


def time_zero(container: Any) -> Fraction:
    """The timestamp, in seconds, that is time 0 of both audio and video.

    It is the start of the earlier track, with one exception: if the video starts later than the audio by no more than
    encoders' delays explain, the first frame is at time 0 and the audio before it is left out. A longer delay is real:
    then the first frame is shown from the start of the audio on. The audio's priming and the reordering of frames
    explain delays unless the container states the priming.
    """
    video, audio = video_stream(container), audio_stream(container)
    usable = [s for s in (video, audio) if s is not None and s.codec_context is not None and s.start_time is not None]
    starts = [stream.start_time * stream.time_base for stream in usable]
    if video not in usable or audio not in usable or video is None or audio is None or not audio.rate:
        return min(starts, default=Fraction(0))
    video_start, audio_start = starts
    guessed = bool(_formats(container) & _WITHOUT_START)
    if video_start <= audio_start and not guessed:
        return video_start
    stated = _states_priming(container, audio)
    if guessed and not stated:
        video_start, audio_start = _start(container, video), _start(container, audio)
    explained = _TOGETHER_S
    if not stated:
        reordering = 0 if decoding_times(container) else video.codec_context.reorder_depth
        reordering = reordering / (track_fps(container, video) or Fraction(25))
        explained = min(_MOST_DELAY_S, max(explained, Fraction(_MOST_PRIMING, audio.rate) + reordering))
    if video_start - audio_start <= explained:
        return video_start
    return audio_start if stated else audio_start + Fraction(PRIMING.get(audio.codec_context.name, 0), audio.rate)


def stated_duration(container: Any, stream: Any, path: Path) -> float | None:
    """Seconds from the stream's start to its end, as the file states them; None if it states nothing reliable."""
    names = _formats(container)
    if "wav" in names:
        return wav_duration(path)
    # An mp3 with a Xing header states its frames; such a file starts later than 0 by its encoder's delay.
    if names & _GUESSED_DURATION and not ("mp3" in names and stream.start_time):
        return None
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    # Matroska states the end of a single stream only in a tag such as "00:00:05.013000000".
    tag = next((value for key, value in stream.metadata.items() if key.upper() == "DURATION"), "")
    try:
        hours, minutes, seconds = tag.split(":")
        end = (int(hours) * 60 + int(minutes)) * 60 + float(seconds)
    except ValueError:
        return None
    return end - float((stream.start_time or 0) * stream.time_base)
