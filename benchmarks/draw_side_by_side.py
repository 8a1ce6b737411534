# SPDX-License-Identifier: Apache-2.0
r"""Draws frames of one clip under each other: the real video, the repeated frame, and the methods.

    python -m benchmarks.draw_side_by_side demo/results/hyperlips --out docs/images/side_by_side.jpg \
        --methods ground_truth repeated_frame hyperlips_hr --columns 8

The videos are those of results folders that were made with --save-videos, as `bench demo` makes them. Of several
folders each method is shown once.
"""

import argparse
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lipsync_bench.datamodules.media.audio import SAMPLE_RATE, load_audio
from lipsync_bench.datamodules.media.video import FPS, read_frames
from lipsync_bench.results.folder import ResultsFolder

_CELL, _GAP, _LABEL, _WAVE = 180, 4, 230, 56
_TITLES = {"ground_truth": "real video", "repeated_frame": "repeated frame"}

__all__ = ["side_by_side"]


def _videos(folders: Sequence[Path], clip: str, methods: Sequence[str]) -> dict[str, Path]:
    """The video of each candidate, or of those that are named; the real one and the repeated frame come first."""
    found: dict[str, Path] = {}
    for folder in folders:
        for method in dict.fromkeys(ResultsFolder(folder).rows()["method"]):
            paths = [p for p in folder.glob(f"videos/{method}*/{clip}.mp4") if p.parts[-3].split("-")[0] == method]
            if paths:
                found.setdefault(method, paths[0])
    order = methods or sorted(found, key=lambda name: name not in _TITLES)
    missing = [name for name in order or ["ground_truth"] if name not in found]
    if missing:
        raise SystemExit(
            f"no video of {', '.join(missing)} for the clip {clip}. Expected results that bench evaluate --save-videos "
            "made. Set --clip or --methods."
        )
    return {name: found[name] for name in order}


def side_by_side(
    folders: Sequence[Path], clip: str, methods: Sequence[str], columns: int, start: int, step: int
) -> Image.Image:
    """A row for each candidate, a column for each moment, and the audio's loudness below.

    Args:
        folders: Results folders with videos.
        clip: The clip's id.
        methods: Names of rows; all if there are none.
        columns: How many frames.
        start: Number of the first frame.
        step: From one frame to the next.
    """
    videos, font = _videos(folders, clip, methods), ImageFont.load_default(22)
    numbers = range(start, start + columns * step, step)
    sheet = Image.new(
        "RGB", (_LABEL + columns * (_CELL + _GAP), len(videos) * (_CELL + _GAP) + _WAVE + _GAP), (250, 250, 250)
    )
    pen = ImageDraw.Draw(sheet)
    for row, (name, path) in enumerate(videos.items()):
        y = row * (_CELL + _GAP)
        title = _TITLES.get(name, name).replace("_", " ")
        pen.text((8, y + _CELL // 2 - 14), title, fill=(30, 30, 30), font=font)
        for column, frame in enumerate(islice(read_frames(path, FPS), numbers[0], numbers[-1] + 1, step)):
            cell = Image.fromarray(frame).resize((_CELL, _CELL), Image.Resampling.LANCZOS)
            sheet.paste(cell, (_LABEL + column * (_CELL + _GAP), y))
    samples = load_audio(next(iter(videos.values())))
    first, last = (round((start + k * step) / FPS * SAMPLE_RATE) for k in (-0.5, columns - 0.5))
    shown = np.pad(samples, (max(0, -first), max(0, last - len(samples))))[max(0, first) :][: last - first]
    width, middle = columns * (_CELL + _GAP) - _GAP, sheet.height - _WAVE // 2
    loud = [np.abs(part).max() for part in np.array_split(shown, width)]
    pen.text((8, middle - 14), "audio", fill=(30, 30, 30), font=font)
    for x, value in enumerate(np.array(loud) / max(loud)):
        half = 1 + value * (_WAVE // 2 - 2)
        pen.line((_LABEL + x, middle - half, _LABEL + x, middle + half), fill=(0, 114, 178))
    return sheet


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="RESULTS")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clip", default="s05/00008")
    parser.add_argument("--methods", nargs="*", default=[])
    for name, default in (("columns", 6), ("start", 12), ("step", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    drawn = side_by_side(given.folders, given.clip, given.methods, given.columns, given.start, given.step)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    drawn.save(given.out, quality=88, optimize=True)
