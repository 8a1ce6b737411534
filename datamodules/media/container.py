# SPDX-License-Identifier: Apache-2.0
"""Opening a media file and choosing its tracks."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import av
from av.stream import Disposition

from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.media.damage import REPAIR

MAX_PIXELS = 36_000_000  # of a frame, slightly more than 8K: a few bytes of a file can demand gigabytes
_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails

__all__ = ["MAX_PIXELS", "audio_stream", "is_picture", "open_media", "video_stream"]


def is_picture(stream: Any) -> bool:
    """Whether a video stream is a cover picture or a strip of thumbnails."""
    return bool(stream.disposition & _PICTURES)


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
        # With "file:" a colon in a name is not taken for a protocol; tags in odd encodings are not an error.
        # The limit applies to the frames that libav decodes to probe the file.
        container = av.open(f"file:{path}", options={"max_pixels": str(MAX_PIXELS)}, metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise MediaError(
            f"{path}: cannot be opened as media ({error.__class__.__name__}). Expected a whole video or audio file, "
            f"such as mp4, mkv, wav, flac or mp3. {REPAIR}"
        ) from error
    with container:
        yield container


def _meant(container: Any, kind: Literal["video", "audio"]) -> Any | None:
    """The track that players choose: flagged default, else libav's best. Tracks without a decoder come last."""
    found = [stream for stream in getattr(container.streams, kind) if not (kind == "video" and is_picture(stream))]
    found = [stream for stream in found if stream.codec_context is not None] or found
    found = [stream for stream in found if stream.disposition & Disposition.default] or found
    best = container.streams.best(kind)
    return best if best in found else next(iter(found), None)


def video_stream(container: Any) -> Any | None:
    """The video track to read, or None; cover pictures and thumbnails are not video."""
    return _meant(container, "video")


def audio_stream(container: Any) -> Any | None:
    """The audio track to read, or None."""
    return _meant(container, "audio")
