# SPDX-License-Identifier: Apache-2.0
"""Videos of an evaluation: frames through a codec before they are scored, and what was scored kept for looking at."""

import hashlib
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lipsync_bench.datamodules.media.video import FPS, VideoWriter, read_frames

KEPT_CRF = 20

__all__ = ["KeptVideo", "line_folder", "row_path", "through_h264", "video_path"]


def _size(frame: np.ndarray) -> tuple[int, int]:
    return frame.shape[0], frame.shape[1]


def line_folder(method: str, generator_sha256: str, paste: str) -> str:
    """A folder's name for one line of the leaderboard, and of no other."""
    return "-".join(_safe(part) for part in (method, generator_sha256[:12], paste) if part)


def _safe(name: str) -> str:
    """A name that any file system takes; where it had to be changed, with the start of its SHA-256."""
    safe = re.sub(r"[^\w.]+", "_", name, flags=re.UNICODE).strip(".") or "_"
    return safe if safe == name else f"{safe}_{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:8]}"


def row_path(folder: Path, line: tuple[str, str, str], clip: str, audio_clip: str, suffix: str) -> Path:
    """Where a file that belongs to one row is.

    Args:
        folder: Of all files of its kind.
        line: The row's method, generator_sha256 and paste.
        clip: As in the row.
        audio_clip: As in the row.
        suffix: Of the file, with its dot.
    """
    sound = "" if audio_clip == clip else f"--{audio_clip.replace('/', '+')}"  # no id has a plus
    return folder / line_folder(*line) / f"{clip}{sound}{suffix}"


def video_path(folder: Path, method: str, generator_sha256: str, paste: str, clip: str, audio_clip: str) -> Path:
    """Where the kept video of a row of a results folder is, if it was kept; arguments as in the row."""
    return row_path(folder / "videos", (method, generator_sha256, paste), clip, audio_clip, ".mp4")


def through_h264(frames: Sequence[np.ndarray], crf: int) -> list[np.ndarray]:
    """Frames after x264 at a quality and back; a group of pictures of their own. Odd sides keep their size.

    Args:
        frames: uint8 RGB (H, W, 3), all of one size.
        crf: 0 (lossless but for the colour space) to 51.
    """
    if not frames:
        return []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "group.mp4"
        with VideoWriter(path, FPS, _size(frames[0]), crf=crf, threads=1) as writer:
            for frame in frames:
                writer.write(frame)
        return list(read_frames(path, None))


class KeptVideo:
    """What was scored on one clip, as a video with its sound; only whole videos are left.

    Args:
        path: Of the mp4.
        sound: float32 (S,) at 16 kHz; None for a silent one.
    """

    def __init__(self, path: Path, sound: np.ndarray | None) -> None:
        self._path = path
        self._sound = sound
        self._writer: VideoWriter | None = None
        self._samples = 0

    def add(self, frames: Sequence[np.ndarray]) -> None:
        """The next frames, uint8 RGB (H, W, 3)."""
        if self._writer is None and len(frames):
            self._writer = VideoWriter(self._path, FPS, _size(frames[0]), audio=self._sound, crf=KEPT_CRF)
            self._writer.__enter__()
        for frame in frames:
            assert self._writer is not None
            self._writer.write(frame)

    def close(self, failure: BaseException | None = None) -> None:
        """End the video; after a failure nothing is left of it."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.__exit__(None if failure is None else type(failure), failure, None)
