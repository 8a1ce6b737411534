# SPDX-License-Identifier: Apache-2.0
"""Scores all candidates in one pass over the clips: each target is decoded once, and its faces are found once.

The rows of a pair are written as soon as the pair is finished.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lipsync_bench.datamodules.clips.checksums import verify_clip
from lipsync_bench.datamodules.clips.clip import Clip, ClipHeader
from lipsync_bench.datamodules.errors import ClipError, MediaError
from lipsync_bench.datamodules.media.audio import load_audio, mel_spectrogram, to_float, to_int16
from lipsync_bench.datamodules.media.damage import Damage
from lipsync_bench.datamodules.media.video import probe
from lipsync_bench.evaluation.candidates import Candidate, Target
from lipsync_bench.evaluation.features import remove_files
from lipsync_bench.evaluation.live import RunningTable
from lipsync_bench.evaluation.networks import MetricNetworks
from lipsync_bench.evaluation.target.chunks import TargetPart, find_landmarks, read_target
from lipsync_bench.evaluation.target.regions import Regions, compare_crops
from lipsync_bench.evaluation.task.inputs import clip_inputs, identity_of, target_sha256
from lipsync_bench.evaluation.task.pairs import Pair
from lipsync_bench.evaluation.videos import SavedVideo, row_path, through_h264, video_path
from lipsync_bench.metrics.metric import Audio, ScoredClip, Scorer, View
from lipsync_bench.metrics.registry import METRICS
from lipsync_bench.processes import return_memory
from lipsync_bench.results.folder import ResultsFolder
from lipsync_bench.results.rows import RowFile
from lipsync_bench.version import __version__

FAILURES = (MediaError, ClipError, FileNotFoundError)  # failures of one clip; anything else is a bug and stops the run

_log = logging.getLogger(__name__)

__all__ = ["Evaluation", "evaluate_pairs"]


@dataclass(frozen=True)
class Evaluation:
    """What all clips of a run have in common.

    Args:
        source_root: Folder that the clips' source paths are relative to.
        candidates: The candidates to score.
        regions: The protocol with its detectors.
        networks: The metric networks.
        dataset: Name of the data set, for the protocol's limits.
        out: Results folder.
        save_videos: Save the scored frames in `out/videos`.
        face_tracks: Whether LSE is measured on face tracks too.
        split: Which part of the data set the clips are, as rows say it.
    """

    source_root: Path
    candidates: Sequence[Candidate]
    regions: Regions
    networks: MetricNetworks
    dataset: str
    out: Path
    save_videos: bool = False
    face_tracks: bool = False
    split: str = ""

    def frames(self, video: Clip, audio: Clip) -> int:
        """How many frames of a pair are scored: the shorter of the two, up to the protocol's limit."""
        return self.regions.protocol.frames(self.dataset, len(video), len(audio))


def _own_audio(samples: np.ndarray) -> Audio:
    """The audio of a candidate's own file: float32 (S,), 16 kHz."""
    return Audio(lambda: to_int16(samples), lambda: mel_spectrogram(samples))


class _PairScores:
    """Scores one candidate on one pair of video and audio, chunk by chunk, and gives the fields of its row.

    A failure of the candidate is kept in `failure` and becomes a failed row; the other candidates go on.

    Args:
        run: What all clips have in common.
        candidate: What is scored.
        target: The clip that is reproduced, and the one whose audio drives the frames.
        audio: The latter's audio, shared by all candidates that are scored with it.
        target_damage: Counts the damage of the target's video.
    """

    def __init__(
        self,
        run: Evaluation,
        candidate: Candidate,
        target: Target,
        audio: Audio,
        target_damage: Damage,
    ) -> None:
        self.candidate = candidate
        self.target = target
        self.ids = (target.video.header.id, target.audio.header.id)
        self.failure: Exception | None = None
        self.frames = 0
        self._begun = False
        self._run = run
        self._protocol = run.regions.protocol
        self._entry = candidate.entry
        self._earlier_damage = candidate.damaged_frames()
        self._audio_damage, self._target_damage = Damage(), target_damage
        self._seconds = self._generate_seconds = 0.0
        self._without_box = 0
        self._scorers: list[Scorer] = []
        self._saved: SavedVideo | None = None
        self.prediction_sha256 = ""
        saved = video_path(run.out, self._entry, *self.ids)
        saved.unlink(missing_ok=True)  # the video of an earlier row
        remove_files(run.out, self._entry, *self.ids)
        try:
            file = candidate.file(*self.ids)
            self.prediction_sha256 = candidate.prediction_sha256(*self.ids)
            samples = None
            if file is not None and candidate.own_audio and probe(file).has_audio:
                samples = load_audio(file, self._audio_damage)
                audio = _own_audio(samples)
            paired, networks = self._protocol.pairing == "paired", run.networks.loaded
            clip = ScoredClip(paired, audio, networks, self._path, file, run.face_tracks)
            self._scorers += [scorer for metric in METRICS if (scorer := metric.scorer(clip)) is not None]
            self._encode = self._protocol.codec == "h264" and file is None
            if run.save_videos:
                self._saved = SavedVideo(saved, to_float(audio.samples) if samples is None else samples)
        except FAILURES as error:
            self.failure = error

    def _path(self, folder: str, suffix: str) -> Path:
        return row_path(self._run.out / folder, self._entry, *self.ids, suffix)

    def update(self, part: TargetPart) -> None:
        """Score the next chunk, unless the candidate has failed."""
        if self.failure is not None:
            return
        start = time.perf_counter()
        try:
            if not self._begun:
                self.candidate.begin(self.target)
                self._begun = True
            frames = self.candidate.frames(part.chunk)
            self._generate_seconds += time.perf_counter() - start
            if len(frames) == 0:
                return
            if self._encode:
                frames = through_h264(frames, self._protocol.crf)
            self._score(frames, part)
            self.frames += len(frames)
        except FAILURES as error:
            self.failure = error
        finally:
            self._seconds += time.perf_counter() - start

    def _score(self, frames: Sequence[np.ndarray], part: TargetPart) -> None:
        count, size_hw = len(frames), self._protocol.size_hw
        is_target = frames is part.chunk.frames  # its boxes, crops and landmarks are known
        boxes = part.boxes[:count]
        if self._protocol.own_boxes and not is_target:
            boxes = self._run.regions.boxes(frames, part.chunk.boxes[:count])
        has_box, target_has_box = (np.isfinite(b).all(axis=1) for b in (boxes, part.boxes[:count]))
        both = has_box & target_has_box
        self._without_box += int((~both).sum())
        if is_target:
            landmarks, face_found = part.landmarks[:count], part.face_found[:count]
        else:
            landmarks = find_landmarks(frames, part.rectangles[:count])
            face_found = self._run.regions.face_found(frames, boxes, part.rectangles[:count])
        target = [crop for crop, use in zip(part.crops, both[target_has_box], strict=False) if use]
        if is_target:
            crops = target
        else:
            crops = compare_crops([f for f, use in zip(frames, both, strict=True) if use], boxes[both], size_hw)
        points = part.crop_landmarks[:count]
        if not is_target:
            points = self._run.regions.landmarks(landmarks, boxes, crops, both)
        view = View(
            is_target=is_target,
            frames=frames,
            target_frames=part.chunk.frames[:count],
            face_boxes=part.chunk.boxes[:count],
            crops=crops,
            target_crops=target,
            lips=part.lips[:count][both],
            mouth_margin=self._protocol.mouth_margin,
            landmarks=points,
            target_landmarks=part.crop_landmarks[:count],
            frame_landmarks=landmarks,
            target_frame_landmarks=part.landmarks[:count],
            face_found=face_found,
            shared=part.shared,
        )
        for scorer in self._scorers:
            scorer.update(view)
        if self._run.networks.loaded:
            return_memory()  # else the fragments left by buffers of so many sizes add up from chunk to chunk
        if self._saved is not None:
            self._saved.add(frames)

    def row(self) -> dict[str, object]:
        """The fields of the row that are known at the end of the clip."""
        if self.failure is None and self.frames == 0:
            self.failure = MediaError("no frame to score")
        if self.failure is None and self._without_box == self.frames:
            self.failure = MediaError(f"no face for the protocol's box in any of {self.frames} frames")
        values: dict[str, object] = {}
        if self.failure is None:
            try:
                values = {name: value for scorer in self._scorers for name, value in scorer.result().items()}
            except FAILURES as error:
                self.failure = error
        self.close(self.failure)
        if self.failure is not None:
            return {"status": "failed", "reason": f"{type(self.failure).__name__}: {self.failure}"}
        own_damage = self.candidate.damaged_frames() - self._earlier_damage
        return {
            "status": "ok",
            "frames": self.frames,
            "boxless_frames": self._without_box,
            **self.candidate.counts(),
            "damaged_frames": own_damage + self._audio_damage.frames + self._target_damage.frames,
            "generate_seconds": round(self._generate_seconds, 3),
            "seconds": round(self._seconds, 3),
            **values,
        }

    def close(self, failure: BaseException | None) -> None:
        """Finish the files written beside the row; after a failure remove them."""
        if self._saved is not None:
            self._saved.close(failure)
        for scorer in self._scorers:
            scorer.close(keep=failure is None)


def evaluate_pairs(pairs: Sequence[Pair], run: Evaluation, rows: RowFile, progress: bool = True) -> None:
    """Score every candidate on every pair and append the rows; pairs that have a row are not scored again.

    Args:
        pairs: Pairs of video and audio, of several processes those of this one.
        run: What they have in common.
        rows: Where each row is written as soon as its pair is finished.
        progress: Show a progress bar and the means so far.
    """
    with RunningTable(len(pairs), progress) as table:
        for pair in pairs:  # each tensor is read only once, and mapped pages would stay in memory
            with Clip(pair.video, read="file") as video:
                if pair.audio == pair.video:
                    _evaluate_pair(video, video, pair, run, rows, table)
                else:
                    with Clip(pair.audio, read="file") as audio:
                        _evaluate_pair(video, audio, pair, run, rows, table)
            table.advance()


def _pending(run: Evaluation, video: Clip, audio: Clip, pair: Pair, rows: RowFile) -> list[tuple[Candidate, Clip]]:
    """The candidates without a row for this pair, each with the clip whose audio it is scored with."""
    out = []
    for candidate in run.candidates:
        audio_clip = video if candidate.undubbed else audio
        identity = identity_of(run.regions.protocol.key, candidate, video.header.id, audio_clip.header.id)
        # Undubbed, a candidate is the same for all pairs of a video: it is scored with the first of them.
        if identity not in rows and (audio_clip is audio or pair.first):
            out.append((candidate, audio_clip))
    return out


def _evaluate_pair(video: Clip, audio: Clip, pair: Pair, run: Evaluation, rows: RowFile, table: RunningTable) -> None:
    header, protocol = video.header, run.regions.protocol
    pending = _pending(run, video, audio, pair, rows)
    if not pending:
        return
    frames = run.frames(video, audio)
    audios = {clip: Audio(clip.wav, clip.mel) for clip in (video, audio)}
    targets = {clip: Target(video, clip, run.source_root / header.source) for clip in audios}
    damage = Damage()
    scores = [_PairScores(run, candidate, targets[clip], audios[clip], damage) for candidate, clip in pending]
    cache = ResultsFolder(run.out).found_file(header.id)
    source_sha256 = target_sha256(run.source_root, header)
    try:
        _refuse_changed(header, source_sha256, run.source_root)
        for clip in audios:
            verify_clip(clip.path)
        for part in read_target(video, run.source_root / header.source, audio, frames, run.regions, cache, damage):
            for score in scores:
                score.update(part)
    except FAILURES as error:  # the target itself cannot be read: every candidate fails on this clip
        for score in scores:
            score.failure = error
    except BaseException as error:
        for score in scores:
            score.close(error)
        raise
    common = {
        "protocol": protocol.key,
        "clip": header.id,
        "speaker": header.speaker,
        "frames_target": frames,
        "split": run.split,
        "package_version": __version__,
        **run.networks.identity,
    }
    try:
        for score in scores:
            inputs = {
                "generator_sha256": score.candidate.sha256,
                "generator_weights": score.candidate.weights,
                "paste": score.candidate.paste,
                "recipe": score.candidate.recipe,
                "prediction_sha256": score.prediction_sha256,
                **score.candidate.facts(*score.ids),
                **clip_inputs(source_sha256, run.regions, header, score.target.audio.header),
            }
            row = {**common, "method": score.candidate.name, **inputs, "audio_clip": score.ids[1], **score.row()}
            if row["status"] != "ok":
                _log.warning("%s on %s failed: %s", row["method"], row["clip"], row["reason"])
            rows.append(row)
            table.add(row)
    except BaseException as error:
        for score in scores:  # those that have their row are closed already
            score.close(error)
        raise


def _refuse_changed(header: ClipHeader, source_sha256: str, source_root: Path) -> None:
    if source_sha256 != header.source_sha256:
        raise MediaError(
            f"{source_root / header.source} is another video than the one that clip {header.id} was prepared from. "
            "Expected the same, because the clip's face boxes are used. Run: bench prepare again"
        )
