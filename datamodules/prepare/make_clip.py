# SPDX-License-Identifier: Apache-2.0
"""From one video to one clip, and whether a clip that is there already still holds.

A video is decoded once. Its crops can only be cut when the frames after them are known, because boxes are smoothed over
time and the face of the track is chosen at the end. So the last `SMOOTHING_RADIUS` frames are held, and each is cut
with the box of the face that leads so far. At the end the boxes are computed from the whole track, and the frames that
were cut otherwise (gaps, another face chosen) are decoded again. The result is that of two passes, at little more than
the price of one, and of a long video only the JPEGs are in memory.
"""

import dataclasses
import json
import logging
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lipsync_bench.datamodules.clips.clip import ClipHeader, read_header, write_clip
from lipsync_bench.datamodules.clips.track import JPEG_QUALITY, encode_face
from lipsync_bench.datamodules.errors import ClipError, MediaError, system_error
from lipsync_bench.datamodules.faces.crops import SMOOTHING_RADIUS, crop_boxes, cut
from lipsync_bench.datamodules.faces.detectors import detector_version
from lipsync_bench.datamodules.faces.options import CropRule, FaceOptions
from lipsync_bench.datamodules.faces.tracking import FaceTrack, FaceTracker
from lipsync_bench.datamodules.files.disk import printable, sha256
from lipsync_bench.datamodules.media.audio import (
    MEL_WINDOW,
    MELS_PER_SECOND,
    SAMPLE_RATE,
    load_audio,
    mel_spectrogram,
    to_int16,
)
from lipsync_bench.datamodules.media.damage import Damage
from lipsync_bench.datamodules.media.video import FPS, probe, read_frames
from lipsync_bench.datamodules.prepare.beside import Beside, Failure
from lipsync_bench.datamodules.prepare.cutting import cut_video
from lipsync_bench.datamodules.prepare.sources import Source
from lipsync_bench.datamodules.prepare.wanted import Wanted

MIN_FRAMES = 5  # one window of the published networks
_REVISION = 2  # raised when the same settings give other clips than before

logger = logging.getLogger(__name__)

__all__ = ["MIN_FRAMES", "Job", "Outcome", "Settings", "is_current", "left_by_the_dead", "prepare_one"]


@dataclasses.dataclass(frozen=True)
class Settings(FaceOptions):
    """What decides how a clip comes out, apart from its source."""

    max_crop_px: int = 512
    detector_weights: Path | None = None

    @property
    def detector_version(self) -> str:
        """Versions of the detector's packages and, where they are a file, the SHA-256 of its weights."""
        return detector_version(self.detector, self.detector_weights)

    def key(self) -> str:
        """As text, to compare with the one a finished clip was made with."""
        values = dataclasses.asdict(self)
        del values["detector_weights"]  # it matters what is in them, not where they are: see `detector_version`
        return json.dumps({**values, "jpeg_quality": JPEG_QUALITY, "revision": _REVISION}, sort_keys=True)


@dataclasses.dataclass(frozen=True)
class Job:
    """One clip to make: from which video, relative to which root, to which file; what is wanted and lies beside it."""

    source: Source
    root: Path
    target: Path
    settings: Settings
    overwrite: bool
    wanted: Wanted = dataclasses.field(default_factory=Wanted)
    beside: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Of a job: its manifest entry, or why there is none; `system` is an error that every other job would meet too.

    `made` are the names of the parts beside the clip that were made, `failures` those that could not be.
    """

    entry: dict[str, Any] | None = None
    skipped: bool = False
    error: str = ""
    reason: str = ""
    system: OSError | None = None
    made: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()


def _encode(frame: np.ndarray, box: np.ndarray, max_crop_px: int) -> bytes:
    crop = cut(frame, box)
    height, width = crop.shape[:2]
    scale = max_crop_px / max(height, width)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        crop = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
    return encode_face(crop, "jpeg")


def _guess_box(tracker: FaceTracker, index: int, rule: CropRule) -> np.ndarray | None:
    """The box of frame `index`, told from the frames so far; None if the leading face has a gap near it."""
    start = max(0, index - SMOOTHING_RADIUS)
    track = tracker.provisional_track(start)
    return None if track is None else crop_boxes(track, rule, tracker.size_hw)[index - start]


def _track_and_cut(
    path: Path, settings: Settings, damage: Damage | None = None
) -> tuple[FaceTrack, np.ndarray, list[bytes]]:
    """Track, boxes (T, 4) and T JPEGs of a video at 25 frames a second; `damage` counts what is not decoded."""
    read = read_frames if damage is None else partial(read_frames, damage=damage)
    again = read_frames if damage is None else partial(read_frames, damage=Damage())  # counted once
    held: deque[np.ndarray] = deque()
    guesses: list[np.ndarray | None] = []
    jpegs: list[bytes] = []
    with FaceTracker(
        settings.detector,
        face=settings.face,
        max_gap_frames=settings.max_gap_frames,
        detector_weights=settings.detector_weights,
    ) as tracker:
        for frame in read(path):
            tracker.add(frame)
            held.append(frame)
            if len(held) > SMOOTHING_RADIUS:
                frame = held.popleft()
                box = _guess_box(tracker, len(guesses), settings.crop)
                guesses.append(box)
                jpegs.append(b"" if box is None else _encode(frame, box, settings.max_crop_px))
        if tracker.frames < MIN_FRAMES:
            raise MediaError(
                f"{tracker.frames} frames at {FPS:g} fps, expected at least {MIN_FRAMES}. Use a longer video"
            )
        track = tracker.finish()
    boxes = crop_boxes(track, settings.crop, tracker.size_hw)
    jpegs.extend(
        _encode(frame, box, settings.max_crop_px) for frame, box in zip(held, boxes[len(guesses) :], strict=True)
    )
    wrong = {index for index, guess in enumerate(guesses) if guess is None or not np.array_equal(guess, boxes[index])}
    if wrong:
        for index, frame in enumerate(again(path)):
            if index in wrong:
                jpegs[index] = _encode(frame, boxes[index], settings.max_crop_px)
    return track, boxes, jpegs


def _digest(source: Source) -> str:
    return "+".join(sha256(path) for path in (source.path, source.audio) if path is not None)


def _stamp(source: Source) -> dict[str, int]:
    """Another file has another one, also where it has the same size and time: no program can set the time of change."""
    states = [path.stat() for path in (source.path, source.audio) if path is not None]
    return {
        "source_bytes": sum(state.st_size for state in states),
        "source_mtime_ns": max(state.st_mtime_ns for state in states),
        "source_ctime_ns": max(state.st_ctime_ns for state in states),
    }


def _entry(job: Job, header: ClipHeader, beside: Beside, damaged_frames: int = 0) -> dict[str, Any]:
    return {
        "id": header.id,
        "source": header.source,
        "source_sha256": header.source_sha256,
        **_stamp(job.source),
        "sha256": sha256(job.target),
        "frames": header.frames,
        "detected": header.detected,
        **beside.entry(),
        **({"damaged_frames": damaged_frames} if damaged_frames else {}),
    }


def _beside(job: Job, header: ClipHeader) -> Beside:
    return Beside(job.target, header, job.wanted, job.beside)


def _usable_header(job: Job) -> ClipHeader | None:
    """The header of a clip that is there already, if it was made with the same settings."""
    try:
        header = read_header(job.target)
    except (FileNotFoundError, NotADirectoryError, ClipError):
        return None
    made = (header.id, header.source, header.detector, header.detector_version, header.crop_rule, header.settings)
    settings = job.settings
    version = settings.detector_version
    source = job.source.path.relative_to(job.root).as_posix()
    same = made == (job.source.id, source, settings.detector, version, settings.crop, settings.key())
    return header if same else None


def _make_clip(job: Job, digest: str, damage: Damage) -> ClipHeader:
    source, settings = job.source, job.settings
    info = probe(source.path)
    if not info.has_audio and source.audio is None:
        raise MediaError(f"{source.path}: no audio track. Expected a video with audio. Remove it, or add its audio")
    samples = load_audio(source.path if info.has_audio or source.audio is None else source.audio, damage)
    mel = mel_spectrogram(samples)
    if mel.shape[1] < MEL_WINDOW:
        raise MediaError(
            f"{source.path}: {len(samples) / SAMPLE_RATE:.2f} s of audio, expected at least "
            f"{MEL_WINDOW / MELS_PER_SECOND:.2f} s. Use a longer video"
        )
    track, boxes, jpegs = _track_and_cut(source.path, settings, damage)
    corner, size = boxes[:, None, :2], (boxes[:, 2:] - boxes[:, :2])[:, None]  # (T,1,2) each
    mesh = np.concatenate([(track.mesh[..., :2] - corner) / size, track.mesh[..., 2:] / size[..., :1]], axis=-1)
    header = ClipHeader(
        id=source.id,
        speaker=source.id.partition("/")[0],
        source=source.path.relative_to(job.root).as_posix(),
        source_sha256=digest,
        source_fps=info.nominal_fps,
        source_width=info.width,
        source_height=info.height,
        detector=track.detector,
        detector_version=track.detector_version,
        crop_rule=settings.crop,
        frames=len(track),
        detected=int(track.detected.sum()),
        settings=settings.key(),
    )
    write_clip(
        job.target,
        header,
        jpegs=jpegs,
        mel=mel.T,
        wav=to_int16(samples),
        boxes=boxes,
        landmarks=(track.landmarks - corner) / size,
        mesh=mesh,
    )
    return header


def is_current(job: Job, entry: dict[str, Any]) -> bool:
    """Whether the manifest's entry still holds, told without reading the source."""
    header = _usable_header(job)
    try:
        stamp = _stamp(job.source)
    except OSError:
        return False
    return (
        header is not None
        and header.source_sha256 == entry.get("source_sha256")
        and all(entry.get(name) == value for name, value in stamp.items())
        and _beside(job, header).holds(entry)
    )


def _check_name(job: Job) -> None:
    """The clip's header holds the name, and others show it and make paths of it."""
    name = job.source.path.relative_to(job.root).as_posix()
    if printable(name) != name:
        raise MediaError(
            f"{job.source.path}: the name is not UTF-8, or has control characters such as line breaks. Expected a name "
            "of letters, digits and signs. Rename the file or its folder"
        )


def prepare_one(job: Job) -> Outcome:
    """Make one clip; every error becomes an outcome, because the other clips go on."""
    try:
        cutting = job.source.cutting
        if cutting is not None and (job.overwrite or not job.source.path.is_file()):
            cut_video(cutting, job.source.path)
        if not job.source.path.is_file():
            raise FileNotFoundError(f"{job.source.path}: no such file. Expected every clip of the lists (--source)")
        _check_name(job)
        header = None if job.overwrite else _usable_header(job)
        digest = _digest(job.source)
        skipped = header is not None and header.source_sha256 == digest
        damage = Damage()
        if header is None or not skipped:
            header = _make_clip(job, digest, damage)
        beside = _beside(job, header)
        beside.complete(job.source.path, job.settings.max_gap_frames, anew=job.overwrite)
        entry = _entry(job, header, beside, damage.frames)
        return Outcome(entry, skipped, made=tuple(beside.made), failures=tuple(beside.failures))
    except Exception as error:
        if isinstance(error, MediaError):
            for path in (job.target, *map(job.target.with_name, job.beside)):
                path.unlink(missing_ok=True)  # of an earlier source or settings; not after a mere failure to read
        elif not isinstance(error, OSError):
            logger.exception("%s: unexpected error", job.source.path)
        reason = " ".join(str(error).split())
        return Outcome(error=type(error).__name__, reason=reason, system=system_error(error))


def left_by_the_dead(job: Job, reason: str) -> Outcome:
    """What is there of the job of a worker that died: a whole clip is not lost with a part beside it."""
    error = "WorkerDied"
    try:
        header = None if job.overwrite else _usable_header(job)
        if header is not None and header.source_sha256 == _digest(job.source):
            beside = _beside(job, header)
            failures = tuple(Failure(part, error, reason) for part in beside.missing())
            return Outcome(_entry(job, header, beside), skipped=True, failures=failures)
    except OSError as unreadable:
        reason = f"{reason}; {unreadable}"
    return Outcome(error=error, reason=reason)
