# SPDX-License-Identifier: Apache-2.0
"""`bench base-frames`: between the two stages of HyperLips. Runs a trained base over every prepared clip and leaves its
faces, their sketches and the outline of the true lips beside the clip, where the second stage's windows find them.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lipsync_bench.datamodules.clip_datamodule import prepared_clips
from lipsync_bench.datamodules.clips.checksums import verify_clip
from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.errors import ClipError, MediaError
from lipsync_bench.datamodules.files.csv_files import write_csv
from lipsync_bench.datamodules.files.disk import remove_leftovers, sha256
from lipsync_bench.datamodules.media.audio import frame_mels
from lipsync_bench.datamodules.progress import progress_bar
from lipsync_bench.datamodules.slices import rank_and_world
from lipsync_bench.inference.lip_sync import generate_faces
from lipsync_bench.models.core.checkpoints import load_module
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

CHUNK_FRAMES = 64
FAILURES = "base_frames_failures.csv"
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
    """

    done: int
    skipped: int
    failed: int
    frames: int
    without_mesh: int
    seconds: float
    root: Path

    def summary(self) -> str:
        """One line for people."""
        text = (
            f"base frames of {self.done} clips made, {self.skipped} already there, {self.failed} failed; Face Mesh saw "
            f"no face in {self.without_mesh} of {self.frames} frames; {self.seconds:.0f} s: {self.root}"
        )
        return f"{text} (reasons in {self.root / FAILURES})" if self.failed else text


def _is_current(clip: Clip, header: BaseFramesHeader) -> bool:
    path = base_frames_path(clip.path)
    if not path.is_file():
        return False
    try:
        with BaseFrames(path) as old:
            return old.header == header
    except ClipError:
        return False  # made anew


def _chunks(module: HyperLipsBase, clip: Clip) -> Iterator[np.ndarray]:
    """The base network's faces, uint8 RGB (N, 128, 128, 3), as at inference: first crop as reference, own audio."""
    mels = frame_mels(clip.mel(), len(clip))
    reference = clip.frames(0, 1)[0]
    for start in range(0, len(clip), CHUNK_FRAMES):
        crops = clip.frames(start, min(CHUNK_FRAMES, len(clip) - start))
        faces = generate_faces(module, list(crops), mels[start : start + len(crops)], reference)
        yield (faces.transpose(0, 2, 3, 1) * 255).astype(np.uint8)  # truncated, as the released inference does


def _make(module: HyperLipsBase, clip: Clip, header: BaseFramesHeader) -> int:
    """Writes the file of one clip; returns in how many frames Face Mesh saw no face."""
    frames: list[np.ndarray] = []
    sketches = np.zeros((len(clip), BOTTLENECK_PX, BOTTLENECK_PX), np.uint8)
    found = np.zeros(len(clip), bool)
    for faces in _chunks(module, clip):
        first = len(frames)
        meshes, seen = find_meshes(faces if header.mesh_order == "rgb" else faces[..., ::-1])
        found[first : first + len(faces)] = seen
        for index in np.flatnonzero(seen):
            sketches[first + index] = draw_sketch(meshes[index], (BOTTLENECK_PX, BOTTLENECK_PX))
        frames += list(faces)
    outlines = np.stack([lip_outline(points) for points in clip.mesh()])
    write_base_frames(
        base_frames_path(clip.path), header, frames=frames, sketches=sketches, found=found, lip_outlines=outlines
    )
    return int((~found).sum())


def make_base_frames(
    checkpoint: Path,
    root: Path,
    *,
    mesh_order: MeshOrder = "rgb",
    overwrite: bool = False,
    device: str = "auto",
    progress: bool = True,
) -> BaseFramesReport:
    """Make the base frames of every prepared clip; files that this checkpoint made already are kept.

    A file is whole or absent at any time. Under torchrun each rank takes every n-th clip. Memory holds the faces of one
    clip, 50 KB a frame.

    Args:
        checkpoint: Of HyperLipsBase.
        root: Folder of prepared clips.
        mesh_order: Channel order of the images that Face Mesh sees: "rgb", or "bgr" as in the released preparation.
        overwrite: Make finished files anew.
        device: "auto", "cpu", "cuda:0" ...
        progress: Show a bar on standard error.

    Raises:
        FileNotFoundError: No such checkpoint; no clips in `root`.
        ValueError: The checkpoint holds something else.
    """
    began = time.perf_counter()
    module = load_module(checkpoint, [HyperLipsBase])
    module = module.to(device_of(device))
    digest = sha256(checkpoint)
    rank, world = rank_and_world()
    clips = prepared_clips(root)[rank::world]
    if world == 1:  # other ranks may be writing
        remove_leftovers(root)
    done = skipped = frames = without_mesh = 0
    failures: list[tuple[str, str]] = []
    with progress_bar(progress and rank == 0) as bar:
        for path in bar.track(clips, description="base frames"):
            try:
                with Clip(path, read="file") as clip:
                    header = BaseFramesHeader.of(clip.header, digest, mesh_order=mesh_order)
                    if not overwrite and _is_current(clip, header):
                        skipped += 1
                        continue
                    verify_clip(path)
                    without_mesh += _make(module, clip, header)
                    done, frames = done + 1, frames + len(clip)
            except (ClipError, MediaError) as error:
                failures.append((path.relative_to(root).as_posix(), str(error)))
                _log.warning("%s", error)
    write_csv(root / (FAILURES if world == 1 else f"base_frames_failures.rank{rank}.csv"), ("clip", "reason"), failures)
    return BaseFramesReport(done, skipped, len(failures), frames, without_mesh, time.perf_counter() - began, root)
