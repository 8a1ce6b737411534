# SPDX-License-Identifier: Apache-2.0
"""How still the mouths of VideoReTalking's references are: the opening of the lips before and after D-Net.

    python -m benchmarks.stabilised_expression --clips demo/clips --system SYSTEM.yaml --out faces.jpg

Prints, for each test clip, the standard deviation and the mean of the opening over the clip, in hundredths of the
height of the face's 68 points, and the mean absolute difference of neighbouring frames; and writes a picture: frames of
one clip, and below them their references.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from lipsync_bench.datamodules import Synthetic
from lipsync_bench.datamodules.clips.boxes import clip_geometry
from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.faces.crop_rules.boxes import BoxCut
from lipsync_bench.datamodules.faces.detectors import landmarks68
from lipsync_bench.datamodules.media.video import FPS, read_frames
from lipsync_bench.datamodules.weights.store import Store
from lipsync_bench.inference.sessions import Sessions
from lipsync_bench.models.core.session import Video
from lipsync_bench.models.videoretalking.session import StabilisingSession
from lipsync_bench.weights.methods import load_any, method_file

SHOWN = 8  # frames of the picture
INNER_UPPER, INNER_LOWER = 62, 66  # of the 68 points: the middle of the lips

__all__: list[str] = []


def _silence(first: int, count: int) -> np.ndarray:
    return np.zeros((count, 1, 80, 16), np.float32)


def _opening(face: np.ndarray, points: np.ndarray) -> float:
    """Of a face whose points in the frame, in its own pixels, say about where it is."""
    found = landmarks68(face, np.concatenate([points.min(axis=0), points.max(axis=0)]))
    height = points[:, 1].max() - points[:, 1].min()
    return float(100 * np.linalg.norm(found[INNER_UPPER] - found[INNER_LOWER]) / height)


def _told(name: str, row: Sequence[float]) -> str:
    return "{}: std {:.2f} -> {:.2f}, mean {:.2f} -> {:.2f}, step {:.2f} -> {:.2f}\n".format(name, *row)


def main() -> int:
    """Measure the test clips."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for option in ("clips", "out"):
        parser.add_argument(f"--{option}", type=Path, required=True)
    parser.add_argument("--system", required=True)
    given = parser.parse_args()
    store = Store()
    module = load_any("system", method_file("system", given.system, store), "cpu", store)
    recipe, sessions = module.recipe, Sessions(module, module.recipe, store)
    data, rows, picture = Synthetic(root=given.clips), [], None
    for clip_file in data.clips("test"):
        with Clip(clip_file) as clip:
            source, geometry = data.source_root / clip.header.source, clip_geometry(clip)
        landmarks, cuts = geometry.landmarks, recipe.crop.cuts(geometry)
        assert landmarks is not None
        frames = list(islice(read_frames(source, FPS), len(geometry)))
        session = sessions.of(Video(geometry, _silence, partial(iter, frames)))
        assert isinstance(session, StabilisingSession)
        places, faces, openings = np.flatnonzero(geometry.visible).tolist(), [], []
        references = session.shown(places, [frames[place] for place in places])
        session.close()
        for place, reference in zip(places, references, strict=True):
            cut = cuts[place]
            assert isinstance(cut, BoxCut)
            points = cut.points(landmarks[place], recipe.size_hw)
            faces.append(cut.face(frames[place], recipe.size_hw, recipe.resize))
            openings.append([_opening(face, points) for face in (faces[-1], reference)])
        both = np.array(openings)
        rows.append(np.stack([both.std(axis=0), both.mean(axis=0), np.abs(np.diff(both, axis=0)).mean(axis=0)]).ravel())
        sys.stdout.write(_told(str(clip_file.relative_to(given.clips)), rows[-1]))
        if picture is None:
            at = np.linspace(0, len(places) - 1, SHOWN).astype(int)
            picture = np.vstack([np.hstack([images[k] for k in at]) for images in (faces, references)])
            Image.fromarray(picture).save(given.out, quality=90)
    sys.stdout.write(_told("mean of the clips", np.mean(rows, axis=0)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
