# SPDX-License-Identifier: Apache-2.0
"""Videos in and out: upright RGB frames at the times they are shown, and H.264 files with their sound."""

import contextlib
import fcntl
import math
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from datamodules.audio import SAMPLE_RATE
from datamodules.colour import EXACT, SdrFrames
from datamodules.errors import MediaError
from datamodules.media import (
    MAX_GAP_S,
    REPAIR,
    check_end,
    is_picture,
    open_media,
    stated_duration,
    time_zero,
    until_error,
)
from datamodules.sound import Sound

FPS = 25.0
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")

# Cameras and containers that count in milliseconds put frames this much beside the regular grid.
_JITTER_S = Fraction(1, 1000)
_BT709, _LIMITED = 1, 1  # libav's numbers for the colour matrix, primaries and transfer, and for 16..235
_MAX_THREADS = 8  # of the encoder
_MACROBLOCK = 16  # pixels a side
_AAC_BITS_PER_SECOND = 96_000  # a channel
_AAC_BITS_PER_SAMPLE = 6  # the most that AAC allows
_AAC_SAMPLES = 1024

__all__ = ["FPS", "VideoInfo", "VideoWriter", "probe", "read_frames"]


@dataclass(frozen=True)
class VideoInfo:
    """What a video file says about itself.

    Args:
        path: the file.
        width: pixels, upright (after the rotation).
        height: pixels, upright.
        fps: average frames a second; nan where the file does not say.
        frames: number of frames, None where the container does not say.
        duration_s: of the video stream; nan where the file does not say.
        rotation: degrees clockwise (0, 90, 180, 270) by which the stored picture is turned to be upright.
        has_audio: whether there is a sound track.
    """

    path: Path
    width: int
    height: int
    fps: float
    frames: int | None
    duration_s: float
    rotation: int
    has_audio: bool


def _video_stream(container: Any, path: Path) -> Any:
    streams = [stream for stream in container.streams.video if not is_picture(stream)]
    names = container.format.name.split(",")
    found = ""
    if not streams:
        found = "sound but no video track" if container.streams.audio else "neither video nor sound"
    elif names[0].endswith("_pipe") or "image2" in names:
        found = "a single image"
    elif "tty" in names:  # libav draws any text file as a terminal
        found = "a text file"
    if found:
        raise MediaError(f"{path}: holds {found}. Expected a video, such as mp4, mkv or avi. Choose another file.")
    return streams[0]


def _matrix(frame: Any) -> tuple[int, int, int, int]:
    """The turning part (a, b, c, d) of the display matrix: x' = a x + c y, y' = b x + d y, with y down."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 1, 0, 0, 1
    m = np.frombuffer(data, np.int32)
    return int(m[0]), int(m[1]), int(m[3]), int(m[4])


class _Upright:
    """Decoded frames of one stream as they are meant to be seen: uint8 RGB (H, W, 3), turned and mirrored.

    The display matrix is read at the first frame and where the rotation changes. Asking a frame for its side data makes
    a reference cycle, which keeps the frame's memory, 3 MB of 1080p, until Python's garbage collector comes by.
    """

    def __init__(self, path: Path, codec: str) -> None:
        self._to_sdr = SdrFrames(path, codec)
        self._rotation: int | None = None
        self._matrix = 1, 0, 0, 1

    def __call__(self, frame: Any) -> np.ndarray:
        if frame.rotation != self._rotation:
            self._rotation, self._matrix = frame.rotation, _matrix(frame)
        image = self._to_sdr(frame)
        a, b, c, d = self._matrix
        if abs(b) > abs(a):
            image, flip_x, flip_y = image.swapaxes(0, 1), c < 0, b < 0
        else:
            flip_x, flip_y = a < 0, d < 0
        return np.ascontiguousarray(image[:: -1 if flip_y else 1, :: -1 if flip_x else 1])


def _timed(container: Any, stream: Any, path: Path) -> Iterator[tuple[Fraction, Fraction, Any]]:
    """Decoded frames with the times, in seconds from time 0, at which each appears and would be over."""
    zero, stated = time_zero(container), stated_duration(container, stream, path)
    usual = 1 / Fraction(stream.average_rate or stream.guessed_rate or 25)
    errors: list[Exception] = []
    first = start = end = None
    size = None
    for frame in until_error(container.decode(stream), errors):
        size = size or (frame.width, frame.height)
        if (frame.width, frame.height) != size:
            raise MediaError(
                f"{path}: the picture changes from {size[0]}x{size[1]} to {frame.width}x{frame.height} after "
                f"{float(end or 0):.2f} s. Expected one size. {REPAIR}"
            )
        over = end or Fraction(0)  # the frame before this one
        at = frame.pts * frame.time_base - zero if frame.pts is not None else over
        at = at if start is None else max(at, start)  # broken files go back in time
        if at - over > MAX_GAP_S:
            raise MediaError(
                f"{path}: no picture for {float(at - over):.0f} s from {float(over):.2f} s on. Expected holes "
                f"of at most {MAX_GAP_S:.0f} s. {REPAIR}"
            )
        start, end = at, at + (frame.duration * frame.time_base if frame.duration else usual)
        first = start if first is None else first
        yield start, end, frame
    check_end(path, "video", float(end - first) if end is not None and first is not None else 0.0, stated, errors)
    if first is None:
        raise MediaError(f"{path}: the video track holds no frames. Expected at least one. {REPAIR}")


def _exact(fps: float) -> Fraction:
    """A rate as the fraction that was meant: 29.97 is 2997/100, 30000 / 1001 is itself."""
    if not 0 < fps < math.inf:
        raise ValueError(f"fps is {fps}. Expected a positive number of frames a second. Use {FPS:g}.")
    return Fraction(fps).limit_denominator(1001)


def read_frames(path: Path | str, fps: float | None = FPS) -> Iterator[np.ndarray]:
    """Frames of the first video track, one after the other, turned upright as the file's display matrix says.

    With `fps`, output frame k is the source frame that is on screen at k / fps seconds, so that frames k and sound
    samples from `audio.load_audio` at 16000 k / fps belong together whatever the file's own rate, constant or not. Time
    0 is the start of the earliest stream: if the video starts later than its sound, its first frame is shown from 0 on.
    Frames are held across holes. A source frame up to 1 ms late still counts, because many files round their
    timestamps.

    Pixels are taken as square and frames as progressive; colours are those that the file's tags mean, as SDR (see
    `colour`). Differs: the published pipelines read with OpenCV, whose fast conversion comes out about one level
    darker, and which ignores the tags.

    Args:
        path: any container and codec that PyAV reads.
        fps: output frames a second; None gives every source frame once.

    Yields:
        uint8 RGB (H, W, 3); every array is its own.

    Raises:
        FileNotFoundError: there is no such file.
        MediaError: not a media file, no video in it, a single image, colours that cannot be converted, a change of
            size, or an end that is more than 0.5 s before the one the file states. A file that is cut off yields what
            decodes, then raises.
    """
    path = Path(path)
    rate = None if fps is None else _exact(fps)
    with open_media(path) as container:
        stream = _video_stream(container, path)
        to_rgb = _Upright(path, stream.codec_context.codec.canonical_name)
        slack = _JITTER_S + (stream.time_base or 0) / 2
        shown, end, count = None, Fraction(0), 0
        for start, until, frame in _timed(container, stream, path):
            end = until
            if rate is None:
                yield to_rgb(frame)
                continue
            shown = shown or frame
            while count / rate < start - slack:
                yield to_rgb(shown)
                count += 1
            shown = frame
        while rate is not None and count / rate < end - slack:
            yield to_rgb(shown)
            count += 1


def probe(path: Path | str) -> VideoInfo:
    """Size, rate and length of a video without reading it through; decodes one frame.

    Raises:
        FileNotFoundError, MediaError: as `read_frames`.
    """
    path = Path(path)
    with open_media(path) as container:
        stream = _video_stream(container, path)
        frame = next(until_error(container.decode(stream), []), None)
        if frame is None:
            raise MediaError(f"{path}: its first frame cannot be decoded. Expected a whole video. {REPAIR}")
        a, b, _, _ = _matrix(frame)
        turned = abs(b) > abs(a)
        duration = stated_duration(container, stream, path)
        if duration is None and container.duration:
            duration = container.duration / av.time_base
        rate = float(stream.average_rate or stream.guessed_rate or math.nan)
        return VideoInfo(
            path=path,
            width=frame.height if turned else frame.width,
            height=frame.width if turned else frame.height,
            fps=rate,
            frames=stream.frames or None,
            duration_s=duration if duration is not None else math.nan,
            rotation=round(math.degrees(math.atan2(b, a)) / 90) * 90 % 360,
            has_audio=bool(container.streams.audio),
        )


def _as_sound(audio: "np.ndarray | Sound | None") -> Sound | None:
    if audio is None or isinstance(audio, Sound):
        return audio
    if audio.ndim != 1 or audio.dtype.kind != "f" or not np.isfinite(audio).all():
        raise ValueError(
            f"audio is {audio.dtype} of shape {audio.shape}. Expected finite floats of shape (S,) at 16 kHz. Use "
            "datamodules.audio.load_audio or to_float."
        )
    starts = range(0, len(audio), _AAC_SAMPLES)
    return Sound(SAMPLE_RATE, 1, (audio[None, i : i + _AAC_SAMPLES].astype(np.float32) for i in starts))


def _remove_abandoned(path: Path) -> None:
    """Remove temporary files for `path` that no process is writing: what `kill -9` left. A writer locks its own."""
    name = re.compile(rf"\.{re.escape(path.stem[:100])}\.[0-9a-f]{{32}}\.tmp\.mp4")
    for file in path.parent.iterdir():
        if name.fullmatch(file.name):
            with contextlib.suppress(OSError), file.open("rb") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.unlink()


class VideoWriter:
    """Write frames and their sound as an mp4 of H.264 and AAC, under a temporary name until it is whole.

        with VideoWriter(path, 25.0, (height, width), audio=wave) as writer:
            for frame in frames:
                writer.write(frame)

    Even sizes are stored as yuv420p, which every player shows; a frame with an odd side is stored as yuv444p, so that
    it keeps its size (browsers may refuse it). Colours are BT.709, limited range, and tagged so. Sound is written as
    far as the frames go, piece by piece, and what is longer than the video follows at the end: it is not cut. Memory
    does not depend on the length. An exception inside the block leaves no file, and an older file of this name
    untouched; what a killed process left is removed when the same file is written again.

    Args:
        path: the mp4 file; its folder is made.
        fps: frames a second; stored as a fraction, exact for 25, 29.97 and 30000 / 1001.
        size_hw: height and width of every frame.
        audio: float32 (S,) mono at 16 kHz in [-1, 1], or a `Sound` of any rate that AAC has; sample 0 belongs to the
            start of frame 0.
        crf: x264's quality, 0 (lossless) to 51.
        preset: x264's speed.
        metadata: names and values stored in the container, any UTF-8 text.
        threads: of the encoder; one a core without it, but at most 8, because each holds frames of its own. The bytes
            written depend on their number.

    Raises:
        ValueError: an argument, or a frame's shape or type, is not as described; or no frame was written.
    """

    def __init__(
        self,
        path: Path | str,
        fps: float,
        size_hw: tuple[int, int],
        *,
        audio: np.ndarray | Sound | None = None,
        crf: int = 18,
        preset: str = "medium",
        metadata: dict[str, str] | None = None,
        threads: int | None = None,
    ) -> None:
        self.path = Path(path)
        self._fps = _exact(fps)
        self._size_hw = size_hw
        self._audio = _as_sound(audio)
        self._options = {"crf": str(crf), "preset": preset}
        if any(side % _MACROBLOCK for side in size_hw):
            # x264's macroblock tree looks at what lies beyond the picture, which is whatever was in memory: the same
            # frames gave other bytes now and then (seen at 524 x 524 and 700 x 700).
            self._options["x264-params"] = "mbtree=0"
        self._metadata = metadata or {}
        self._threads = threads or min(_MAX_THREADS, len(os.sched_getaffinity(0)))
        self._temporary = self.path.with_name(f".{self.path.stem[:100]}.{uuid.uuid4().hex}.tmp.mp4")
        self._reformatter = VideoReformatter()
        self._container: Any = None
        self._lock = -1
        self._frames = self._samples = 0
        if min(size_hw) < 1:
            raise ValueError(f"size_hw is {size_hw}. Expected height and width of at least 1 pixel. Check the crop.")
        if not 0 <= crf <= 51:
            raise ValueError(f"crf is {crf}. Expected 0 (lossless) to 51. Use 18, which looks like its source.")
        if preset not in PRESETS:
            raise ValueError(f"preset is {preset!r}. Expected one of {', '.join(PRESETS)}. Use 'medium'.")

    def __enter__(self) -> "VideoWriter":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        height, width = self._size_hw
        _remove_abandoned(self.path)
        self._lock = os.open(self._temporary, os.O_CREAT | os.O_RDWR, 0o666)
        with contextlib.suppress(OSError):  # some network file systems have no locks; nothing can be removed there
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # mp4 drops tags with names of its own choice unless told otherwise; "faststart" lets browsers start at once.
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
            self._video, self._sound = video, None
            if self._audio is not None:
                rate, channels = self._audio.rate, self._audio.channels
                bits = channels * min(_AAC_BITS_PER_SECOND, _AAC_BITS_PER_SAMPLE * rate)
                self._layout = "stereo" if channels == 2 else "mono"
                self._sound = self._container.add_stream("aac", rate=rate, layout=self._layout, bit_rate=bits)
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
        self._write_sound(until_s=self._frames / self._fps)

    def _write_sound(self, until_s: Fraction | float) -> None:
        if self._sound is None or self._audio is None:
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
            self._container.mux(self._sound.encode(frame))
            self._samples += piece.shape[1]

    def _abandon(self) -> None:
        container, self._container = self._container, None
        try:
            if container is not None:
                container.close()
        except (av.error.FFmpegError, ValueError, OSError):
            pass  # the file is thrown away, and the first error is the one to report
        finally:
            self._temporary.unlink(missing_ok=True)
            self._unlock()

    def _unlock(self) -> None:
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._abandon()
            return
        try:
            if self._frames == 0:
                raise ValueError(f"{self.path}: no frame was written. Expected at least one. Check the source video.")
            self._write_sound(until_s=math.inf)
            self._container.mux(self._video.encode(None))
            if self._sound is not None:
                self._container.mux(self._sound.encode(None))
            self._container.close()
            self._container = None
            self._temporary.replace(self.path)
            self._unlock()
        except BaseException:
            self._abandon()
            raise
