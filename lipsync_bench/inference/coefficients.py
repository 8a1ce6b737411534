# SPDX-License-Identifier: Apache-2.0
"""`bench coefficients`: leaves the 3DMM coefficients of its faces beside every prepared clip, for D-Net's training."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lipsync_bench.datamodules.clip_datamodule import prepared_clips
from lipsync_bench.datamodules.clips.boxes import clip_geometry
from lipsync_bench.datamodules.clips.checksums import verify_clip
from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.clips.coefficients import (
    VALUES,
    Coefficients,
    CoefficientsHeader,
    coefficients_path,
    write_coefficients,
)
from lipsync_bench.datamodules.clips.track import Track, track_path
from lipsync_bench.datamodules.errors import ClipError, MediaError, system_error
from lipsync_bench.datamodules.faces.crop_rules.boxes import BoxRule
from lipsync_bench.datamodules.files.csv_files import write_csv
from lipsync_bench.datamodules.progress import progress_bar
from lipsync_bench.datamodules.recipes.recipe import Recipe
from lipsync_bench.datamodules.weights.options import WeightOptions
from lipsync_bench.models.pretrained.face_coefficients import (
    FROM_STORE,
    FaceCoefficients,
    find_face_coefficients,
    regressed,
)
from lipsync_bench.processes import device_of
from lipsync_bench.recipes import recipe_named

FAILURES = "coefficients_failures.csv"
METHOD = "videoretalking_dnet"
_CHUNK_FRAMES = 32
_log = logging.getLogger(__name__)

__all__ = ["FAILURES", "METHOD", "CoefficientsReport", "make_coefficients"]


@dataclass(frozen=True)
class CoefficientsReport:
    """What was done.

    Args:
        done: Clips whose coefficients were made now.
        skipped: Clips that had them already, from the same weights.
        failed: Clips that could not be read; reasons are in `coefficients_failures.csv`.
        seconds: Time taken.
        root: The prepared folder.
    """

    done: int
    skipped: int
    failed: int
    seconds: float
    root: Path

    def summary(self) -> str:
        """One line for people."""
        text = (
            f"coefficients of {self.done} clips made, {self.skipped} already there, {self.failed} failed; "
            f"{self.seconds:.0f} s: {self.root}"
        )
        return f"{text} (reasons in {self.root / FAILURES})" if self.failed else text


def _make(clip: Clip, recipe: Recipe, network: FaceCoefficients, header: CoefficientsHeader) -> None:
    path = track_path(clip.path, recipe.track_digest)
    rule = recipe.fed_crop
    assert isinstance(rule, BoxRule)
    with Track(path, read="file") as track:
        if not path.is_file() or not track.header.belongs_to(clip.header):
            raise ClipError(
                f"{clip.path}: no faces as D-Net sees them ({rule.text()}). Expected {path.name} beside it. Run: bench "
                f"prepare --for {METHOD}"
            )
        geometry = clip_geometry(clip)
        assert geometry.landmarks is not None
        boxes, (height, width) = rule.boxes(geometry), recipe.size_hw
        scale = np.array([width, height]) / (boxes[:, 2:] - boxes[:, :2])
        points = (geometry.landmarks - boxes[:, None, :2]) * scale[:, None]
        rows = np.empty((len(clip), VALUES), np.float32)
        for first in range(0, len(clip), _CHUNK_FRAMES):
            part = slice(first, min(first + _CHUNK_FRAMES, len(clip)))
            rows[part] = regressed(network, track.faces(first, part.stop - first), points[part])
    try:
        write_coefficients(coefficients_path(clip.path), header, rows)
    except ValueError as error:
        raise ClipError(f"{clip.path}: {error}") from error


def _is_current(clip: Clip, header: CoefficientsHeader) -> bool:
    path = coefficients_path(clip.path)
    if not path.is_file():
        return False
    try:
        with Coefficients(path, read="file") as old:
            return old.header == header
    except ClipError:
        return False  # made anew


def make_coefficients(
    root: Path,
    *,
    network: str = FROM_STORE,
    of: str = METHOD,
    overwrite: bool = False,
    device: str = "auto",
    weights: WeightOptions = WeightOptions(),
) -> CoefficientsReport:
    """Make the coefficients of every prepared clip; files that these weights made already are kept.

    A file is whole or absent at any time. Memory holds 32 faces, and 1 KB a frame of one clip.

    Args:
        root: Folder of prepared clips, with the faces of D-Net.
        network: "official" for the file in the store, "random" for smoke runs, or a file.
        of: The run whose faces are looked at, as `recipe_named`.
        overwrite: Make finished files anew.
        device: "auto", "cpu", "cuda:0" ...
        weights: Where the official file is looked for.

    Raises:
        FileNotFoundError: No weights; no clips in `root`.
        ValueError: The weights are those of something else; faces that are not cut by a rectangle.
        OSError: The disk is full or read-only; what is finished stays.
    """
    began = time.perf_counter()
    recipe = recipe_named(of)
    if not isinstance(recipe.fed_crop, BoxRule):
        raise ValueError(
            f"--for {of}: faces cut by {recipe.fed_crop.text()}. Expected upright rectangles. Correct --for"
        )
    made, digest = find_face_coefficients(network, weights.store)
    made.to(device_of(device))
    done, skipped, failures = 0, 0, []
    with progress_bar() as bar:
        for path in bar.track(prepared_clips(root), description="coefficients"):
            try:
                with Clip(path, read="file") as clip:
                    header = CoefficientsHeader.of(clip.header, recipe.track_digest, digest)
                    if not overwrite and _is_current(clip, header):
                        skipped += 1
                        continue
                    verify_clip(path)
                    _make(clip, recipe, made, header)
                    done += 1
            except (ClipError, MediaError, ValueError) as error:
                failures.append((path.relative_to(root).as_posix(), str(error)))
                _log.warning("%s", error)
            except OSError as error:
                raise system_error(error) or error from error
    write_csv(root / FAILURES, ("clip", "reason"), failures)
    return CoefficientsReport(done, skipped, len(failures), time.perf_counter() - began, root)
