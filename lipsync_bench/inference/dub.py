# SPDX-License-Identifier: Apache-2.0
"""Give the person in a video other speech: any method, any length, size and rate; stream in, stream out.

The video is read twice, once to follow the face and once to change it, and neither the frames nor the audio are ever in
memory as a whole. What grows with the length is 1 KB a frame for the face, and while the mel-spectrogram is made, 64 KB
a second for the speech at 16 kHz.
"""

import gc
import json
import math
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from lipsync_bench.datamodules.errors import FaceError, MediaError
from lipsync_bench.datamodules.faces.options import FollowOptions
from lipsync_bench.datamodules.media.audio import (
    HOP_SAMPLES,
    MEL_WINDOW,
    SAMPLE_RATE,
    frame_mels,
    load_audio,
    mel_spectrogram,
)
from lipsync_bench.datamodules.media.frame_store import FrameStore
from lipsync_bench.datamodules.media.original_audio import read_original_audio
from lipsync_bench.datamodules.media.video import FPS, VideoWriter, probe, read_frames
from lipsync_bench.datamodules.progress import progress_bar
from lipsync_bench.datamodules.recipes.options import RecipeOptions
from lipsync_bench.datamodules.recipes.values import MelPadding
from lipsync_bench.datamodules.weights.options import WeightOptions
from lipsync_bench.inference.find_face import find_face
from lipsync_bench.inference.options import DubOptions
from lipsync_bench.inference.sessions import Sessions
from lipsync_bench.models import TalkingFaceModule, list_methods
from lipsync_bench.models.core.session import BATCH_FRAMES, Video, dub_frames
from lipsync_bench.processes import device_of
from lipsync_bench.version import __version__
from lipsync_bench.weights.methods import load_any, method_file, weights_sha256

_BATCH_BYTES = 64 << 20  # of frames; 10 of 1080p
_LEFT_OVER_S = 0.2  # for so little the video does not jump back to its beginning; the published one ends as early
_MEL_PIECE = 12_000  # columns: 150 s
_MEL_OVERLAP = 4  # columns; a column reaches 400 samples to either side, and one more for the pre-emphasis

__all__ = ["BATCH_FRAMES", "DubReport", "dub", "dub_frames", "frames_for"]


@dataclass(frozen=True)
class DubReport:
    """What was done.

    Args:
        out: The file.
        frames: Frames written.
        without_face: How many of them show no face to dub and passed through unchanged.
        fallbacks: Fallback frames (HyperLips-HR: the enlarged base frame).
        fps: Their rate.
        source_frames: Different frames of the video that were used; fewer than `frames` if it was looped.
        seconds: Time taken.
        unenhanced: Dubbed frames that the recipe's enhancement left as they were.
        left_out: Published steps that were left out, for want of their weights.
    """

    out: Path
    frames: int
    without_face: int
    fallbacks: int
    fps: float
    source_frames: int
    seconds: float
    unenhanced: int = 0
    left_out: tuple[str, ...] = ()

    def summary(self) -> str:
        """One line for people."""
        looped = f", {self.source_frames} different ones looped" if self.source_frames < self.frames else ""
        second = f"; {self.fallbacks} of them fallback frames of the method" if self.fallbacks else ""
        third = f"; {self.unenhanced} dubbed frames show no face to enhance" if self.unenhanced else ""
        fourth = f"; without {', '.join(self.left_out)}" if self.left_out else ""
        return (
            f"{self.out}: {self.frames} frames at {self.fps:.6g} fps{looped}; {self.without_face} without a face "
            f"passed through unchanged{second}{third}{fourth}; {self.seconds:.0f} s"
        )


def _speech(path: Path, padding: MelPadding) -> tuple[np.ndarray, int]:
    """Mel (80, M) and number of samples at 16 kHz. Piece by piece, but the same numbers as at once."""
    samples = load_audio(path)
    if len(samples) < (MEL_WINDOW - 1) * HOP_SAMPLES:
        raise MediaError(
            f"{path}: {len(samples) / SAMPLE_RATE:.2f} s of audio. Expected at least "
            f"{(MEL_WINDOW - 1) * HOP_SAMPLES / SAMPLE_RATE:.2f} s. Use longer speech (--audio)"
        )
    columns = 1 + len(samples) // HOP_SAMPLES
    parts = []
    for first in range(0, columns, _MEL_PIECE):
        start = max(0, first - _MEL_OVERLAP)
        last = min(first + _MEL_PIECE, columns)
        if columns - last <= 2 * _MEL_OVERLAP:  # too short to stand alone
            last = columns
        end = len(samples) if last == columns else (last + _MEL_OVERLAP) * HOP_SAMPLES
        piece = mel_spectrogram(samples[start * HOP_SAMPLES : end], padding)
        parts.append(piece[:, first - start : last - start])
        if last == columns:
            break
    return np.concatenate(parts, axis=1), len(samples)


def frames_for(samples: int, fps: float) -> int:
    """How many frames last as long as so many samples of audio at 16 kHz."""
    return math.ceil(round(samples / SAMPLE_RATE * fps, 6))


def _looped(video: Path, fps: float) -> Generator[np.ndarray, None, None]:
    while True:
        yield from read_frames(video, fps)
        gc.collect()  # a decoder is part of a reference cycle and holds 150 MB of 1080p until that is found


def _to_and_fro(video: Path, fps: float, out: Path) -> Generator[np.ndarray, None, None]:
    """Forwards, then backwards, and so on; the first and the last frame come twice. Kept on the disk beside `out`."""
    with closing(FrameStore(out)) as store:
        for frame in read_frames(video, fps):
            store.add(frame)
            yield frame
        gc.collect()
        while True:
            yield from store.read_back()
            yield from store.read()


def _method_name(module: TalkingFaceModule) -> str:
    return next((name for name, kind in list_methods().items() if kind is type(module)), type(module).__name__)


def _mark(module: TalkingFaceModule, digest: str, **settings: object) -> dict[str, str]:
    """Container tags that say what the file is.

    Differs: VideoReTalking's paper (6) asks for watermarks in picture and audio; tags are lost when a program that does
    not copy them encodes the file again.
    """
    method = _method_name(module)
    text = (
        f"synthetic: lips re-generated by lipsync_bench {__version__} ({method}, sha256 {digest}). The person did not "
        "say this in front of the camera."
    )
    record = {"version": __version__, "method": method, "weights_sha256": digest, **settings}
    return {
        "title": "Synthetic video",
        "comment": text,
        "description": text,
        "synthetic": "true",
        "lipsync_bench": json.dumps(record),
    }


def _check(checkpoint: Path, video: Path, audio: Path, out: Path) -> None:
    if out.suffix.lower() != ".mp4":
        raise ValueError(f"{out}: ends in '{out.suffix}'. Expected a name ending in .mp4. Choose another (--out)")
    if out.is_dir():
        raise ValueError(f"{out}: is a folder. Expected the name of the file to write (--out)")
    for flag, path in (("checkpoint", checkpoint), ("video", video), ("audio", audio)):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file. Expected the file to read (--{flag})")
        if out.exists() and out.samefile(path):
            raise ValueError(f"{out}: is the file given as --{flag}. Expected another name. Choose one with --out")


def dub(
    checkpoint: Path,
    video: Path,
    audio: Path,
    out: Path,
    options: DubOptions = DubOptions(),
    recipe: RecipeOptions = RecipeOptions(),
    follow: FollowOptions = FollowOptions(),
    weights: WeightOptions = WeightOptions(),
    *,
    batch_frames: int | None = None,
    progress: bool = True,
) -> DubReport:
    """Write a video in which the person of `video` speaks `audio`.

    Rate and size are those of the video; a variable rate becomes its mean one, by time. The audio keeps its own rate
    and up to two channels. The file appears under its name when it is whole; an older one is replaced.

    Args:
        checkpoint: Any method's, written by `lightning fit` or `bench import`, an official weight file, or a system.
        video: Any video that PyAV reads; its own audio is not used.
        audio: The speech; any file with audio. The network reads it at 16 kHz mono.
        out: The MP4 to write.
        options: How it is dubbed.
        recipe: Parts of the method's recipe that are replaced.
        follow: Which face is followed.
        weights: Where the weights of detector, face parser and enhancement are looked for.
        batch_frames: Frames held and generated at once; 16 if not given, fewer of large ones.
        progress: Show a bar on standard error.

    Raises:
        FileNotFoundError: No such checkpoint, video or audio.
        MediaError: A file that cannot be used, FaceError among them: no face on any frame.
        ValueError: An argument; or `out` is one of the files to read.
    """
    began = time.perf_counter()
    store = weights.store
    checkpoint = method_file(checkpoint.stem, checkpoint, store)
    _check(checkpoint, video, audio, out)
    device = device_of(options.device)
    info = probe(video)
    fps = info.fps if math.isfinite(info.fps) else FPS
    module = load_any(checkpoint.stem, checkpoint, device, store)
    fed = recipe.applied(module.recipe)
    sessions = Sessions(module, fed, store, device)
    mel, samples = _speech(audio, fed.mel_padding)
    wanted = frames_for(samples, fps)
    with progress_bar(progress) as bar:
        guess = wanted if info.frames is None else min(wanted, info.frames)
        frames = bar.track(islice(read_frames(video, fps), wanted), total=guess, description="finding the face")
        try:
            geometry = find_face(frames, fed.crop, follow, store, landmarks="landmarks" in fed.needs())
        except FaceError as error:
            raise FaceError(f"{video}: {error}") from error
        enough = options.fit == "cut" or wanted <= len(geometry) + _LEFT_OVER_S * fps
        total = min(wanted, len(geometry)) if enough else wanted
        settings = {"recipe": fed.text(), "paste": sessions.paste}
        tags = {} if options.no_mark else _mark(module, weights_sha256(checkpoint, store), **settings)
        track = read_original_audio(audio, total / fps if options.fit == "cut" else None)
        batch = batch_frames or max(1, min(BATCH_FRAMES, _BATCH_BYTES // (info.height * info.width * 3)))
        gc.collect()  # the first pass's decoder
        whole = Video(
            geometry,
            lambda first, count: frame_mels(mel, count, fps, first),
            lambda: islice(read_frames(video, fps), len(geometry)),
        )
        with (
            closing(sessions.of(whole)) as session,
            closing(
                _to_and_fro(video, fps, out) if session.ping_pong and total > len(geometry) else _looped(video, fps)
            ) as source,
            VideoWriter(out, fps, (info.height, info.width), audio=track, metadata=tags) as writer,
        ):
            dubbed = dub_frames(session, islice(source, total), batch)
            for frame in bar.track(dubbed, total=total, description="moving the lips"):
                writer.write(frame)
            done = session.passed_through, session.fallback_frames
            further = session.unenhanced, session.steps_left_out
    seconds = time.perf_counter() - began
    return DubReport(out, total, *done, fps, min(len(geometry), total), seconds, *further)
