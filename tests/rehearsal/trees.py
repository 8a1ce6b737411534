# SPDX-License-Identifier: Apache-2.0
"""Folders as LRS2, MEAD and HDTF come, made from the synthetic corpus."""

import shutil
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

from lipsync_bench.datamodules.datasets.folder import shuffled
from lipsync_bench.datamodules.datasets.synthetic import make_corpus
from lipsync_bench.datamodules.media.audio import SAMPLE_RATE, load_audio, to_float
from lipsync_bench.datamodules.media.video import read_frames
from lipsync_bench.datamodules.media.video_writing import VideoWriter

MEAD_FPS = 30.0
MEAD_SPEAKERS = ("M003", "W011")
SECONDS = 1.2
SPLITS = {"train": (0, 2), "val": (2, 3), "test": (3, 4)}
"""Which clips of each speaker belong to a split of LRS2."""

HDTF_SPEAKERS = ("AnnLee", "BobDay", "CleoMay", "DanRay")

__all__ = ["make_hdtf", "make_lrs2", "make_mead"]


def make_lrs2(folder: Path, work: Path) -> int:
    """`main/<programme>/<clip>.mp4` and .txt beside the three lists, as LRS2 has them. Returns the number of clips.

    Args:
        folder: The tree.
        work: Folder for the corpus that it is made from.
    """
    last = max(end for _, end in SPLITS.values())
    make_corpus(work, speakers=2, clips_per_speaker=last, seconds=SECONDS, seed=11, progress=False)
    lists: dict[str, list[str]] = {split: [] for split in SPLITS}
    for number, speaker in enumerate(sorted(path.parent for path in work.glob("*/*/00001.mp4"))):
        programme = f"{5535415699068794046 + number}"
        (folder / "main" / programme).mkdir(parents=True)
        for place, video in enumerate(sorted(speaker.glob("*.mp4"))):
            target = folder / "main" / programme / f"{place + 1:05d}.mp4"
            shutil.copyfile(video, target)
            target.with_suffix(".txt").write_text("Text:  WORDS THAT NOBODY SAYS\nConf:  5\n")
            split = next(name for name, (first, end) in SPLITS.items() if first <= place < end)
            lists[split].append(f"{programme}/{place + 1:05d}")
    for split, names in lists.items():
        column = " NF" if split == "test" else ""  # LRS2's test list has a second one
        (folder / f"{split}.txt").write_text("".join(f"{name}{column}\n" for name in names))
    return sum(map(len, lists.values()))


def _write_m4a(path: Path, samples: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="ipod") as container:
        stream = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        container.mux([*stream.encode(frame), *stream.encode(None)])


def make_mead(folder: Path, work: Path, numbers: tuple[int, ...]) -> int:
    """`<speaker>/video/front/neutral/level_1/<number>.mp4` without audio, which is in `<speaker>/audio/...m4a`, as MEAD
    has them. Returns the number of clips.

    Args:
        folder: The tree.
        work: Folder for the corpus that it is made from.
        numbers: Of each speaker's clips; 6 to 40 are HyperLips' training and validation clips.
    """
    make_corpus(
        work, speakers=len(MEAD_SPEAKERS), clips_per_speaker=len(numbers), seconds=SECONDS, seed=12, progress=False
    )
    speakers = sorted(path.parent for path in work.glob("*/*/00001.mp4"))
    for name, speaker in zip(MEAD_SPEAKERS, speakers, strict=True):
        for number, video in zip(numbers, sorted(speaker.glob("*.mp4")), strict=True):
            target = folder / name / "video" / "front" / "neutral" / "level_1" / f"{number:03d}.mp4"
            frames = list(read_frames(video, MEAD_FPS))
            with VideoWriter(target, MEAD_FPS, frames[0].shape[:2]) as writer:
                for frame in frames:
                    writer.write(frame)
            audio = folder / name / "audio" / "neutral" / "level_1" / f"{number:03d}.m4a"
            _write_m4a(audio, to_float(load_audio(video)))
    return len(MEAD_SPEAKERS) * len(numbers)


def make_hdtf(folder: Path, work: Path, seconds: int) -> int:
    """One list of time stamps with a byte-order mark and blanks at line ends, and a video of each speaker. The one that
    HDTF's data module draws for testing has two clips of so many seconds, the others one of a second. Returns the
    number of clips.

    Args:
        folder: The tree.
        work: Folder for the corpora that it is made from.
        seconds: Of each clip for testing.
    """
    (folder / "HDTF_dataset").mkdir(parents=True)
    tested = shuffled(HDTF_SPEAKERS, 0)[1]  # after the first, which is for validation
    others = [name for name in HDTF_SPEAKERS if name != tested]
    alone = {"clips_per_speaker": 1, "val_clips": 0, "test_clips": 0, "progress": False}
    make_corpus(work / "long", seconds=2 * seconds + 0.2, seed=13, speakers=1, **alone)
    make_corpus(work / "short", seconds=1.2, seed=14, speakers=3, **alone)
    videos = [*(work / "long").rglob("*.mp4"), *sorted((work / "short").rglob("*.mp4"))]
    lines = []
    for name, video in zip([tested, *others], videos, strict=True):
        shutil.copyfile(video, folder / f"{name}0.mp4")
        ends = (seconds, 2 * seconds) if name == tested else (1,)
        stamps = [
            f"{start // 60:02d}:{start % 60:02d}-{end // 60:02d}:{end % 60:02d}" for start, end in pairwise((0, *ends))
        ]
        lines.append(f"{name}0.mp4 {' '.join(stamps)} \n")
    (folder / "HDTF_dataset" / "WDA_annotion_time.txt").write_text("\ufeff" + "".join(lines), encoding="utf-8")
    return 2 + len(others)
