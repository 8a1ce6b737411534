# SPDX-License-Identifier: Apache-2.0
"""Draws docs/results/pretrained.jpg, and tells how far the mouths of saved videos are open where they must be closed.

    python -m benchmarks.pretrained_model --results RESULTS --videos VIDEOS

RESULTS is a folder of `bench evaluate --dataset synthetic --save-videos`, VIDEOS the corpus of its clips. Columns are
frames of the first clips, with the mouth closed by a consonant and with it wide open; rows are the methods, at the
pixels of the videos.
"""

import argparse
import sys
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lipsync_bench.datamodules.errors import FaceError
from lipsync_bench.datamodules.faces.crop_rules.boxes import FaceMeshBox
from lipsync_bench.datamodules.media.video import FPS, read_frames
from lipsync_bench.evaluation.videos import video_path
from lipsync_bench.inference.find_face import find_face
from lipsync_bench.inference.mouth_reference import mouth_opening
from lipsync_bench.results.folder import ResultsFolder

PICTURE = Path(__file__).parent.parent / "docs" / "results" / "pretrained.jpg"
CLOSED, OPEN = 0.02, 0.6  # of the ground truth's opening, 0 to 1
_CLIPS, _SIDE, _LINE, _GAP = 4, 160, 18, 4

__all__: list[str] = []


def _lips_closed(opening: np.ndarray) -> np.ndarray:
    """Frames in whose middle the lips are pressed together, by a consonant and not in a pause."""
    closed = opening <= CLOSED
    near = np.stack([np.roll(opening, shift) for shift in range(-4, 5)]).max(axis=0) > 0.3
    return closed & near


def _openings(frames: list[np.ndarray]) -> np.ndarray:
    try:
        found = find_face(frames, FaceMeshBox(), landmarks=True)
    except FaceError:
        return np.full(len(frames), np.nan)
    assert found.landmarks is not None
    return mouth_opening(found.landmarks)


def draw(results: Path, videos: Path) -> tuple[Image.Image, dict[str, list[float]]]:
    """The picture, and by method the mean opening (in widths of the mouth) of closed and of open frames."""
    rows = ResultsFolder(results).rows()
    rows = rows[rows["status"] == "ok"]
    methods, clips = list(dict.fromkeys(rows["method"])), sorted(set(rows["clip"]))
    sheet = Image.new("RGB", (_CLIPS * 2 * (_SIDE + _GAP), len(methods) * (_SIDE + _LINE)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    told: dict[str, list[float]] = {}
    for line, method in enumerate(methods):
        closed, wide = [], []
        for column, clip in enumerate(clips):
            row = rows[(rows["method"] == method) & (rows["clip"] == clip)].iloc[0]
            entry = tuple(str(row[name] or "") for name in ("method", "generator_sha256", "paste", "recipe"))
            path = videos / "main" / f"{clip}.mp4"
            if method != "ground_truth":
                path = video_path(results, entry, clip, clip)  # type: ignore[arg-type]
            opening = np.load(videos / "truth" / f"{clip}.npz")["opening"]
            frames = list(islice(read_frames(path, FPS), len(opening)))
            opening = opening[: len(frames)]
            pressed, found = _lips_closed(opening), _openings(frames)
            closed += found[pressed].tolist()
            wide += found[opening >= OPEN].tolist()
            if column >= _CLIPS:
                continue
            shown = int(np.flatnonzero(pressed)[0]) if pressed.any() else int(opening.argmin()), int(opening.argmax())
            for number, frame in enumerate(shown):
                x, y = (2 * column + number) * (_SIDE + _GAP), line * (_SIDE + _LINE)
                height, width = frames[frame].shape[:2]
                top, left = (height - _SIDE) // 2, (width - _SIDE) // 2
                sheet.paste(Image.fromarray(frames[frame][top : top + _SIDE, left : left + _SIDE]), (x, y + _LINE))
                pen.text((x, y), f"{method} {('closed', 'open')[number]}", fill="black", font=font)
        told[method] = [float(np.nanmean(values)) for values in (closed, wide)]
    return sheet, told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=PICTURE)
    arguments = parser.parse_args()
    picture, told = draw(arguments.results, arguments.videos)
    picture.save(arguments.out, quality=88)
    lines = [f"| {method} | {closed:.3f} | {wide:.3f} |\n" for method, (closed, wide) in told.items()]
    sys.stdout.write("| method | mouth closed by a consonant | mouth wide open |\n|---|---:|---:|\n" + "".join(lines))


if __name__ == "__main__":
    main()
