# SPDX-License-Identifier: Apache-2.0
"""`bench mouth-reference`: what the mouth of the reference frame does to a dubbed video.

A method copies from the frame that shows the identity, and HyperLips' authors found that its mouth matters: with a
moving one the result is disturbed, an open or closed still is not (Chen et al., "HyperLips", 2023, section VI-C and
Fig. 17). The video is dubbed twice with the same audio: the reference of all frames is the frame with the mouth most
open, then that with the mouth most closed.
"""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np

from lipsync_bench.datamodules.errors import FaceError
from lipsync_bench.datamodules.faces.crop_rules.boxes import FaceMeshBox
from lipsync_bench.datamodules.faces.options import FollowOptions
from lipsync_bench.datamodules.files.csv_files import write_csv
from lipsync_bench.datamodules.media.audio import load_audio, to_int16
from lipsync_bench.datamodules.media.video import FPS, probe, read_frames
from lipsync_bench.datamodules.recipes.options import RecipeOptions
from lipsync_bench.datamodules.weights.options import WeightOptions
from lipsync_bench.inference.dub import dub, frames_for
from lipsync_bench.inference.find_face import find_face
from lipsync_bench.inference.options import DubOptions
from lipsync_bench.inference.preview import write_preview

_UPPER, _LOWER, _LEFT, _RIGHT = 62, 66, 48, 54  # the inner lips' middles and the mouth's corners, of 68 points

_log = logging.getLogger(__name__)

__all__ = ["MouthReport", "mouth_opening", "mouth_reference"]


@dataclass(frozen=True)
class MouthReport:
    """What was found.

    Args:
        out: The folder.
        open_frame: Frame with the mouth most open, of those that are dubbed.
        closed_frame: Frame with the mouth most closed.
        openings: Mean opening of the mouth by video, "source", "open", "closed"; NaN where no face is found in one.
        correlation: Of the two dubbed videos' openings, frame by frame; 1: the reference's mouth makes no difference to
            the movement.
    """

    out: Path
    open_frame: int
    closed_frame: int
    openings: dict[str, float]
    correlation: float

    def summary(self) -> str:
        """One line for people."""
        means = ", ".join(f"{name} {value:.3f}" for name, value in self.openings.items())
        return (
            f"{self.out}: reference frame {self.open_frame} (open) and {self.closed_frame} (closed). Mean opening, in "
            f"widths of the mouth: {means}. Correlation of the two dubbed videos {self.correlation:.2f}"
        )


def mouth_opening(landmarks: np.ndarray) -> np.ndarray:
    """How far mouths are open, (T,): the inner lips' distance divided by the mouth's width.

    Args:
        landmarks: (T, 68, 2).
    """
    height, width = (
        np.linalg.norm(landmarks[:, a] - landmarks[:, b], axis=1) for a, b in ((_UPPER, _LOWER), (_LEFT, _RIGHT))
    )
    return height / np.maximum(width, 1e-6)


def _openings(video: Path, frames: int, follow: FollowOptions) -> np.ndarray:
    """Of the first frames, (T,); NaN where no face is visible."""
    geometry = find_face(islice(read_frames(video, FPS), frames), FaceMeshBox(), follow, landmarks=True)
    assert geometry.landmarks is not None
    return np.where(geometry.visible, mouth_opening(geometry.landmarks), np.nan)


def mouth_reference(
    checkpoint: Path,
    video: Path,
    audio: Path,
    out: Path,
    options: DubOptions = DubOptions(),
    recipe: RecipeOptions = RecipeOptions(),
    follow: FollowOptions = FollowOptions(),
    weights: WeightOptions = WeightOptions(),
    *,
    progress: bool = True,
) -> MouthReport:
    """Dub a video with its most open and its most closed mouth as reference.

    Writes open.mp4, closed.mp4, side_by_side.mp4 and openings.csv (the opening of each frame's mouth in the three
    videos at 25 fps; empty where no face is found) into a folder.

    Args and errors are those of `dub`; `out` is the folder.

    Raises:
        ValueError: The reference is given, or the video is not at 25 fps.
    """
    if recipe.references is not None or recipe.reference_frame is not None:
        raise ValueError(
            "the reference is given, but this command tries two. Expected none. Leave out --recipe.references and "
            "--recipe.reference_frame"
        )
    fps = probe(video).fps
    if abs(fps - FPS) > 0.01:
        raise ValueError(
            f"{video}: {fps:g} fps. Expected {FPS:g}, by which frames are numbered. Convert: ffmpeg -i INPUT -r "
            f"{FPS:g} OUTPUT.mp4"
        )
    samples = load_audio(audio)
    wanted = frames_for(len(samples), FPS)
    source = _openings(video, wanted, follow)
    frames = {"open": int(np.nanargmax(source)), "closed": int(np.nanargmin(source))}
    found = {"source": source}
    for name, frame in frames.items():
        chosen = replace(recipe, reference_frame=frame)
        dub(checkpoint, video, audio, out / f"{name}.mp4", options, chosen, follow, weights, progress=progress)
        try:
            found[name] = _openings(out / f"{name}.mp4", wanted, follow)
        except FaceError as error:  # what an untrained method makes is no face
            _log.warning("%s: %s", out / f"{name}.mp4", error)
            found[name] = np.full(wanted, np.nan)
    rows = zip_longest(
        *(["" if math.isnan(x) else f"{x:.4f}" for x in values] for values in found.values()), fillvalue=""
    )
    write_csv(out / "openings.csv", ("frame", *found), ((str(k), *row) for k, row in enumerate(rows)))
    columns: dict[str, Iterator[np.ndarray]] = {
        title: read_frames(path, FPS)
        for title, path in (
            ("source", video),
            ("reference open", out / "open.mp4"),
            ("reference closed", out / "closed.mp4"),
        )
    }
    write_preview(out / "side_by_side.mp4", columns, to_int16(samples))
    seen = {name: values[np.isfinite(values)] for name, values in found.items()}
    means = {name: float(values.mean()) if len(values) else math.nan for name, values in seen.items()}
    both = np.isfinite(found["open"]) & np.isfinite(found["closed"])  # equally long: the same audio
    pairs = found["open"][both], found["closed"][both]
    correlation = float(np.corrcoef(*pairs)[0, 1]) if both.sum() > 1 else math.nan
    return MouthReport(out, frames["open"], frames["closed"], means, correlation)
