# SPDX-License-Identifier: Apache-2.0
"""Writes the synthetic corpus: MP4 files laid out like LRS2, beside them the true state of the mouth in each frame."""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from lipsync_bench.datamodules.datasets.synthetic.articulation import Articulation, make_articulation
from lipsync_bench.datamodules.datasets.synthetic.face import FRAME_PX, DrawnFace, Pose
from lipsync_bench.datamodules.datasets.synthetic.person import Person, make_person
from lipsync_bench.datamodules.datasets.synthetic.voice import synthesise
from lipsync_bench.datamodules.errors import JobsFailed, system_error
from lipsync_bench.datamodules.files.disk import atomic_path, write_arrays
from lipsync_bench.datamodules.files.texts import read_json
from lipsync_bench.datamodules.media.video import FPS, VideoWriter
from lipsync_bench.datamodules.prepare.pool import WorkerDied, run_jobs
from lipsync_bench.datamodules.progress import progress_bar

__all__ = ["CorpusReport", "Take", "make_corpus", "make_take"]

# Changes whenever the same seed would give other frames or other audio.
_FORMAT = 1
_LICENCE = (
    "Faces are warped from NASA's portrait of astronaut Eileen Collins (public domain), as shipped with scikit-image "
    "(skimage.data.astronaut). Voices are synthetic. NASA's portraits must not suggest an endorsement."
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CorpusReport:
    """What a run did: clips written, clips that were there already, and the seconds it took."""

    done: int
    skipped: int
    seconds: float


@dataclass(frozen=True)
class Take:
    """One utterance before it becomes a file.

    Args:
        identity: who speaks.
        articulation: what is said, as tracks over time.
        pose: head motion of each frame.
        samples: of the audio, float32 (S,), 16 kHz.
        opening: of the lips, float32 (T,) in 0..1, at the middle of each frame's time on screen, (k + 0.5) / 25 s.
        jaw: likewise.
        spread: likewise.
        rounding: likewise.
    """

    identity: Person
    articulation: Articulation
    pose: Pose
    samples: np.ndarray
    opening: np.ndarray
    jaw: np.ndarray
    spread: np.ndarray
    rounding: np.ndarray

    def frames(self) -> Iterator[np.ndarray]:
        """Renders uint8 RGB (256, 256, 3), one frame after the other, about 10 ms each."""
        face = _face(self.identity)
        tracks = np.stack([self.opening, self.jaw, self.spread, self.rounding], axis=1)
        for k, (opening, jaw, spread, rounding) in enumerate(tracks.tolist()):
            yield face.render(opening, jaw, spread, rounding, self.pose, k)


@lru_cache(maxsize=2)
def _face(identity: Person) -> DrawnFace:
    return DrawnFace(identity)


def _wander(frames: int, size: float, slowest_s: float, rng: np.random.Generator) -> np.ndarray:
    """A slow, smooth, aimless motion of about that size: three sines."""
    times = np.arange(frames) / FPS
    periods, phases = slowest_s / np.array([1.0, 1.7, 2.9]), rng.uniform(0, 2 * np.pi, 3)
    return size * (np.array([0.6, 0.3, 0.15]) @ np.sin(2 * np.pi * times / periods[:, None] + phases[:, None]))


def _move_head(frames: int, rng: np.random.Generator) -> Pose:
    blink, times, at = np.zeros(frames), np.arange(frames) / FPS, float(rng.uniform(0.4, 2.5))
    while at < frames / FPS:
        blink = np.maximum(blink, np.clip(1.35 - np.abs(times - at) / 0.09, 0.0, 1.0))
        at += float(rng.uniform(1.8, 4.0))
    period = float(rng.uniform(3.0, 5.0))
    return Pose(
        shift_px=np.stack([_wander(frames, 4.0, period, rng), _wander(frames, 2.5, period, rng)], axis=1),
        roll_rad=_wander(frames, 0.035, 1.2 * period, rng),
        scale=1.0 + _wander(frames, 0.015, 1.5 * period, rng),
        yaw=_wander(frames, 0.9, 1.1 * period, rng),
        pitch=_wander(frames, 0.5, period, rng),
        blink=blink,
    )


def make_take(speaker: int, clip: int, seconds: float = 3.0, seed: int = 0) -> Take:
    """Utterance number `clip` of a speaker, both from 0: the same take in every corpus of this seed."""
    identity = make_person(speaker, seed)
    articulation_rng, voice_rng, head_rng = (np.random.default_rng((seed, speaker, clip, part)) for part in range(3))
    frames = round(seconds * FPS)
    articulation = make_articulation(frames / FPS, articulation_rng)
    times = (np.arange(frames) + 0.5) / FPS
    tracks = (articulation.opening, articulation.jaw, articulation.spread, articulation.rounding)
    opening, jaw, spread, rounding = (articulation.at(track, times).astype(np.float32) for track in tracks)
    samples = synthesise(articulation, identity, voice_rng)
    return Take(identity, articulation, _move_head(frames, head_rng), samples, opening, jaw, spread, rounding)


@dataclass(frozen=True)
class _Job:
    out: Path
    speaker: int
    clip: int
    seconds: float
    seed: int
    name: str

    @property
    def paths(self) -> tuple[Path, Path, Path]:
        """The video, its text, and the state of the mouth in each frame, which is written last."""
        main, truth = self.out / "main" / self.name, self.out / "truth" / self.name
        return main.with_suffix(".mp4"), main.with_suffix(".txt"), truth.with_suffix(".npz")


def _write_clip(job: _Job) -> str | OSError:
    """Writes one clip; gives what went wrong, as an error where it would go wrong with every other one, or nothing."""
    try:
        take = make_take(job.speaker, job.clip, job.seconds, job.seed)
        video, text, truth = job.paths
        # One thread: x264 cuts frames into as many slices as there are, and the corpus is the same on any machine.
        sizes = FRAME_PX, FRAME_PX
        with VideoWriter(video, FPS, sizes, audio=take.samples, metadata={"comment": _LICENCE}, threads=1) as writer:
            for frame in take.frames():
                writer.write(frame)
        with atomic_path(text) as temporary:
            temporary.write_text(f"Text:  {take.articulation.text}\n", encoding="utf-8")
        write_arrays(
            truth,
            opening=take.opening,
            jaw=take.jaw,
            spread=take.spread,
            round=take.rounding,
            seed=np.array([job.seed, job.speaker, job.clip]),
        )
    except Exception as error:  # a worker process must not die of it; the caller raises
        logger.debug("%s", job.name, exc_info=True)
        return system_error(error) or f"{type(error).__name__}: {error}"
    return ""


def _settle(out: Path, settings: dict[str, object]) -> None:
    """Writes corpus.json, or checks the one that is there."""
    path = out / "corpus.json"
    if path.is_file():
        record = read_json(path, "the settings of a synthetic corpus", "Choose another folder with --out")
        found = record.get("settings")
        if not isinstance(found, dict):
            raise ValueError(f"{path}: has no settings. Expected those of a corpus. Choose another folder with --out")
        if found != settings:
            keys = sorted(key for key in {*found, *settings} if found.get(key) != settings.get(key))
            different = ", ".join(f"{key} {found.get(key)} instead of {settings.get(key)}" for key in keys)
            raise ValueError(
                f"{out} holds a synthetic corpus with other settings: {different}. Expected the same settings, to "
                "resume it. Choose another folder with --out, or delete this one."
            )
    elif any(out.glob("main/*/*.mp4")):
        raise ValueError(
            f"{out} has videos in main but no corpus.json, so they are not a synthetic corpus. Expected an empty "
            "folder, or one that this command made. Choose another folder with --out."
        )
    speakers = [
        asdict(make_person(index, int(str(settings["seed"])))) for index in range(int(str(settings["speakers"])))
    ]
    with atomic_path(path) as temporary:
        record = {"settings": settings, "licence": _LICENCE, "speakers": speakers}
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _check(speakers: int, clips_per_speaker: int, seconds: float, seed: int, val_clips: int, test_clips: int) -> None:
    if speakers < 1:
        raise ValueError(f"speakers is {speakers}. Expected at least 1. Set --speakers.")
    if min(val_clips, test_clips) < 0 or clips_per_speaker <= val_clips + test_clips:
        raise ValueError(
            f"clips_per_speaker is {clips_per_speaker}, with {val_clips} for val and {test_clips} for test. Expected "
            "at least one more than those together, for training. Set --clips_per_speaker."
        )
    if seed < 0:
        raise ValueError(f"seed is {seed}. Expected 0 or more. Set --seed.")
    if not 0.6 <= seconds <= 600:
        raise ValueError(f"seconds is {seconds}. Expected 0.6 to 600. Set --seconds.")


def make_corpus(
    out: Path,
    *,
    speakers: int = 6,
    clips_per_speaker: int = 6,
    seconds: float = 3.0,
    seed: int = 0,
    val_clips: int = 1,
    test_clips: int = 1,
    workers: int | None = None,
    progress: bool = True,
) -> CorpusReport:
    """Makes a corpus of talking heads, laid out like LRS2; `datamodules.Synthetic` shows the folders and the licence.

    The same seed gives the same frames and samples, on any number of workers: each clip is drawn from (seed, speaker,
    clip) and encoded by one thread. Files are equal bit for bit under the same versions of the libraries. The same
    call resumes a run that was stopped; finished clips are not rendered again.

    Args:
        out: folder of the corpus.
        speakers: how many; the first six are a fixed cast, further ones are drawn by seed.
        clips_per_speaker: videos of each.
        seconds: length of each video, rounded to whole frames.
        seed: of everything random.
        val_clips: how many of each speaker's clips are for validation.
        test_clips: how many are for test.
        workers: processes; without it as many as there are cores.
        progress: show a progress bar.

    Raises:
        ValueError: numbers that make no corpus, or another corpus in `out`.
        OSError: the disk is full or read-only; what is finished stays.
        JobsFailed: clips could not be written.
    """
    start = time.perf_counter()
    _check(speakers, clips_per_speaker, seconds, seed, val_clips, test_clips)
    settings: dict[str, object] = {
        "format": _FORMAT, "speakers": speakers, "clips_per_speaker": clips_per_speaker, "seconds": seconds,
        "seed": seed, "val_clips": val_clips, "test_clips": test_clips, "fps": FPS, "frame_px": FRAME_PX,
    }  # fmt: skip
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    _settle(out, settings)
    jobs = [
        _Job(out, speaker, clip, seconds, seed, f"{make_person(speaker, seed).name}/{clip + 1:05d}")
        for speaker in range(speakers)
        for clip in range(clips_per_speaker)
    ]
    todo = [job for job in jobs if not all(path.is_file() for path in job.paths)]
    failures = []
    with (
        progress_bar(progress) as bar,
        closing(run_jobs(_write_clip, todo, workers)) as results,
    ):
        task = bar.add_task("synthetic corpus", total=len(todo))
        for job, problem in results:
            bar.advance(task)
            if isinstance(problem, OSError):
                raise problem
            if isinstance(problem, WorkerDied) or problem:
                failures.append(f"{job.name} ({problem})")
    if failures:
        raise JobsFailed(
            f"{len(failures)} of {len(todo)} clips could not be written to {out}: {'; '.join(failures[:3])}. Expected "
            "all. Repair what the messages name and run the same command again; finished clips are kept."
        )
    train = clips_per_speaker - val_clips - test_clips
    parts = {
        "train": range(train),
        "val": range(train, train + val_clips),
        "test": range(train + val_clips, clips_per_speaker),
    }
    for split, numbers in parts.items():
        with atomic_path(out / f"{split}.txt") as temporary:
            temporary.write_text("".join(f"{job.name}\n" for job in jobs if job.clip in numbers), encoding="utf-8")
    logger.info("synthetic corpus: %d clips written to %s, %d were there", len(todo), out, len(jobs) - len(todo))
    return CorpusReport(len(todo), len(jobs) - len(todo), time.perf_counter() - start)
