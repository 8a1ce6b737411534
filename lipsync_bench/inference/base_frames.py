# SPDX-License-Identifier: Apache-2.0
"""`bench base-frames`: between the two stages of HyperLips. Runs a trained base over every prepared clip and leaves its
faces, their sketches and the outline of the true lips beside the clip, where the second stage's windows find them.
"""

import functools
import hashlib
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lipsync_bench.datamodules.clip_datamodule import prepared_clips
from lipsync_bench.datamodules.clips.boxes import clip_geometry
from lipsync_bench.datamodules.clips.checksums import verify_clip
from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.clips.track import Track, track_path
from lipsync_bench.datamodules.errors import ClipError, MediaError, system_error
from lipsync_bench.datamodules.faces.crop_rules.boxes import BoxRule
from lipsync_bench.datamodules.faces.crop_rules.rule import CropRule
from lipsync_bench.datamodules.files.csv_files import write_csv
from lipsync_bench.datamodules.files.disk import remove_leftovers, sha256
from lipsync_bench.datamodules.files.parts import Parts
from lipsync_bench.datamodules.files.texts import few
from lipsync_bench.datamodules.media.audio import frame_mels
from lipsync_bench.datamodules.prepare.pool import WorkerDied, run_jobs
from lipsync_bench.datamodules.progress import progress_bar
from lipsync_bench.datamodules.recipes.options import RecipeOptions
from lipsync_bench.datamodules.recipes.recipe import Recipe
from lipsync_bench.datamodules.slices import Slice
from lipsync_bench.datamodules.splitting import Splitting
from lipsync_bench.datamodules.weights.options import WeightOptions
from lipsync_bench.models.core.checkpoints import is_checkpoint, load_module
from lipsync_bench.models.core.session import FaceMaker, face_bytes
from lipsync_bench.models.hyperlips.base.module import HyperLipsBase
from lipsync_bench.models.hyperlips.hr.base_frames import (
    BaseFrames,
    BaseFramesHeader,
    MeshOrder,
    base_frames_path,
    write_base_frames,
)
from lipsync_bench.models.hyperlips.hr.face_mesh import find_meshes
from lipsync_bench.models.hyperlips.hr.sketch import BOTTLENECK_PX, draw_sketch, lip_outline
from lipsync_bench.processes import device_of
from lipsync_bench.weights import KINDS, import_official
from lipsync_bench.weights.methods import method_file

CHUNK_FRAMES = 64
_METHOD = "hyperlips_base"
FAILURES = "base_frames_failures.csv"
_COLUMNS = ("clip", "reason")
_log = logging.getLogger(__name__)

__all__ = ["FAILURES", "BaseFramesReport", "make_base_frames"]


@dataclass(frozen=True)
class BaseFramesReport:
    """What was done.

    Args:
        done: Clips whose base frames were made now.
        skipped: Clips that had them already, from the same checkpoint.
        failed: Clips that could not be read; reasons are in `base_frames_failures.csv`.
        frames: Frames made now.
        without_mesh: How many of them show no face to Face Mesh; they have no sketch.
        seconds: Time taken.
        root: The prepared folder.
        listed: Name of the list of failures.
    """

    done: int
    skipped: int
    failed: int
    frames: int
    without_mesh: int
    seconds: float
    root: Path
    listed: str = FAILURES

    def summary(self) -> str:
        """One line for people."""
        text = (
            f"base frames of {self.done} clips made, {self.skipped} already there, {self.failed} failed; Face Mesh saw "
            f"no face in {self.without_mesh} of {self.frames} frames; {self.seconds:.0f} s: {self.root}"
        )
        return f"{text} (reasons in {self.root / self.listed})" if self.failed else text


def _is_current(clip: Clip, header: BaseFramesHeader) -> bool:
    path = base_frames_path(clip.path)
    if not path.is_file():
        return False
    try:
        with BaseFrames(path) as old:
            return old.header == header
    except ClipError:
        return False  # made anew


def _track(clip: Clip, recipe: Recipe) -> Track:
    """The faces that the base sees.

    Raises:
        ClipError: They were not prepared, or for another clip of this name.
    """
    path = track_path(clip.path, recipe.track_digest)
    track = Track(path, read="file")
    if not path.is_file() or not track.header.belongs_to(clip.header):
        raise ClipError(
            f"{clip.path}: no faces as the base sees them ({recipe.fed_crop.text()}). Expected {path.name} beside it. "
            "Run: bench prepare --for hyperlips_base"
        )
    return track


def _chunks(module: HyperLipsBase, recipe: Recipe, clip: Clip) -> Iterator[np.ndarray]:
    """The base network's faces, uint8 RGB (N, 128, 128, 3), as at inference, of the track's faces and own audio."""
    mels = frame_mels(clip.mel(recipe.mel_padding), len(clip))
    make = FaceMaker(module, recipe)
    with _track(clip, recipe) as track:
        for start in range(0, len(clip), CHUNK_FRAMES):
            faces = track.faces(start, min(CHUNK_FRAMES, len(clip) - start))
            yield np.stack([face_bytes(face) for face in make(list(faces), mels[start : start + len(faces)])])


def _lip_outlines(clip: Clip, rule: CropRule) -> np.ndarray:
    """Rings around the true lips, (T, 20, 2), 0..1 inside the rectangles that a rule cuts faces by."""
    geometry = clip_geometry(clip)
    assert isinstance(rule, BoxRule)
    own, cut = clip.boxes()[:, None], rule.boxes(geometry)[:, None]
    rings = np.stack([lip_outline(points) for points in clip.mesh()])
    in_frame = own[..., :2] + rings * (own[..., 2:] - own[..., :2])
    return (in_frame - cut[..., :2]) / (cut[..., 2:] - cut[..., :2])


def _make(module: HyperLipsBase, recipe: Recipe, clip: Clip, header: BaseFramesHeader) -> int:
    """Writes the file of one clip; returns in how many frames Face Mesh saw no face."""
    frames: list[np.ndarray] = []
    sketches = np.zeros((len(clip), BOTTLENECK_PX, BOTTLENECK_PX), np.uint8)
    found = np.zeros(len(clip), bool)
    for faces in _chunks(module, recipe, clip):
        first = len(frames)
        meshes, seen = find_meshes(faces if header.mesh_order == "rgb" else faces[..., ::-1])
        found[first : first + len(faces)] = seen
        for index in np.flatnonzero(seen):
            sketches[first + index] = draw_sketch(meshes[index], (BOTTLENECK_PX, BOTTLENECK_PX))
        frames += list(faces)
    outlines = _lip_outlines(clip, recipe.fed_crop)
    write_base_frames(
        base_frames_path(clip.path), header, frames=frames, sketches=sketches, found=found, lip_outlines=outlines
    )
    return int((~found).sum())


@dataclass(frozen=True)
class _Job:
    clip: Path
    root: Path
    checkpoint: Path
    checkpoint_sha256: str
    mesh_order: MeshOrder
    recipe: Recipe
    overwrite: bool
    device: str


@dataclass(frozen=True)
class _Outcome:
    frames: int = 0
    without_mesh: int = 0
    skipped: bool = False
    failure: str = ""
    system: OSError | None = None


@functools.lru_cache(maxsize=1)
def _base(checkpoint: Path, checkpoint_sha256: str, device: str) -> HyperLipsBase:
    if is_checkpoint(checkpoint):
        return load_module(checkpoint, [HyperLipsBase]).to(device_of(device))
    module: HyperLipsBase = KINDS[_METHOD].module(import_official(_METHOD, checkpoint), None)  # type: ignore[misc]
    return module.eval().to(device_of(device))


def _run(job: _Job) -> _Outcome:
    try:
        with Clip(job.clip, read="file") as clip:
            crop = job.recipe.fed_crop.text()
            header = BaseFramesHeader.of(clip.header, job.checkpoint_sha256, mesh_order=job.mesh_order, crop=crop)
            if not job.overwrite and _is_current(clip, header):
                return _Outcome(skipped=True)
            verify_clip(job.clip)
            module = _base(job.checkpoint, job.checkpoint_sha256, job.device)
            return _Outcome(len(clip), _make(module, job.recipe, clip, header))
    except (ClipError, MediaError) as error:
        return _Outcome(failure=str(error))
    except OSError as error:
        system = system_error(error)
        if system is None:
            raise
        return _Outcome(system=system)


def make_base_frames(
    checkpoint: Path,
    root: Path,
    *,
    mesh_order: MeshOrder = "rgb",
    recipe: RecipeOptions = RecipeOptions(),
    overwrite: bool = False,
    device: str = "auto",
    splitting: Splitting = Splitting(),
    workers: int | None = None,
    weights: WeightOptions = WeightOptions(),
) -> BaseFramesReport:
    """Make the base frames of every prepared clip; files that this checkpoint made already are kept.

    A file is whole or absent at any time. A slice takes its part of the clips; the one that ends last joins the
    lists of failures. Memory holds the faces of one clip, 50 KB a frame.

    Args:
        checkpoint: Of HyperLipsBase, or the folder of its run; an official file, or the word `official`.
        root: Folder of prepared clips.
        mesh_order: Channel order of the images that Face Mesh sees: "rgb", or "bgr" as in the released preparation.
        recipe: Parts of the base's recipe that are replaced.
        overwrite: Make finished files anew.
        device: "auto", "cpu", "cuda:0" ...
        splitting: Which part of the clips, and where.
        workers: On Ray: clips at once.
        weights: Where the official file is looked for.

    Raises:
        FileNotFoundError: No such checkpoint; no clips in `root`.
        ValueError: The checkpoint holds something else.
        OSError: The disk is full or read-only; what is finished stays.
    """
    began = time.perf_counter()
    part = splitting.part()
    checkpoint = method_file(_METHOD, checkpoint, weights.store)
    digest = sha256(checkpoint)
    # A wrong one is one error, not one a clip.
    base = _base(checkpoint, digest, "cpu" if splitting.on_ray else device)
    fed = recipe.applied(base.recipe)
    everything = prepared_clips(root)
    clips = part.of(everything)
    if part.count == 1:  # other slices may be writing
        remove_leftovers(root)
    else:
        _log.info("%s: slice %s (%s), %d of %d clips", root, part, part.said_by, len(clips), len(everything))
    listed = "\n".join(clip.relative_to(root).as_posix() for clip in everything).encode(errors="surrogateescape")
    key = {
        "checkpoint": digest,
        "mesh_order": mesh_order,
        "recipe": fed.digest,
        "clips": hashlib.sha256(listed).hexdigest(),
    }
    record = _Record(root, key, part)
    jobs = [_Job(clip, root, checkpoint, digest, mesh_order, fed, overwrite, device) for clip in clips]
    outcomes: list[_Outcome] = []
    results = run_jobs(_run, jobs, workers if splitting.on_ray else 1, splitting.executor, splitting.ray_gpus)
    with closing(results), progress_bar(part.index == 0) as bar:
        for job, outcome in bar.track(results, total=len(jobs), description="base frames"):
            if isinstance(outcome, WorkerDied):
                outcome = _Outcome(failure=f"{outcome} (out of memory, or a crash)")
            if outcome.system is not None:
                raise outcome.system
            if outcome.failure:
                record.failures.append((job.clip.relative_to(root).as_posix(), outcome.failure))
                _log.warning("%s", outcome.failure)
            outcomes.append(outcome)
    _base.cache_clear()
    record.finish()
    skipped, failed = sum(outcome.skipped for outcome in outcomes), len(record.failures)
    frames, without = (sum(getattr(outcome, name) for outcome in outcomes) for name in ("frames", "without_mesh"))
    seconds = time.perf_counter() - began
    return BaseFramesReport(
        len(outcomes) - skipped - failed, skipped, failed, frames, without, seconds, root, record.path.name
    )


class _Record:
    """The list of failures, of all clips or joined from slices."""

    def __init__(self, root: Path, key: Mapping[str, object], part: Slice) -> None:
        self.failures: list[tuple[str, str]] = []
        self._root, self._part = root, part
        self._parts = Parts(root, Path(FAILURES).stem, key)
        self.path = root / FAILURES if part.count == 1 else self._parts.path(part, ".csv")
        if part.count > 1:
            self._parts.write(part, False, {})

    def finish(self) -> None:
        """Write the list, and join the slices if this was the last one."""
        failures, part = sorted(self.failures), self._part
        if part.count > 1:
            write_csv(self.path, _COLUMNS, failures)
            self._parts.write(part, True, {"failures": failures})
            found, missing = self._parts.read(part.count)
            if missing:
                if self._parts.path(part).is_file():  # else another that ended just now has joined all
                    _log.info(
                        "%s: slice %s is done. Missing: %s. The last one joins all", self._root, part, few(missing)
                    )
                return
            failures = sorted(tuple(row) for content in found for row in content["failures"])
        write_csv(self._root / FAILURES, _COLUMNS, failures)
        self._parts.remove()
