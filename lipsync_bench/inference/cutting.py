# SPDX-License-Identifier: Apache-2.0
"""`bench cut`: one person's video into a part to train on and later parts to validate and test on, for fine-tuning.

HyperLips (Table V) fine-tunes on the first 4 min 40 s of a video and tests on the last 18 s. Parts are laid out like
LRS2, with split lists, so that everything else works on them as on any data set.
"""

import logging
import math
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.files.disk import write_atomic
from lipsync_bench.datamodules.media.audio import SAMPLE_RATE, load_audio
from lipsync_bench.datamodules.media.video import FPS, VideoWriter, probe, read_frames

MIN_SECONDS = 2.0
_LONGEST_S = 1e6
_CRF = 10  # near lossless; what is compared later is the part, not the whole
_log = logging.getLogger(__name__)

__all__ = ["Part", "cut_by_time"]


@dataclass(frozen=True)
class Part:
    """A stretch of the video.

    Args:
        split: train, val or test.
        path: The file.
        first: Its first frame, at 25 fps.
        frames: How many.
    """

    split: str
    path: Path
    first: int
    frames: int


def _count(video: Path) -> int:
    """Frames at 25 fps; decodes the video, because headers may be wrong."""
    return sum(1 for _ in read_frames(video, FPS))


def cut_by_time(video: Path, out: Path, *, val_seconds: float = 18.0, test_seconds: float = 18.0) -> list[Part]:
    """Write the parts and their lists below `out`: main/<name>/{train,val,test}.mp4 and {train,val,test}.txt.

    The last `test_seconds` are for testing, the `val_seconds` before them for validation, the rest for training. A part
    of 0 s has no file, and its list is empty. Parts have 25 fps and 16 kHz mono audio, as everything is trained on.
    Files are whole or absent at any time.

    Args:
        video: Shows one person, with audio.
        out: Folder; existing parts are replaced.
        val_seconds: Length of the validation part, 0 for none.
        test_seconds: Length of the test part, 0 for none.

    Raises:
        FileNotFoundError: No such video.
        MediaError: It cannot be read or has no audio.
        ValueError: A part would be shorter than 2 s.
    """
    if not video.is_file():
        raise FileNotFoundError(f"{video}: no such file. Expected the video to cut (--video)")
    info = probe(video)
    if not info.has_audio:
        raise MediaError(f"{video}: no audio track. Expected speech. Use a video with audio (--video)")
    for option, seconds in (("--val_seconds", val_seconds), ("--test_seconds", test_seconds)):
        if seconds != 0 and not MIN_SECONDS <= seconds <= _LONGEST_S:  # NaN neither
            raise ValueError(
                f"{option} {seconds}. Expected {MIN_SECONDS:g} to {_LONGEST_S:g}, or 0 for none. Correct {option}"
            )
    total = _count(video)
    lengths = {"val": round(val_seconds * FPS), "test": round(test_seconds * FPS)}
    lengths = {"train": total - sum(lengths.values()), **lengths}
    if lengths["train"] < math.ceil(MIN_SECONDS * FPS):
        parts_s = ", ".join(f"{count / FPS:.1f}" for count in lengths.values())
        raise ValueError(
            f"{video} has {total / FPS:.1f} s; train, val and test would get {parts_s} s. "
            f"Expected {MIN_SECONDS:g} s or more to train on. Set --val_seconds and --test_seconds"
        )
    name, parts, first = video.stem, [], 0
    audio, frames = load_audio(video), read_frames(video, FPS)
    per_frame = round(SAMPLE_RATE / FPS)
    for split, count in lengths.items():
        part = Part(split, out / "main" / name / f"{split}.mp4", first, count)
        if not count:
            part.path.unlink(missing_ok=True)  # of an earlier cut
            continue
        piece = audio[first * per_frame : (first + count) * per_frame]
        with VideoWriter(part.path, FPS, (info.height, info.width), audio=piece, crf=_CRF) as writer:
            for frame in islice(frames, count):
                writer.write(frame)
        parts.append(part)
        first += count
        _log.info("%s: %s, %.1f s from %.1f s on", part.path, split, count / FPS, part.first / FPS)
    made = {part.split for part in parts}
    for split in lengths:  # last, so that lists name whole files only
        write_atomic(out / f"{split}.txt", f"{name}/{split}\n" if split in made else "")
    return parts
