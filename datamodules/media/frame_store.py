# SPDX-License-Identifier: Apache-2.0
"""Frames that are made once and read several times, on the disk, bit for bit."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np

from lipsync_bench.datamodules.files.disk import temporary_path

_ENCODER = "libx264rgb"  # without loss as quick as writing the frames themselves, in a twentieth of the space
_READ_BACK = 16  # frames that are decoded before the first of them is read backwards
_OPTIONS = {"qp": "0", "preset": "ultrafast", "g": str(_READ_BACK), "bf": "0"}

__all__ = ["FrameStore"]


class FrameStore:
    """Frames of a video that is being made, for readers that need it more than once. Memory does not grow with them.

    Args:
        path: Names the temporary file beside it; `remove_leftovers` finds that of a killed process.
    """

    def __init__(self, path: Path) -> None:
        self._path = temporary_path(path)
        self._container: Any = None
        self._stream: Any = None

    def add(self, frame: np.ndarray) -> None:
        """Append a frame, uint8 RGB (H, W, 3); all have one size."""
        if self._stream is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(f"file:{self._path}", "w", format="matroska")
            self._stream = self._container.add_stream(_ENCODER, rate=25, options=_OPTIONS)
            self._stream.height, self._stream.width = frame.shape[:2]
            self._stream.pix_fmt = "rgb24"
            self._stream.codec_context.thread_count = 1  # each holds frames
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        self._container.mux(self._stream.encode(picture))

    def read(self) -> Iterator[np.ndarray]:
        """All frames, from the first one on. None can be added any more."""
        self._end()
        with av.open(f"file:{self._path}") as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")

    def read_back(self) -> Iterator[np.ndarray]:
        """All frames, from the last one on; holds 16 at a time."""
        self._end()
        with av.open(f"file:{self._path}") as container:
            stream = container.streams.video[0]
            starts = [packet.pts for packet in container.demux(stream) if packet.pts is not None]
            for first in range((len(starts) - 1) // _READ_BACK * _READ_BACK, -1, -_READ_BACK):
                container.seek(starts[first], stream=stream)
                wanted = starts[first : first + _READ_BACK]
                group = (frame for frame in container.decode(stream) if frame.pts >= wanted[0])
                for frame in reversed(list(islice(group, len(wanted)))):
                    yield frame.to_ndarray(format="rgb24")

    def _end(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            container.mux(self._stream.encode(None))
            container.close()

    def close(self) -> None:
        """Remove the file."""
        container, self._container = self._container, None
        with suppress(OSError, ValueError):  # of a full disk, say: the error that came first is the one to report
            if container is not None:
                container.close()
        self._path.unlink(missing_ok=True)
