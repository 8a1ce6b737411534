# SPDX-License-Identifier: Apache-2.0
"""A page for each clip: its videos side by side, and each line's row."""

import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lipsync_bench.evaluation.videos import video_path
from lipsync_bench.report.names import slugs
from lipsync_bench.report.numbers import Heading, headings, value_text
from lipsync_bench.report.results import Line, Results
from lipsync_bench.results.rows import ENTRY

VIDEOS = "videos"
_SHOWN = ("psnr", "ssim", "lmd", "lse_c_wav2lip_lrs", "expert_confidence")  # below a player; the table has all

__all__ = ["ClipPage", "Group", "Take", "clip_pages", "kept_videos"]


@dataclass(frozen=True)
class Take:
    """One line's row of a clip.

    Args:
        line: Of the leaderboard.
        failed: Whether it failed.
        reason: Why.
        cells: Text of each metric.
        video: Address from the page; empty if the run kept none.
        shown: Heading and text of the metrics that stand below the player.
        seconds: Of the method alone, as text.
    """

    line: Line
    failed: bool
    reason: str
    cells: Sequence[str]
    video: str
    shown: Sequence[tuple[Heading, str]]
    seconds: str


@dataclass(frozen=True)
class Group:
    """All takes with one sound under one protocol: what may be compared."""

    protocol: str
    sound: str
    headings: Sequence[Heading]
    takes: Sequence[Take]

    @property
    def playable(self) -> Sequence[Take]:
        """Those with a video, the real one first."""
        return sorted((take for take in self.takes if take.video), key=lambda take: not take.line.floor)


@dataclass(frozen=True)
class ClipPage:
    """One page."""

    clip: str
    slug: str
    groups: Sequence[Group]


def _source(results: Results, line: Line, clip: str, sound: str) -> Path | None:
    """The video that the run kept of this row, if it did; never a file outside the results folder's videos."""
    root = results.folder.videos.resolve()
    path = video_path(results.folder.path, line.method, line.sha256, line.paste, clip, sound).resolve()
    return path if path.is_relative_to(root) and path.is_file() else None


def kept_videos(results: Results) -> bool:
    """Whether the run kept any video."""
    return any(results.folder.videos.rglob("*.mp4"))


def _take_over(source: Path, out: Path) -> None:
    """A second name for the file, or a copy where the file system has none to give."""
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, out)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, out)


def _video(results: Results, line: Line, clip: str, sound: str, sounds: Mapping[str, str], out: Path) -> str:
    source = _source(results, line, clip, sound)
    if source is None:
        return ""
    name = results.clips[clip] if sound == clip else f"{results.clips[clip]}--{sounds[sound]}"
    address = f"{VIDEOS}/{line.slug}/{name}.mp4"
    _take_over(source, out / address)
    return f"../{address}"


def _take(row: Mapping[Any, Any], line: Line, heads: Sequence[Heading], video: str) -> Take:
    failed = row["status"] != "ok"
    cells = [value_text(float(row[head.name]), head.digits) for head in heads]
    shown = [(head, cell) for head, cell in zip(heads, cells, strict=True) if head.name in _SHOWN]
    seconds = float(row["generate_seconds"])
    return Take(
        line,
        failed,
        row["reason"] or "no reason was stated",
        cells,
        video,
        () if failed else shown,
        "" if math.isnan(seconds) else f"{seconds:.2f}",
    )


def clip_pages(results: Results, out: Path, videos: bool) -> Iterator[ClipPage]:
    """The pages, one at a time; their videos are put into `out` before.

    Args:
        results: What the pages show.
        out: Folder of the site.
        videos: Whether the run kept any.
    """
    heads = {p: headings(results, p, results.clip_columns(p)) for p in results.protocols}
    sounds = slugs(results.rows["audio_clip"])
    for clip, rows in results.rows.groupby("clip", sort=True):
        groups = []
        for (protocol, sound), own in rows.groupby(["protocol", "audio_clip"], sort=True):
            takes = []
            for row in own.to_dict("records"):
                line = results.lines[tuple(row[name] for name in ENTRY)]
                video = _video(results, line, str(clip), sound, sounds, out) if videos else ""
                takes.append(_take(row, line, heads[protocol], video))
            takes.sort(key=lambda take: (take.line.floor, take.line.number))
            groups.append(Group(protocol, sound, heads[protocol], takes))
        yield ClipPage(str(clip), results.clips[str(clip)], groups)
