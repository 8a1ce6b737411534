# SPDX-License-Identifier: Apache-2.0
"""What reading audio and reading video share: opening a file, the instant both count from, whether the end is
missing."""

import contextlib
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from datamodules.errors import MediaError

# Files may end this much before the time their header states; editors and muxers are not more exact than that.
SHORTFALL_S = 0.5
# A longer hole in the timestamps is taken for a broken timestamp: filling it would need unbounded time and memory.
MAX_GAP_S = 60.0
REPAIR = "Replace the file, or re-encode what can be read of it with: ffmpeg -i INPUT OUTPUT.mp4"

# Raw streams have no header, and the durations libav states for them are guesses from the bit rate.
_GUESSED_DURATION = frozenset({"aac", "ac3", "amr", "eac3", "h264", "hevc", "m4v", "mp3", "mpeg", "mpegvideo"})

__all__ = [
    "MAX_GAP_S",
    "REPAIR",
    "check_end",
    "is_picture",
    "open_media",
    "stated_duration",
    "time_zero",
    "until_error",
]


def is_picture(stream: Any) -> bool:
    """Whether a video stream is the cover picture of a music file."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


@contextlib.contextmanager
def open_media(path: Path) -> Iterator[Any]:
    """Open a media file as a PyAV input container.

    Raises:
        FileNotFoundError: there is no such file.
        MediaError: it is a folder, empty, or nothing that PyAV can open.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file. Expected a video or audio file. Check the path you gave.")
    if not path.is_file():
        raise MediaError(f"{path}: not a regular file. Expected a video or audio file. Give the path of one file.")
    if path.stat().st_size == 0:
        raise MediaError(f"{path}: the file is empty (0 bytes). Expected a video or audio file. Copy it again.")
    try:
        # "file:" keeps a colon in a name from being taken for a protocol; tags in odd encodings are no reason to fail.
        container = av.open(f"file:{path}", metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise MediaError(
            f"{path}: cannot be opened as media ({error.__class__.__name__}). Expected a whole video or audio file, "
            f"such as mp4, mkv, wav, flac or mp3. {REPAIR}"
        ) from error
    with container:
        yield container


def time_zero(container: Any) -> Fraction:
    """The timestamp, in seconds, that is time 0 of both audio and video: the start of the earliest stream.

    Containers may start anywhere (broadcast streams do), and one stream may start after the other; counting both from
    the same instant keeps them in sync. Priming samples of AAC and MP3 lie before the start, and the decoder drops
    them.
    """
    streams = [*container.streams.audio, *(s for s in container.streams.video if not is_picture(s))]
    return min((s.start_time * s.time_base for s in streams if s.start_time is not None), default=Fraction(0))


def _wav_duration(path: Path) -> float | None:
    """Seconds that a RIFF header promises; libav tells only what is in the file, so that a cut file looks whole."""
    with path.open("rb") as file:
        if file.read(12)[:4] != b"RIFF":
            return None
        byte_rate = 0
        while len(head := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", head)
            if name == b"data":
                # Programs that write to a pipe leave 0 or a huge number there.
                return size / byte_rate if byte_rate and 0 < size < 0x7FFF0000 else None
            body = file.read(size + size % 2) if name == b"fmt " else b""
            if len(body) >= 12:
                byte_rate = struct.unpack("<I", body[8:12])[0]
            elif not body:
                file.seek(size + size % 2, 1)
    return None


def stated_duration(container: Any, stream: Any, path: Path) -> float | None:
    """Seconds from the stream's own start to its end as the file states them; None where it says nothing reliable."""
    formats = set(container.format.name.split(","))
    if "wav" in formats:
        return _wav_duration(path)
    # An mp3 with a Xing header states its frames, and its encoder's delay makes it start later than 0.
    if formats & _GUESSED_DURATION and not ("mp3" in formats and stream.start_time):
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


def until_error(frames: Iterator[Any], errors: list[Exception]) -> Iterator[Any]:
    """Pass decoded frames on until decoding ends or fails; a failure is put into `errors`, for `check_end` to judge."""
    try:
        yield from frames
    except (av.error.FFmpegError, ValueError) as error:
        errors.append(error)


def check_end(path: Path, kind: str, decoded_s: float, stated_s: float | None, errors: list[Exception]) -> None:
    """Raise MediaError if a stream ended too early: more than 0.5 s before the stated end.

    A failure of the decoder that close to the end is forgiven (junk after the last frame is common); without a stated
    end it never is.
    """
    if stated_s is None:
        if errors:
            raise MediaError(
                f"{path}: {kind} cannot be decoded after {decoded_s:.2f} s ({errors[0].__class__.__name__}). Expected "
                f"a file that decodes to its end. {REPAIR}"
            ) from errors[0]
    elif decoded_s < stated_s - SHORTFALL_S:
        raise MediaError(
            f"{path}: {kind} ends after {decoded_s:.2f} s, the file is cut off or damaged. Expected {stated_s:.2f} s, "
            f"as its header states. {REPAIR}"
        ) from (errors[0] if errors else None)
