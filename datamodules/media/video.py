# SPDX-License-Identifier: Apache-2.0
"""Videos in: upright RGB frames at the times they are shown. `video_writing` is the way out."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.media.audio_track import MAX_GAP_S
from lipsync_bench.datamodules.media.colour import SdrFrames
from lipsync_bench.datamodules.media.container import MAX_PIXELS, audio_stream, open_media, video_stream
from lipsync_bench.datamodules.media.damage import REPAIR, Damage, check_end, until_error
from lipsync_bench.datamodules.media.track_times import decoding_times, inexact_s, stated_duration, time_zero, track_fps
from lipsync_bench.datamodules.media.video_writing import FPS, PRESETS, VideoWriter, exact_rate

READING = 2  # raised when the same file gives other frames than before
# Cameras and containers that count in milliseconds put frames this much beside the regular grid.
_JITTER_S = Fraction(1, 1000)
_SAME_RATE = 0.01  # rates of a file are means
_MOST_FPS = 1000  # what a file states above that is the unit of its timestamps

__all__ = ["FPS", "PRESETS", "READING", "VideoInfo", "VideoWriter", "probe", "read_frames"]


@dataclass(frozen=True)
class VideoInfo:
    """What a video file says about itself.

    Args:
        path: the file.
        width: pixels, upright (after the rotation).
        height: pixels, upright.
        fps: average frames a second; nan where the file does not say.
        frames: number of frames, None where the container does not say.
        rotation: degrees clockwise (0, 90, 180, 270) by which the stored picture is turned to be upright.
        has_audio: whether there is a sound track.
        nominal_fps: what its timestamps count in, the same in every container; nan where the file does not say.
    """

    path: Path
    width: int
    height: int
    fps: float
    frames: int | None
    rotation: int
    has_audio: bool
    nominal_fps: float = field(default=math.nan, compare=False)


def _checked_video(container: Any, path: Path) -> Any:
    """The video track that is meant. Raises MediaError where there is none that can be used."""
    stream, names = video_stream(container), container.format.name.split(",")
    found = ""
    if stream is None:
        found = "sound but no video track" if container.streams.audio else "neither video nor sound"
    elif names[0].endswith("_pipe") or "image2" in names:
        found = "a single image"
    elif "tty" in names:  # libav draws any text file as a terminal
        found = "a text file"
    elif stream.codec_context is None:
        found = "a video track of an unknown codec"
    if found:
        raise MediaError(f"{path}: holds {found}. Expected a video, such as mp4, mkv or avi. Choose another file.")
    assert stream is not None
    context = stream.codec_context
    if context.width * context.height > MAX_PIXELS:
        raise MediaError(
            f"{path}: pictures of {context.width}x{context.height}. Expected at most {MAX_PIXELS / 1e6:.0f} million "
            "pixels a frame. Make it smaller with: ffmpeg -i INPUT -vf scale=1920:-2 OUTPUT.mp4"
        )
    # The frames may be larger than the header says.
    context.options = {**context.options, "max_pixels": str(MAX_PIXELS)}
    if context.name == "h264":
        context.thread_count = 1  # with several, libav neither conceals nor reports what is damaged
    return stream


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


def _no_frame(path: Path, errors: list[Exception]) -> MediaError:
    found = f"no frame can be decoded ({errors[0].__class__.__name__})" if errors else "the video track holds no frames"
    return MediaError(
        f"{path}: {found}. Expected a whole video, of at most {MAX_PIXELS / 1e6:.0f} million pixels a frame. {REPAIR}"
    )


def _timed(container: Any, stream: Any, path: Path, damage: Damage) -> Iterator[tuple[Fraction, Fraction, Any]]:
    """Decoded frames with the times, in seconds from time 0, at which each appears and would be over."""
    zero, stated = time_zero(container), stated_duration(container, stream, path)
    usual = 1 / (track_fps(container, stream) or Fraction(25))
    by_decoding = decoding_times(container)
    errors: list[Exception] = []
    first = start = end = delay = None
    size = None
    for frame in until_error(container.decode(stream), errors, damage):
        size = size or (frame.width, frame.height)
        if (frame.width, frame.height) != size:
            raise MediaError(
                f"{path}: the picture changes from {size[0]}x{size[1]} to {frame.width}x{frame.height} after "
                f"{float(end or 0):.2f} s. Expected one size. {REPAIR}"
            )
        over = end or Fraction(0)  # the frame before this one
        stamp = frame.dts if by_decoding else frame.pts
        at = stamp * frame.time_base - zero if stamp is not None else over
        if by_decoding and stamp is not None:
            delay = (stamp - (stream.start_time or 0)) * frame.time_base if delay is None else delay
            at -= delay
        at = at if start is None else max(at, start)  # broken files go back in time
        if at - over > MAX_GAP_S:
            raise MediaError(
                f"{path}: no picture for {float(at - over):.0f} s from {float(over):.2f} s on. Expected holes "
                f"of at most {MAX_GAP_S:.0f} s. {REPAIR}"
            )
        start, end = at, at + (frame.duration * frame.time_base if frame.duration and not by_decoding else usual)
        first = start if first is None else first
        yield start, end, frame
    if first is None or end is None:
        raise _no_frame(path, errors)
    check_end(path, "video", float(end - first), stated, max(float(usual), inexact_s(container)), errors, damage)


def _slack(container: Any, stream: Any, rate: Fraction | None) -> Fraction:
    """How late a source frame may be and still count, in seconds."""
    own, unit = track_fps(container, stream), Fraction(stream.time_base or 0)
    if rate is not None and own and abs(own / rate - 1) < _SAME_RATE:
        return Fraction(1, 2) / rate  # each at the nearest instant: none is lost, and none shown twice, for jitter
    nominal = Fraction(stream.guessed_rate or 0) * unit
    exact = nominal and (1 / nominal).denominator == 1  # AVI counts in frames or halves of them: nothing is rounded
    return _JITTER_S + (0 if exact else unit / 2)


def read_frames(path: Path | str, fps: float | None = FPS, damage: Damage | None = None) -> Iterator[np.ndarray]:
    """Frames of the video track (the default one, else libav's best), turned upright as the display matrix says.

    With `fps`, output frame k is the source frame that is on screen at k / fps seconds, so that frames k and sound
    samples from `audio.load_audio` at 16000 k / fps belong together whatever the file's own rate, constant or not. Time
    0 is `track_times.time_zero`: the first frame, unless the video starts so much later than its sound that no
    encoder's delay explains it; then its first frame is shown from the sound's start on. Frames are held across holes.
    A source frame up to 1 ms late still counts, because many files round their timestamps; where the file's rate is
    `fps` itself, each is shown at the nearest instant.

    Pixels are taken as square and frames as progressive; colours are those that the file's tags mean, as SDR (see
    `colour`). Differs: the published pipelines read with OpenCV, whose fast conversion comes out about one level
    darker, and which ignores the tags.

    Args:
        path: any container and codec that PyAV reads.
        fps: output frames a second; None gives every source frame once.
        damage: counts what the decoder concealed or could not read; without it a warning is logged.

    Yields:
        uint8 RGB (H, W, 3); every array is its own.

    Raises:
        FileNotFoundError: there is no such file.
        MediaError: not a media file, no video in it, a single image, more than 36 million pixels, colours that cannot
            be converted, a change of size, or an end too long before the one the file states (a frame or 2 %, at most
            0.5 s). A file that is cut off yields what decodes, then raises.
    """
    path = Path(path)
    rate = None if fps is None else exact_rate(fps)
    found = Damage() if damage is None else damage
    try:
        with open_media(path) as container:
            stream = _checked_video(container, path)
            to_rgb = _Upright(path, stream.codec_context.codec.canonical_name)
            slack = _slack(container, stream, rate)
            shown, end, count = None, Fraction(0), 0
            for start, until, frame in _timed(container, stream, path, found):
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
    finally:  # also where nobody asks for the rest
        if damage is None:
            found.warn(path)


def probe(path: Path | str) -> VideoInfo:
    """Size, rate and length of a video without reading it through; decodes one frame.

    Raises:
        FileNotFoundError, MediaError: as `read_frames`.
    """
    path = Path(path)
    with open_media(path) as container:
        stream = _checked_video(container, path)
        errors: list[Exception] = []
        frame = next(until_error(container.decode(stream), errors), None)
        if frame is None:
            raise _no_frame(path, errors)
        a, b, _, _ = _matrix(frame)
        turned = abs(b) > abs(a)
        rate = float(track_fps(container, stream) or math.nan)
        rate = rate if rate <= _MOST_FPS else math.nan
        return VideoInfo(
            path=path,
            width=frame.height if turned else frame.width,
            height=frame.width if turned else frame.height,
            fps=rate,
            frames=stream.frames or None,
            rotation=round(math.degrees(math.atan2(b, a)) / 90) * 90 % 360,
            has_audio=audio_stream(container) is not None,
            nominal_fps=float(stream.guessed_rate or math.nan),
        )
