# SPDX-License-Identifier: Apache-2.0
"""Lists that say which parts of which videos are clips, in the form of HDTF's.

Words are separated by blanks. Each part of a data set (HDTF has RD, WDA and WRA) has lists of its own::

    RD_annotion_time.txt   Radio11.mp4 00:30-01:00 01:30-02:30    a video and the time stamps of its clips
    RD_crop_wh.txt         Radio11_1.mp4 557 478 0 478            x, width, y and height of a clip's square
    RD_resolution.txt      Radio11.mp4 720                        height of the frames that the square is told for
"""

import re
from dataclasses import dataclass
from pathlib import Path

from lipsync_bench.datamodules.files.texts import read_text

FOLDER = "HDTF_dataset"
"""Where the published lists lie in their repository."""
_TIMES, _SQUARES, _HEIGHTS = "_annotion_time.txt", "_crop_wh.txt", "_resolution.txt"
_STAMP = re.compile(r"(\d{1,3}):([0-5]\d)-(\d{1,3}):([0-5]\d)")
_NAME = re.compile(r"[\w-]+")
_MEND = f"The lists are in the folder {FOLDER} of https://github.com/MRzzm/HDTF"

__all__ = ["FOLDER", "Stamp", "read_stamps", "speaker_of"]


@dataclass(frozen=True)
class Stamp:
    """A part of a video that is a clip.

    Args:
        video: Name of the video, without suffix.
        index: Number of the clip in its video, from 0.
        start_s: Where it begins, in seconds.
        end_s: Where it ends.
        square: x, y, width and height in pixels of the square around the face; None without one.
        height: Of the frames that `square` is told for; None if the lists do not say.
    """

    video: str
    index: int
    start_s: int
    end_s: int
    square: tuple[int, int, int, int] | None = None
    height: int | None = None

    @property
    def name(self) -> str:
        """As HDTF names its clip: the video's name and the number."""
        return f"{self.video}_{self.index}"


def speaker_of(video: str) -> str:
    """Whose video it is: its name without the digits at its end, because several videos show one person.

    All videos of the part RD are called Radio, so that they count as one speaker.
    """
    return video.rstrip("0123456789") or video


def _lines(path: Path) -> list[tuple[str, list[str], str]]:
    """Name without suffix, further words, and the place for messages, of each line that is not blank."""
    found = []
    for number, line in enumerate(read_text(path, "a list of HDTF", _MEND).splitlines(), 1):
        name, *words = line.split() or [""]
        name = name.removesuffix(".mp4")
        if name and not _NAME.fullmatch(name):
            raise ValueError(f"{path}:{number}: found {name!r}. Expected the name of a video. {_MEND}")
        if name:
            found.append((name, words, f"{path}:{number}"))
    return found


def _numbers(path: Path, count: int) -> dict[str, list[int]]:
    found = {}
    for name, words, where in _lines(path) if path.is_file() else ():
        if len(words) != count or not all(word.isdecimal() for word in words):
            raise ValueError(f"{where}: found {' '.join(words)!r}. Expected {count} whole numbers. {_MEND}")
        found[name] = [int(word) for word in words]
    return found


def _seconds(word: str, where: str) -> tuple[int, int]:
    stamp = _STAMP.fullmatch(word)
    start, end = (60 * int(stamp[k]) + int(stamp[k + 1]) for k in (1, 3)) if stamp else (0, 0)
    if start >= end:
        raise ValueError(f"{where}: found {word!r}. Expected a time stamp such as 00:30-01:00. {_MEND}")
    return start, end


def read_stamps(folder: Path) -> list[Stamp]:
    """All clips of the lists in a folder, or in its folder HDTF_dataset, in the lists' order.

    Raises:
        FileNotFoundError: There are no lists.
        ValueError: A line is not as described, or a video is listed twice.
    """
    lists = [path for place in (folder, folder / FOLDER) for path in sorted(place.glob(f"*{_TIMES}"))]
    if not lists:
        raise FileNotFoundError(f"{folder}: no list *{_TIMES}. Expected RD{_TIMES} and the like (--source). {_MEND}")
    stamps: list[Stamp] = []
    first: dict[str, str] = {}
    for path in lists:
        part = path.name.removesuffix(_TIMES)
        squares = _numbers(path.with_name(part + _SQUARES), 4)
        heights = _numbers(path.with_name(part + _HEIGHTS), 1)
        for video, words, where in _lines(path):
            if not words or first.setdefault(video, where) != where:
                found = f"also on {first[video]}" if words else "without a time stamp"
                raise ValueError(f"{where}: {video} is {found}. Expected each video once, with its clips. {_MEND}")
            for index, word in enumerate(words):
                x, width, y, height = squares.get(f"{video}_{index}", (0, 0, 0, 0))
                square = (x, y, width, height) if width and height else None
                stamps.append(Stamp(video, index, *_seconds(word, where), square, heights.get(video, [None])[0]))
    return stamps
