# SPDX-License-Identifier: Apache-2.0
"""Finds the videos below a folder, by their content, not their names."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import av

from lipsync_bench.datamodules.media.container import MAX_PIXELS, is_picture

VIDEO_SUFFIXES = frozenset(
    {
        *(".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov"),
        *(".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".qt", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv"),
        ".y4m",
    }
)
"""A file with such a suffix is meant to be a video; if it is not one, that is an error of the file."""
REPORT_MARKER = ".lipsync-bench-report"
"""A file in every folder that `bench report` has made."""
_TEXT_ART = frozenset({"adf", "bin", "idf", "tty", "xbin"})  # libav renders any text as a video
_PLAYLISTS = frozenset({"concat", "dash", "hls", "sdp"})
_OUTPUTS = (b'"source_root"', b'"complete"'), (b'"identity"', b'"format"')  # of `bench prepare` and `bench evaluate`
_HEAD_BYTES = 4096

logger = logging.getLogger(__name__)

__all__ = ["REPORT_MARKER", "VIDEO_SUFFIXES", "find_videos", "is_video"]


def is_video(path: Path) -> bool:
    """Whether a file is a video: not audio with a cover picture, a single image, a text, or a playlist.

    Pipes and devices are never opened.
    """
    try:
        if not path.is_file() or path.stat().st_size == 0:
            return False
        # A file that the user did not name must not open other files.
        options = {"protocol_whitelist": "file", "max_pixels": str(MAX_PIXELS)}
        with av.open(f"file:{path}", metadata_errors="replace", options=options) as container:
            formats = set(container.format.name.split(","))
            streams = [stream for stream in container.streams.video if not is_picture(stream)]
            if not streams or formats & (_TEXT_ART | _PLAYLISTS) or any(name.endswith("_pipe") for name in formats):
                return False
            packets = (packet for packet in container.demux(streams) if packet.size)
            return len(list(islice(packets, 2))) == 2
    except (av.error.FFmpegError, OSError, ValueError):
        return False


def _is_output(folder: Path) -> bool:
    """Whether this suite has written a folder: results, prepared clips, or a report. Their videos are not sources."""
    if (folder / REPORT_MARKER).is_file():
        return True
    manifest = folder / "manifest.json"
    if manifest.is_file():
        with manifest.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        if any(all(word in head for word in words) for words in _OUTPUTS):
            return True
    for rows in folder.glob("clips*.csv"):
        if rows.is_file():
            with rows.open("rb") as file:
                if file.readline(_HEAD_BYTES).startswith(b"protocol,method,"):
                    return True
    return False


def _warn(error: OSError) -> None:
    logger.warning("%s: cannot be listed (%s)", error.filename, error.strerror)


def find_videos(root: Path, exclude: Iterable[Path] = (), layout: str = "") -> Iterator[Path]:
    """Video files below a folder, sorted, including damaged files with a video's suffix.

    Hidden files and folders are left out, links are followed, but never in circles. The log has the number of other
    files. Folders below `root` that this suite has written are left out.

    Args:
        root: The folder; it is never left out itself.
        exclude: Further folders to leave out.
        layout: Where they lie, as `{speaker}/video/{clip}`: names of folders, `{speaker}` and `*` for any, and a last
            part for the videos. Other folders are not entered. Empty for videos anywhere below.
    """
    entered, others = set(), Counter[str]()
    parts = layout.split("/")[:-1]
    left_out = {path.resolve() for path in exclude} - {root.resolve()}
    for folder, folders, files in os.walk(root, followlinks=True, onerror=_warn):
        real = Path(folder).resolve()
        if real in entered or real in left_out or (Path(folder) != root and _is_output(real)):
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if layout:
            place = len(Path(folder).relative_to(root).parts)
            if place < len(parts):
                folders[:] = [name for name in folders if parts[place] in ("{speaker}", "*", name)]
                continue
            folders.clear()
        for path in (Path(folder, name) for name in sorted(files) if not name.startswith(".")):
            if path.suffix.lower() in VIDEO_SUFFIXES or is_video(path):
                yield path
            else:
                others[path.suffix.lower() or "without suffix"] += 1
    if others:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
        logger.info("%s: %d files are not videos and are skipped (%s)", root, others.total(), kinds)
