# SPDX-License-Identifier: Apache-2.0
"""Writing videos: H.264 files with audio, complete or absent."""

import math
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from lipsync_bench.datamodules.cores import usable_cores
from lipsync_bench.datamodules.files.disk import remove_leftovers, temporary_path
from lipsync_bench.datamodules.media.audio import SAMPLE_RATE
from lipsync_bench.datamodules.media.colour import EXACT
from lipsync_bench.datamodules.media.original_audio import OriginalAudio

FPS = 25.0
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")

_BT709, _LIMITED = 1, 1  # libav's numbers for the colour matrix, primaries and transfer, and for 16..235
_MAX_THREADS = 8  # of the encoder
_MACROBLOCK = 16  # pixels a side
_AAC_BITS_PER_SECOND = 96_000  # a channel
_AAC_BITS_PER_SAMPLE = 6  # the most that AAC allows
_AAC_SAMPLES = 1024

__all__ = ["FPS", "PRESETS", "VideoWriter", "exact_rate"]


def exact_rate(fps: float) -> Fraction:
    """A rate as the simplest fraction: 29.97 is 2997/100, 30000 / 1001 stays 30000/1001."""
    if not 0 < fps < math.inf:
        raise ValueError(f"fps is {fps}. Expected a positive number of frames a second. Use {FPS:g}.")
    return Fraction(fps).limit_denominator(1001)


def _as_original_audio(audio: "np.ndarray | OriginalAudio | None") -> OriginalAudio | None:
    if audio is None or isinstance(audio, OriginalAudio):
        return audio
    if audio.ndim != 1 or audio.dtype.kind != "f" or not np.isfinite(audio).all():
        raise ValueError(
            f"audio is {audio.dtype} of shape {audio.shape}. Expected finite floats of shape (S,) at 16 kHz. Use "
            "lipsync_bench.datamodules.media.audio.load_audio or to_float."
        )
    starts = range(0, len(audio), _AAC_SAMPLES)
    return OriginalAudio(SAMPLE_RATE, 1, (audio[None, i : i + _AAC_SAMPLES].astype(np.float32) for i in starts))


class VideoWriter:
    """Write frames and audio as an mp4 of H.264 and AAC, under a temporary name until it is complete.

        with VideoWriter(path, 25.0, (height, width), audio=samples) as writer:
            for frame in frames:
                writer.write(frame)

    Even sizes are stored as yuv420p, which every player supports; a frame with an odd side is stored as yuv444p, so
    that it keeps its size (browsers may refuse it). Colours are BT.709, limited range, and tagged so. Audio is written
    in pieces along with the frames; if it is longer than the video, the rest follows at the end. Memory does not depend
    on the length. An exception inside the block leaves no file, and an older file of this name unchanged; temporary
    files of a killed process are removed when the same file is written again.

    Args:
        path: the mp4 file; its folder is created.
        fps: frames a second; stored as a fraction, exact for 25, 29.97 and 30000 / 1001.
        size_hw: height and width of every frame.
        audio: float32 (S,) mono at 16 kHz in [-1, 1], or an `OriginalAudio` of any rate that AAC supports; sample 0
            belongs to the start of frame 0.
        crf: x264's quality, 0 (lossless) to 51.
        preset: x264's speed.
        metadata: names and values stored in the container, any UTF-8 text.
        threads: of the encoder; by default one a core, but at most 8, because each holds several frames. The bytes
            written depend on the number of threads.

    Raises:
        ValueError: an argument, or a frame's shape or type, is not as described; or no frame was written.
    """

    def __init__(
        self,
        path: Path | str,
        fps: float,
        size_hw: tuple[int, int],
        *,
        audio: np.ndarray | OriginalAudio | None = None,
        crf: int = 18,
        preset: str = "medium",
        metadata: dict[str, str] | None = None,
        threads: int | None = None,
    ) -> None:
        self.path = Path(path)
        self._fps = exact_rate(fps)
        self._size_hw = size_hw
        self._audio = _as_original_audio(audio)
        self._options = {"crf": str(crf), "preset": preset}
        if any(side % _MACROBLOCK for side in size_hw):
            # x264's macroblock tree reads uninitialised memory beyond the frame: the same frames sometimes gave other
            # bytes (seen at 524 x 524 and 700 x 700).
            self._options["x264-params"] = "mbtree=0"
        self._metadata = metadata or {}
        self._threads = threads or min(_MAX_THREADS, usable_cores())
        self._temporary = temporary_path(self.path)
        self._reformatter = VideoReformatter()
        self._container: Any = None
        self._frames = self._samples = 0
        if min(size_hw) < 1:
            raise ValueError(f"size_hw is {size_hw}. Expected height and width of at least 1 pixel. Check the crop.")
        if not 0 <= crf <= 51:
            raise ValueError(f"crf is {crf}. Expected 0 (lossless) to 51. Use 18, which is visually lossless.")
        if preset not in PRESETS:
            raise ValueError(f"preset is {preset!r}. Expected one of {', '.join(PRESETS)}. Use 'medium'.")

    def __enter__(self) -> "VideoWriter":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        height, width = self._size_hw
        remove_leftovers(self.path.parent, of=self.path)
        # Without "use_metadata_tags" mp4 drops tags of unknown names; with "faststart" browsers play at once.
        try:
            self._container = av.open(
                f"file:{self._temporary}", "w", format="mp4", options={"movflags": "+faststart+use_metadata_tags"}
            )
            self._container.metadata.update(self._metadata)
            video = self._container.add_stream("libx264", rate=self._fps, options=self._options)
            video.width, video.height = width, height
            video.pix_fmt = "yuv444p" if height % 2 or width % 2 else "yuv420p"
            context = video.codec_context
            context.thread_count = self._threads
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.color_range = _LIMITED
            self._video, self._audio_stream = video, None
            if self._audio is not None:
                rate, channels = self._audio.rate, self._audio.channels
                bits = channels * min(_AAC_BITS_PER_SECOND, _AAC_BITS_PER_SAMPLE * rate)
                self._layout = "stereo" if channels == 2 else "mono"
                self._audio_stream = self._container.add_stream("aac", rate=rate, layout=self._layout, bit_rate=bits)
        except BaseException:
            self._abandon()
            raise
        return self

    def write(self, frame: np.ndarray) -> None:
        """Append one frame: uint8 RGB (H, W, 3) of the size given at the start."""
        if self._container is None:
            raise RuntimeError(f"{self.path}: not open. Expected write() inside `with VideoWriter(...)`. Add the with.")
        if frame.shape != (*self._size_hw, 3) or frame.dtype != np.uint8:
            raise ValueError(
                f"{self.path}: frame {self._frames} is {frame.dtype} {frame.shape}. Expected uint8 RGB "
                f"{(*self._size_hw, 3)}. Resize it or give that size to VideoWriter."
            )
        rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture = self._reformatter.reformat(
            rgb,
            format=self._video.pix_fmt,
            dst_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
            interpolation=EXACT,
        )
        picture.pts, picture.time_base = self._frames, 1 / self._fps
        self._container.mux(self._video.encode(picture))
        self._frames += 1
        self._write_audio(until_s=self._frames / self._fps)

    def _write_audio(self, until_s: Fraction | float) -> None:
        if self._audio_stream is None or self._audio is None:
            return
        rate = self._audio.rate
        while self._samples < until_s * rate:
            piece = next(self._audio.pieces, None)
            if piece is None:
                return
            if piece.shape[1] == 0:
                continue
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), format="fltp", layout=self._layout)
            frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), self._samples
            self._container.mux(self._audio_stream.encode(frame))
            self._samples += piece.shape[1]

    def _abandon(self) -> None:
        container, self._container = self._container, None
        try:
            if container is not None:
                container.close()
        except (av.error.FFmpegError, ValueError, OSError):
            pass  # the file is removed, and the first error is the one to report
        finally:
            self._temporary.unlink(missing_ok=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._abandon()
            return
        try:
            if self._frames == 0:
                raise ValueError(f"{self.path}: no frame was written. Expected at least one. Check the source video.")
            self._write_audio(until_s=math.inf)
            self._container.mux(self._video.encode(None))
            if self._audio_stream is not None:
                self._container.mux(self._audio_stream.encode(None))
            self._container.close()
            self._container = None
            self._temporary.replace(self.path)
        except BaseException:
            self._abandon()
            raise
