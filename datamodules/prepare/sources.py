# SPDX-License-Identifier: Apache-2.0
"""Which videos of a data set's folder become clips, and under which id.

    folder      every video below the folder, see `video_files`; id = <its folder's name>/<its name>
    lrs2        main/<speaker>/<clip>.mp4, with train.txt, val.txt, test.txt beside main
    synthetic   as lrs2
    mead        <speaker>/video/front/neutral/level_1/<number>.mp4; the sound of a video without a sound track is
                <speaker>/audio/neutral/level_1/<number>.m4a

An id is `<speaker>/<name>` and becomes a path below the prepared folder; both parts are made safe for file names.
"""

import hashlib
import logging
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lipsync_bench.datamodules.media.video_files import find_videos
from lipsync_bench.datamodules.prepare.options import DatasetName
from lipsync_bench.datamodules.splits import read_splits

_MEAD_VIDEO = "video/front/neutral/level_1"
_MEAD_AUDIO = "audio/neutral/level_1"
_NAME_BYTES = 200  # file systems allow 255, and suffixes come on top

logger = logging.getLogger(__name__)

__all__ = ["Source", "find_sources", "source_root"]


@dataclass(frozen=True)
class Source:
    """A video that becomes a clip.

    Args:
        id: `<speaker>/<name>`.
        path: The video file.
        audio: A sound file to take if the video has no sound track.
    """

    id: str
    path: Path
    audio: Path | None = None


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


def _listed_sources(root: Path, exclude: Iterable[Path]) -> list[Source]:
    main = root / "main"
    if not main.is_dir():
        raise FileNotFoundError(f"{root}: no folder main. Expected main/<speaker>/<clip>.mp4 (--source, --dataset)")
    lists = read_splits(root, partial=True)
    if not lists:
        logger.warning("%s: no train.txt, val.txt or test.txt; all clips below main are prepared, without splits", root)
        videos = [path for path in find_videos(main, exclude) if len(path.relative_to(main).parts) == 2]
        return [Source(f"{path.parent.name}/{path.stem}", path) for path in videos]
    ids = dict.fromkeys(name for names in lists.values() for name in names)
    return [Source(name, main / f"{name}.mp4") for name in ids]


def _mead_sources(root: Path, exclude: Iterable[Path]) -> list[Source]:
    sources = []
    folders = sorted(folder for folder in root.glob(f"*/{_MEAD_VIDEO}") if folder.is_dir())
    for path in (path for folder in folders for path in find_videos(folder, exclude) if path.parent == folder):
        speaker = path.relative_to(root).parts[0]
        audio = root / speaker / _MEAD_AUDIO / f"{path.stem}.m4a"
        sources.append(Source(f"{_safe(speaker)}/{_safe(path.stem)}", path, audio if audio.is_file() else None))
    return sources


def source_root(source: Path, dataset: DatasetName) -> Path:
    """The folder that source paths are relative to: `source`, or its parent if `source` is the folder main of lists."""
    root = source.resolve()
    if dataset in ("lrs2", "synthetic") and root.name == "main" and not (root / "main").is_dir():
        return root.parent
    return root


def find_sources(source: Path, dataset: DatasetName = "folder", exclude: Iterable[Path] = ()) -> list[Source]:
    """The videos of a data set, sorted by id; a video on a list is named whether it is there or not.

    Two videos may have one id, if their names differ only in what no file name may hold or in how accents are written.

    Args:
        source: Folder of the videos.
        dataset: How it is laid out.
        exclude: Folders below it that hold other videos.

    Raises:
        FileNotFoundError: No such folder, or no videos in it.
        ValueError: A split list leads out of the folder, or an unknown data set.
    """
    finders = {"folder": _folder_sources, "lrs2": _listed_sources, "synthetic": _listed_sources, "mead": _mead_sources}
    if dataset not in finders:
        raise ValueError(f"dataset {dataset!r}, expected one of {', '.join(finders)} (--dataset)")
    root = source_root(source, dataset)
    if not root.is_dir():
        raise FileNotFoundError(f"{source}: no such folder. Expected the folder of the {dataset} videos (--source)")
    sources = sorted(finders[dataset](root, tuple(exclude)), key=lambda item: (item.id, item.path))
    if not sources:
        raise FileNotFoundError(
            f"{dataset}: no videos in {source}. Expected the folders of its help text (--source, --dataset)"
        )
    return sources
