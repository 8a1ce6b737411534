# SPDX-License-Identifier: Apache-2.0
"""Cutting a clip out of a longer video, for data sets that are lists of time stamps."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from lipsync_bench.datamodules.datasets.time_stamps import Stamp
from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.media.original_audio import OriginalAudio, read_original_audio
from lipsync_bench.datamodules.media.video import FPS, VideoWriter, probe, read_frames

SQUARE_PX = 512
_MISSING_S = 1  # stamps are whole seconds, and the last one may lie behind the video's end

__all__ = ["SQUARE_PX", "Cutting", "cut_video"]


@dataclass(frozen=True)
class Cutting:
    """Which part of which video is a clip.

    Args:
        video: The longer video.
        stamp: The part, and the square that is cut out and resized to 512 x 512; whole frames without one.
    """

    video: Path
    stamp: Stamp

    @property
    def text(self) -> str:
        """What is cut, as a part of a file name, so that a clip that is cut otherwise is another file."""
        stamp = self.stamp
        where = "" if stamp.square is None else "-" + "-".join(map(str, stamp.square))
        return f"{stamp.start_s}s-{stamp.end_s}s{where}"


def _square(frame: np.ndarray, square: tuple[int, int, int, int]) -> np.ndarray:
    x, y, width, height = square
    smaller = min(width, height) >= SQUARE_PX
    return cv2.resize(
        frame[y : y + height, x : x + width],
        (SQUARE_PX, SQUARE_PX),
        interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC,
    )


def _audio_from(audio: OriginalAudio, start_s: int) -> OriginalAudio:
    def pieces() -> Iterator[np.ndarray]:
        skip = start_s * audio.rate
        for piece in audio.pieces:
            if piece.shape[1] > skip:
                yield piece[:, skip:]
            skip = max(0, skip - piece.shape[1])

    return OriginalAudio(audio.rate, audio.channels, pieces())


def _check_square(cutting: Cutting, height: int, width: int) -> None:
    stamp = cutting.stamp
    assert stamp.square is not None
    x, y, w, h = stamp.square
    if stamp.height not in (None, height) or x + w > width or y + h > height:
        raise MediaError(
            f"{cutting.video}: frames of {width}x{height}, the square {w}x{h} at ({x}, {y}) is told for frames of "
            f"{stamp.height or 'another'} px in height. Expected the video in that size. Download it in that size"
        )


def cut_video(cutting: Cutting, path: Path) -> None:
    """Write a part of a video at 25 fps, with its audio; holds one frame.

    The file appears when it is whole. Frames and samples are those of `read_frames` and `read_original_audio`, encoded
    by x264 at crf 18 with one thread, so that the same video gives the same bytes on every machine.

    Args:
        cutting: The part.
        path: The mp4 to write; its folder is made.

    Raises:
        FileNotFoundError: The video is not there.
        MediaError: It cannot be read, has no audio, ends more than a second before the part does, or its frames are not
            those of the square.
    """
    if not cutting.video.is_file():
        raise FileNotFoundError(
            f"{cutting.video}: no such file. Expected every video of the lists (--source). Download it"
        )
    info, stamp = probe(cutting.video), cutting.stamp
    size_hw = info.height, info.width
    if stamp.square is not None:
        _check_square(cutting, *size_hw)
        size_hw = SQUARE_PX, SQUARE_PX
    audio = _audio_from(read_original_audio(cutting.video, stamp.end_s), stamp.start_s)
    first, last = round(stamp.start_s * FPS), round(stamp.end_s * FPS)
    note = {"comment": f"{cutting.video.name} from {stamp.start_s} s to {stamp.end_s} s"}
    written = 0
    with (
        closing(read_frames(cutting.video, FPS)) as frames,  # type: ignore[type-var]  # a generator
        VideoWriter(path, FPS, size_hw, audio=audio, metadata=note, threads=1) as writer,
    ):
        for frame in islice(frames, first, last):
            writer.write(frame if stamp.square is None else _square(frame, stamp.square))
            written += 1
        if written < last - first - _MISSING_S * FPS:
            raise MediaError(
                f"{cutting.video}: ends at {(first + written) / FPS:.1f} s. Expected a part from {stamp.start_s} s "
                f"to {stamp.end_s} s. Is it another version of the video? Download it again"
            )
