# SPDX-License-Identifier: Apache-2.0
"""Videos of an evaluation: frames are encoded before they are scored, and scored frames are saved for viewing."""

import hashlib
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lipsync_bench.datamodules.media.video import FPS, VideoWriter, read_frames

KEPT_CRF = 20

__all__ = ["SavedVideo", "entry_folder", "row_path", "through_h264", "video_path"]


def _size(frame: np.ndarray) -> tuple[int, int]:
    return frame.shape[0], frame.shape[1]


def entry_folder(method: str, generator_sha256: str, paste: str, recipe: str) -> str:
    """A folder name that is unique to one entry of the leaderboard."""
    return "-".join(_safe(part) for part in (method, generator_sha256[:12], paste, recipe) if part)


def _safe(name: str) -> str:
    """A name that any file system accepts; if it had to be changed, the start of its SHA-256 is appended."""
    safe = re.sub(r"[^\w.]+", "_", name, flags=re.UNICODE).strip(".") or "_"
    return safe if safe == name else f"{safe}_{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:8]}"


def row_path(folder: Path, entry: tuple[str, str, str, str], clip: str, audio_clip: str, suffix: str) -> Path:
    """The path of a file that belongs to one row.

    Args:
        folder: Folder of all files of this kind.
        entry: The row's method, generator_sha256, paste and recipe.
        clip: As in the row.
        audio_clip: As in the row.
        suffix: The file's suffix, with its dot.
    """
    audio = "" if audio_clip == clip else f"--{audio_clip.replace('/', '+')}"  # ids contain no plus
    return folder / entry_folder(*entry) / f"{clip}{audio}{suffix}"


def video_path(folder: Path, entry: tuple[str, str, str, str], clip: str, audio_clip: str) -> Path:
    """The path of a row's saved video in a results folder, if it was saved; arguments as in the row."""
    return row_path(folder / "videos", entry, clip, audio_clip, ".mp4")


def through_h264(frames: Sequence[np.ndarray], crf: int) -> list[np.ndarray]:
    """Encode frames with x264, as one group of pictures, and decode them. Odd sides keep their size.

    Args:
        frames: uint8 RGB (H, W, 3), all of one size.
        crf: x264's quality, 0 (lossless except for the colour space) to 51.
    """
    if not frames:
        return []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "group.mp4"
        with VideoWriter(path, FPS, _size(frames[0]), crf=crf, threads=1) as writer:
            for frame in frames:
                writer.write(frame)
        return list(read_frames(path, None))


class SavedVideo:
    """Saves the frames that were scored on one clip as a video with audio; an incomplete video is removed.

    Args:
        path: The mp4.
        audio: float32 (S,) at 16 kHz.
    """

    def __init__(self, path: Path, audio: np.ndarray) -> None:
        self._path = path
        self._audio = audio
        self._writer: VideoWriter | None = None
        self._samples = 0

    def add(self, frames: Sequence[np.ndarray]) -> None:
        """Append the next frames, uint8 RGB (H, W, 3)."""
        if self._writer is None and len(frames):
            self._writer = VideoWriter(self._path, FPS, _size(frames[0]), audio=self._audio, crf=KEPT_CRF)
            self._writer.__enter__()
        for frame in frames:
            assert self._writer is not None
            self._writer.write(frame)

    def close(self, failure: BaseException | None = None) -> None:
        """Finish the video; after a failure remove it."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.__exit__(None if failure is None else type(failure), failure, None)
