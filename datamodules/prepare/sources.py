# SPDX-License-Identifier: Apache-2.0
"""Which videos of a data set's folder become clips, and under which id.

The data set's class says where its videos lie, see `datasets.dataset`. An id is `<speaker>/<name>` and becomes a
path below the prepared folder; both parts are made safe for file names, but where lists give the ids.
"""

import hashlib
import logging
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from lipsync_bench.datamodules.datasets.dataset import Dataset, find_dataset
from lipsync_bench.datamodules.datasets.splits import read_splits
from lipsync_bench.datamodules.datasets.time_stamps import read_stamps, speaker_of
from lipsync_bench.datamodules.files.texts import few
from lipsync_bench.datamodules.media.video_files import find_videos
from lipsync_bench.datamodules.prepare.cutting import Cutting

_NAME_BYTES = 200  # file systems allow 255, and suffixes come on top

logger = logging.getLogger(__name__)

__all__ = ["Source", "find_sources", "source_root"]


@dataclass(frozen=True)
class Source:
    """A video that becomes a clip.

    Args:
        id: `<speaker>/<name>`.
        path: The video file.
        audio: An audio file to take if the video has no audio track.
        cutting: How this file is cut out of a longer video, if it is not there.
    """

    id: str
    path: Path
    audio: Path | None = None
    cutting: Cutting | None = None


def _safe(name: str) -> str:
    """A name that any file system takes: letters and digits of any script, `_-.`; no leading dot, not too long."""
    text = re.sub(r"[^\w.-]", "_", unicodedata.normalize("NFC", name)).lstrip(".") or "_"
    encoded = text.encode()
    if len(encoded) <= _NAME_BYTES:
        return text
    digest = hashlib.sha256(encoded).hexdigest()[:8]
    return f"{encoded[:_NAME_BYTES].decode(errors='ignore')}-{digest}"


def _folder_sources(root: Path, exclude: Iterable[Path]) -> list[Source]:
    """Ids that would be given twice are made longer: all folder names instead of the last, then the suffix too."""
    candidates: dict[Path, list[str]] = {}
    for path in find_videos(root, exclude):
        parents = [_safe(part) for part in path.relative_to(root).parent.parts]
        name, suffix = _safe(path.stem), path.suffix[1:].lower()
        short, long = (parents[-1], _safe("-".join(parents))) if parents else ("clips", "clips")
        candidates[path] = [f"{short}/{name}", f"{long}/{name}", f"{long}/{name}-{suffix}"]
    chosen = {path: names[0] for path, names in candidates.items()}
    for level in (1, 2):
        users = defaultdict(list)
        for path, name in chosen.items():
            users[name].append(path)
        for paths in users.values():
            if len(paths) > 1:
                chosen.update({path: candidates[path][level] for path in paths})
    return [Source(name, path) for path, name in chosen.items()]


def _listed_sources(root: Path, dataset: Dataset, ids: Iterable[str]) -> list[Source]:
    parts = [name.split("/") for name in dict.fromkeys(ids)]
    return [Source(f"{x}/{y}", root / f"{dataset.videos.format(speaker=x, clip=y)}.mp4") for x, y in parts]


def _laid_out_sources(root: Path, dataset: Dataset, exclude: Iterable[Path]) -> list[Source]:
    place = dataset.videos.split("/").index("{speaker}")
    sources = []
    for path in find_videos(root, exclude, dataset.videos):
        speaker, clip = path.relative_to(root).parts[place], path.stem
        audio = root / dataset.audio.format(speaker=speaker, clip=clip)
        name = f"{speaker}/{clip}" if dataset.lists else f"{_safe(speaker)}/{_safe(clip)}"
        sources.append(Source(name, path, audio if audio.is_file() else None))
    return sources


def _stamped_sources(root: Path, squares: bool, exclude: Iterable[Path], cut_to: Path) -> list[Source]:
    """Clips that lists of time stamps name: cut already, or to be cut out of the videos that are there."""
    stamps = read_stamps(root)
    there = {path.stem: path for path in find_videos(root, exclude)}
    if not any(stamp.video in there for stamp in stamps) and any(stamp.name in there for stamp in stamps):
        expected = {stamp.name: root / f"{stamp.name}.mp4" for stamp in stamps} | there
        return [Source(f"{speaker_of(stamp.video)}/{stamp.name}", expected[stamp.name]) for stamp in stamps]
    without = [stamp.name for stamp in stamps if stamp.square is None]
    if squares and without:
        logger.warning(
            "%s: the lists have no square for %d clips, which are left out: %s", root, len(without), few(without)
        )
        stamps = [stamp for stamp in stamps if stamp.square is not None]
    sources = []
    for stamp in stamps:
        video = there.get(stamp.video, root / f"{stamp.video}.mp4")
        cutting = Cutting(video, stamp if squares else replace(stamp, square=None))
        name = f"{speaker_of(stamp.video)}/{stamp.name}"
        sources.append(Source(name, cut_to / f"{name}.{cutting.text}.mp4", cutting=cutting))
    return sources


def _sources(root: Path, dataset: Dataset, exclude: Iterable[Path], cut_to: Path) -> list[Source]:
    if dataset.stamps:
        return _stamped_sources(root, dataset.stamps == "squares", exclude, cut_to)
    if not dataset.videos:
        return _folder_sources(root, exclude)
    expected = dataset.videos.replace("{", "<").replace("}", ">")
    if not (root / dataset.first_folder).is_dir():
        raise FileNotFoundError(
            f"{root}: no folder {dataset.first_folder}. Expected {expected}.mp4 (--source, --dataset)"
        )
    lists = read_splits(root, partial=True) if dataset.lists else {}
    if lists:
        return _listed_sources(root, dataset, chain(*lists.values()))
    if dataset.lists:
        logger.warning("%s: no train.txt, val.txt or test.txt; all clips there are prepared, without splits", root)
    return _laid_out_sources(root, dataset, exclude)


def source_root(source: Path, dataset: str) -> Path:
    """The folder that source paths are relative to: `source`, or its parent if `source` is what all videos are in."""
    root, first = source.resolve(), find_dataset(dataset).first_folder
    return root.parent if first and root.name == first and not (root / first).is_dir() else root


def find_sources(
    source: Path, dataset: str = "folder", exclude: Iterable[Path] = (), cut_to: Path = Path("videos")
) -> list[Source]:
    """The videos of a data set, sorted by id; a video on a list is named whether it is there or not.

    Two videos may have one id, if their names differ only in what no file name may hold or in how accents are written.

    Args:
        source: Folder of the videos.
        dataset: Its name, see `datasets.dataset`.
        exclude: Folders below it that hold other videos.
        cut_to: Folder of the clips that are cut out of longer videos.

    Raises:
        FileNotFoundError: No such folder, or no videos in it.
        ValueError: A split list leads out of the folder, or an unknown data set.
    """
    root = source_root(source, dataset)
    if not root.is_dir():
        raise FileNotFoundError(f"{source}: no such folder. Expected the folder of the {dataset} videos (--source)")
    sources = _sources(root, find_dataset(dataset), tuple(exclude), cut_to)
    if not sources:
        raise FileNotFoundError(
            f"{dataset}: no videos in {source}. Expected the folders of its help text (--source, --dataset)"
        )
    return sorted(sources, key=lambda item: (item.id, item.path))
