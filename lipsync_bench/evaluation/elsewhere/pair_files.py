# SPDX-License-Identifier: Apache-2.0
"""A pair as files for programs of others: exactly the frames and the audio that an evaluation compares with.

`Record` says beside a file what it was made of, so that it is made once.
"""

import json
import math
import wave
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.files.disk import atomic_path, sha256, write_atomic
from lipsync_bench.datamodules.files.texts import read_json
from lipsync_bench.datamodules.media.audio import SAMPLE_RATE
from lipsync_bench.datamodules.media.container import open_media, video_stream
from lipsync_bench.datamodules.media.video import FPS, VideoWriter, probe, read_frames

LOSSLESS_CRF = 10  # some 45 dB and more: no eye sees a difference
_SAMPLES = round(SAMPLE_RATE / FPS)  # of a frame
_HDR_TRANSFERS, _WIDE_PRIMARIES = (16, 18), (9, 11, 12)  # libav's numbers of PQ, HLG; BT.2020 and P3

__all__ = ["LOSSLESS_CRF", "Record", "is_as_compared", "write_audio", "write_video"]


def is_as_compared(source: Path, frames: int) -> bool:
    """Whether any program that reads a video frame by frame sees the frames that an evaluation compares with: 25 a
    second, as many, upright, in usual colours.
    """
    info = probe(source)
    if info.frames != frames or info.rotation or not math.isclose(info.fps, FPS, rel_tol=1e-6):
        return False
    with open_media(source) as container:
        stream = video_stream(container)
        context = None if stream is None else stream.codec_context
        return (
            context is not None
            and context.color_trc not in _HDR_TRANSFERS
            and context.color_primaries not in _WIDE_PRIMARIES
        )


def write_video(source: Path, frames: int, path: Path) -> None:
    """Write the frames of a source that are compared as an mp4 of 25 frames a second, visually lossless.

    Raises:
        MediaError: The source cannot be read, or is shorter.
    """
    images = islice(read_frames(source, FPS), frames)
    first = next(images, None)
    if first is None:
        raise MediaError(f"{source}: no frames. Expected {frames} at 25 fps. Run: bench prepare again")
    height, width = first.shape[:2]
    with VideoWriter(path, FPS, (height, width), crf=LOSSLESS_CRF) as writer:
        writer.write(first)
        count = 1
        for image in images:
            writer.write(image)
            count += 1
        if count < frames:
            raise MediaError(
                f"{source}: {count} frames at 25 fps. Expected {frames}, as when it was prepared. The video has "
                "changed: bench prepare again"
            )


def write_audio(clip: Path, frames: int, path: Path) -> None:
    """Write the audio of a clip, 16 kHz mono, cut to the length of that many frames, or silent at its end."""
    with Clip(clip, read="file") as opened:
        samples = opened.wav()[: frames * _SAMPLES]
    samples = np.pad(samples, (0, frames * _SAMPLES - len(samples)))
    with atomic_path(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.astype("<i2").tobytes())


@dataclass(frozen=True)
class Record:
    """What a file was made of, and facts about it, in a JSON file.

    Args:
        path: The JSON file.
        files: The files that it is about.
    """

    path: Path
    files: tuple[Path, ...]

    def read(self, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
        """The facts; None if the files are not there, not those that were made, or were made of other inputs."""
        with suppress(OSError, ValueError, KeyError, AttributeError):
            content = read_json(self.path, "a record", "Remove it")
            if content["inputs"] == inputs and content["sha256"] == self._sha256():
                facts: dict[str, Any] = {**content["facts"], "sha256": content["sha256"]}
                return facts
        return None

    def write(self, inputs: Mapping[str, Any], **facts: Any) -> None:
        """Write it; inputs and facts are plain values."""
        content = {"inputs": inputs, "facts": facts, "sha256": self._sha256()}
        write_atomic(self.path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def remove(self) -> None:
        """Remove it and its files."""
        for path in (self.path, *self.files):
            path.unlink(missing_ok=True)

    def _sha256(self) -> list[str]:
        return [sha256(path) for path in self.files]
