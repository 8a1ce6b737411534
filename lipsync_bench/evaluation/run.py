# SPDX-License-Identifier: Apache-2.0
"""One pass over the clips: decode once, detect once, score every candidate, write each row at once."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from datamodules.audio import frame_mels, load_audio, to_int16
from datamodules.clip import Clip
from datamodules.crops import cut
from datamodules.errors import ClipError, MediaError
from datamodules.files import atomic_path
from datamodules.video import FPS, probe, read_frames
from lipsync_bench.blending import CONTOUR
from lipsync_bench.evaluation.candidates import Candidate, TargetChunk
from lipsync_bench.evaluation.protocol import Protocol
from lipsync_bench.evaluation.rows import RowFile
from lipsync_bench.evaluation.scorers import ClipScorers, Scorers
from lipsync_bench.evaluation.scoring import FrameScores, compare_crops, face_rectangles, find_landmarks, in_frame
from lipsync_bench.version import __version__

CHUNK_FRAMES = 32  # frames of the source held at a time: 200 MB at 1080p
FAILURES = (MediaError, ClipError, FileNotFoundError)  # a clip's own trouble; anything else is a bug and stops the run

_log = logging.getLogger(__name__)

__all__ = ["evaluate_clips"]


@dataclass(frozen=True)
class _Part:
    """A chunk of the target with everything that is the same for all candidates."""

    chunk: TargetChunk
    crops: np.ndarray  # uint8 (N, S, S, 3)
    landmarks: np.ndarray  # (N, 68, 2) found in `crops`
    rectangles: np.ndarray  # (N, 4) of the face, frame pixels
    lips_01: np.ndarray  # (N, 68, 2) stored with the clip


def _parts(clip: Clip, source: Path, protocol: Protocol, cache: Path) -> Iterator[_Part]:
    """The clip in chunks: decoded, cut, landmarks found. The landmarks are cached for the next run."""
    boxes, stored = clip.boxes(), clip.landmarks()
    mesh = clip.mesh()
    faces, contours = face_rectangles(mesh, boxes), in_frame(mesh[:, list(CONTOUR), :2], boxes)
    mels = frame_mels(clip.mel(), len(clip))
    known = _cached(cache, clip, protocol)
    found: list[np.ndarray] = []
    reference: np.ndarray | None = None
    stream = read_frames(source, FPS)
    for first in range(0, len(clip), CHUNK_FRAMES):
        frames = list(islice(stream, min(CHUNK_FRAMES, len(clip) - first)))
        end = first + len(frames)
        if end < min(first + CHUNK_FRAMES, len(clip)):
            raise MediaError(
                f"{source} has {end} frames at 25 fps, expected {len(clip)} as when {clip.path.name} was prepared. "
                "The video has changed: bench prepare again"
            )
        if reference is None:
            reference = cut(frames[0], boxes[0]).copy()
        crops = compare_crops(frames, boxes[first:end], protocol.crop_px)
        landmarks = (
            find_landmarks(frames, boxes[first:end], faces[first:end], protocol.crop_px)
            if known is None
            else known[first:end]
        )
        found.append(landmarks)
        part = slice(first, end)
        chunk = TargetChunk(clip.header.id, first, frames, boxes[part], mels[part], reference, contours[part])
        yield _Part(chunk, crops, landmarks, faces[first:end], stored[first:end])
    if known is None:
        with atomic_path(cache) as temporary, temporary.open("wb") as file:
            np.savez(file, landmarks=np.concatenate(found), source=clip.header.source_sha256, protocol=protocol.key)


def _cached(cache: Path, clip: Clip, protocol: Protocol) -> np.ndarray | None:
    if not cache.is_file():
        return None
    with np.load(cache) as file:
        fits = file["source"] == clip.header.source_sha256 and file["protocol"] == protocol.key
        landmarks = file["landmarks"]
        return landmarks if fits and len(landmarks) == len(clip) else None


class _ClipScores:
    """All numbers of one candidate on one clip."""

    def __init__(self, candidate: Candidate, protocol: Protocol, scorers: ClipScorers) -> None:
        self.candidate = candidate
        self.protocol = protocol
        self.frame_scores = FrameScores(protocol)
        self.seconds = 0.0
        self.earlier_fallbacks = candidate.fallback_frames()
        self.failure: Exception | None = None
        self.frames = 0
        try:
            file = candidate.file(scorers.clip.header.id)
            own_sound = file is not None and candidate.own_sound and probe(file).has_audio
            samples = to_int16(load_audio(file)) if file is not None and own_sound else None
            self.sync = scorers.start(samples, file)
        except FAILURES as error:
            self.failure = error

    def update(self, part: _Part) -> None:
        """Score a chunk; a failure of this candidate is kept and does not touch the others."""
        if self.failure is not None:
            return
        start = time.perf_counter()
        try:
            frames = self.candidate.frames(part.chunk, self.protocol)
            count = len(frames)
            if count == 0:
                return
            target, target_landmarks = part.crops[:count], part.landmarks[:count]
            if frames is part.chunk.frames:  # the truth: its crops and landmarks are known
                crops, landmarks = target, target_landmarks
            else:
                crops = compare_crops(frames, part.chunk.boxes[:count], self.protocol.crop_px)
                landmarks = find_landmarks(
                    frames, part.chunk.boxes[:count], part.rectangles[:count], self.protocol.crop_px
                )
            self.frame_scores.update(crops, target, landmarks, target_landmarks, part.lips_01[:count])
            self.sync.update(frames, part.chunk.boxes[:count])
            self.frames += count
        except FAILURES as error:
            self.failure = error
        finally:
            self.seconds += time.perf_counter() - start

    def row(self) -> dict[str, object]:
        """What is known at the end of the clip."""
        if self.failure is None and self.frames == 0:
            self.failure = MediaError("no frame to score")
        if self.failure is None:
            try:
                values = {**self.frame_scores.result(), **self.sync.result()}
                fallbacks = self.candidate.fallback_frames() - self.earlier_fallbacks
                return {"status": "ok", "seconds": round(self.seconds, 3), "fallback_frames": fallbacks, **values}
            except FAILURES as error:
                self.failure = error
        return {"status": "failed", "reason": f"{type(self.failure).__name__}: {self.failure}"}


def evaluate_clips(
    clips: Sequence[Path],
    source_root: Path,
    candidates: Sequence[Candidate],
    rows: RowFile,
    protocol: Protocol,
    scorers: Scorers,
    cache: Path,
    progress: bool = True,
) -> None:
    """Score every candidate on every clip and append the rows; what is in `rows` already is not done again.

    Args:
        clips: Prepared clip files (this rank's share).
        source_root: Folder that the clips' source paths are relative to.
        candidates: What is ranked.
        rows: Where rows go, one at a time, as soon as a clip is finished.
        protocol: How frames are compared.
        scorers: Networks that judge synchrony.
        cache: Folder for the landmarks found in the targets.
        progress: Show a progress bar.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not progress, transient=True) as bar:
        task = bar.add_task("evaluate", total=len(clips))
        for path in clips:
            with Clip(path) as clip:
                _evaluate_clip(clip, source_root, candidates, rows, protocol, scorers, cache)
            bar.advance(task)


def _evaluate_clip(
    clip: Clip,
    source_root: Path,
    candidates: Sequence[Candidate],
    rows: RowFile,
    protocol: Protocol,
    scorers: Scorers,
    cache: Path,
) -> None:
    header = clip.header
    open_candidates = [c for c in candidates if (protocol.key, c.name, c.sha256, c.paste, header.id) not in rows]
    if not open_candidates:
        return
    common = {
        "protocol": protocol.key,
        "clip": header.id,
        "audio_clip": header.id,
        "speaker": header.speaker,
        "frames_target": len(clip),
        "package_version": __version__,
        **scorers.identity,
    }
    clip_scorers = scorers.of(clip)
    scores = [_ClipScores(c, protocol, clip_scorers) for c in open_candidates]
    try:
        for part in _parts(clip, source_root / header.source, protocol, cache / f"{header.id}.npz"):
            for score in scores:
                score.update(part)
    except FAILURES as error:  # the target itself cannot be read: every candidate fails on this clip
        for score in scores:
            score.failure = error
    for score in scores:
        made = {"generator_sha256": score.candidate.sha256, "paste": score.candidate.paste}
        row = {**common, "method": score.candidate.name, **made, **score.row()}
        if row["status"] == "failed":
            _log.warning("%s on %s failed: %s", row["method"], row["clip"], row["reason"])
        rows.append(row)
