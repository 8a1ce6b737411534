# SPDX-License-Identifier: Apache-2.0
"""A page for each clip: its videos side by side, and each entry's row."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lipsync_bench.evaluation.videos import video_path
from lipsync_bench.report.contents import Entry, Results
from lipsync_bench.report.names import slugs
from lipsync_bench.report.numbers import SECONDS, Heading, headings
from lipsync_bench.report.zoom import zoom_boxes
from lipsync_bench.results.printing import value_text
from lipsync_bench.results.rows import ENTRY

VIDEOS = "videos"
_SHOWN = ("psnr", "ssim", "lmd", "lse_c_wav2lip_lrs", "expert_confidence")  # below a player; the table has all

__all__ = ["ClipPage", "ClipRow", "Group", "clip_pages", "has_videos"]


@dataclass(frozen=True)
class ClipRow:
    """One entry's row of a clip.

    Args:
        entry: The entry of the leaderboard.
        failed: Whether it failed.
        reason: The reason of the failure.
        cells: Text of each metric, and of the seconds a frame took.
        video: Address of the video, relative to the page; empty if the run saved none.
        shown: Heading and text of the metrics below the player.
    """

    entry: Entry
    failed: bool
    reason: str
    cells: Sequence[str]
    video: str
    shown: Sequence[tuple[Heading, str]]


@dataclass(frozen=True)
class Group:
    """All rows of one protocol with the same audio: these may be compared."""

    protocol: str
    audio: str
    headings: Sequence[Heading]
    rows: Sequence[ClipRow]

    @property
    def playable(self) -> Sequence[ClipRow]:
        """The rows with a video, the real video first."""
        return sorted((shown for shown in self.rows if shown.video), key=lambda shown: not shown.entry.is_reference)


@dataclass(frozen=True)
class ClipPage:
    """The page of one clip; `zoom` has the parts of its frames that can be enlarged, see `zoom_boxes`."""

    clip: str
    slug: str
    groups: Sequence[Group]
    zoom: Mapping[str, Sequence[int]]


def _source(results: Results, entry: Entry, clip: str, audio: str) -> Path | None:
    """The saved video of this row, if there is one; never a file outside the results folder's videos."""
    root = results.folder.videos.resolve()
    path = video_path(results.folder.path, entry.key[1:], clip, audio).resolve()
    return path if path.is_relative_to(root) and path.is_file() else None


def has_videos(results: Results) -> bool:
    """Whether the run saved any video."""
    return any(results.folder.videos.rglob("*.mp4"))


def _link_or_copy(source: Path, out: Path) -> None:
    """Link the file to another path, or copy it if the file system cannot link."""
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, out)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, out)


def _video(results: Results, entry: Entry, clip: str, audio: str, audio_slugs: Mapping[str, str], out: Path) -> str:
    source = _source(results, entry, clip, audio)
    if source is None:
        return ""
    name = results.clips[clip] if audio == clip else f"{results.clips[clip]}--{audio_slugs[audio]}"
    address = f"{VIDEOS}/{entry.slug}/{name}.mp4"
    _link_or_copy(source, out / address)
    return f"../{address}"


def _clip_row(row: Mapping[Any, Any], entry: Entry, heads: Sequence[Heading], video: str) -> ClipRow:
    failed = row["status"] != "ok"
    cells = [value_text(float(row[head.name]), head.digits) for head in heads]
    shown = [(head, cell) for head, cell in zip(heads, cells, strict=True) if head.name in _SHOWN]
    return ClipRow(entry, failed, row["reason"] or "no reason was stated", cells, video, () if failed else shown)


def clip_pages(results: Results, out: Path, videos: bool) -> Iterator[ClipPage]:
    """The pages, one at a time; the videos of a page are in `out` before it is yielded.

    Args:
        results: The results to show.
        out: Folder of the site.
        videos: Whether the run saved any.
    """
    heads = {p: [*headings(results, p, results.clip_columns(p)), SECONDS] for p in results.protocols}
    audio_slugs = slugs(results.rows["audio_clip"])
    for clip, rows in results.rows.groupby("clip", sort=True):
        groups = []
        for (protocol, audio), own in rows.groupby(["protocol", "audio_clip"], sort=True):
            shown_rows = []
            for row in own.to_dict("records"):
                entry = results.entries[tuple(row[name] for name in ENTRY)]
                video = _video(results, entry, str(clip), audio, audio_slugs, out) if videos else ""
                shown_rows.append(_clip_row(row, entry, heads[protocol], video))
            shown_rows.sort(key=lambda shown: (shown.entry.is_reference, shown.entry.number))
            groups.append(Group(protocol, audio, heads[protocol], shown_rows))
        zoom = zoom_boxes(results, str(clip), set(rows["target_sha256"])) if videos else {}
        yield ClipPage(str(clip), results.clips[str(clip)], groups, zoom)
