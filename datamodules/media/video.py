# SPDX-License-Identifier: Apache-2.0
"""Reading videos: upright RGB frames at the times they are shown. `video_writing` writes them."""

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

READING = 2  # raised when a change of this code gives other frames of the same file
# Cameras and containers that count in milliseconds place frames this far from the regular grid.
_JITTER_S = Fraction(1, 1000)
_SAME_RATE = 0.01  # relative: rates of a file are means
_MOST_FPS = 1000  # a higher stated rate is the unit of the timestamps

__all__ = ["FPS", "PRESETS", "READING", "VideoInfo", "VideoWriter", "probe", "read_frames"]


@dataclass(frozen=True)
class VideoInfo:
    """Facts that a video file states.

    Args:
        path: the file.
        width: pixels, upright (after the rotation).
        height: pixels, upright.
        fps: average frames a second; nan if not stated.
        frames: number of frames, None if not stated.
        rotation: degrees clockwise (0, 90, 180, 270) by which stored frames are turned to be upright.
        has_audio: whether there is an audio track.
        nominal_fps: the rate in which timestamps are counted, the same in every container; nan if not stated.
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
    """The video track to read. Raises MediaError if there is none that can be used."""
    stream, names = video_stream(container), container.format.name.split(",")
    found = ""
    if stream is None:
        found = "audio but no video track" if container.streams.audio else "neither video nor audio"
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
            f"{path}: frames of {context.width}x{context.height}. Expected at most {MAX_PIXELS / 1e6:.0f} million "
            "pixels a frame. Make it smaller with: ffmpeg -i INPUT -vf scale=1920:-2 OUTPUT.mp4"
        )
    # The frames may be larger than the header says.
    context.options = {**context.options, "max_pixels": str(MAX_PIXELS)}
    if context.name == "h264":
        context.thread_count = 1  # with several, libav neither conceals nor reports damage
    return stream


def _matrix(frame: Any) -> tuple[int, int, int, int]:
    """The rotation (a, b, c, d) of the display matrix: x' = a x + c y, y' = b x + d y, with y down."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 1, 0, 0, 1
    m = np.frombuffer(data, np.int32)
    return int(m[0]), int(m[1]), int(m[3]), int(m[4])


class _Upright:
    """Converts decoded frames of one stream to upright uint8 RGB (H, W, 3), turned and mirrored by the display matrix.

    The display matrix is read at the first frame and where the rotation changes. Reading a frame's side data creates a
    reference cycle, which keeps the frame's memory, 3 MB at 1080p, until Python's garbage collector runs.
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
    found = f"no frame can be decoded ({errors[0].__class__.__name__})" if errors else "the video track has no frames"
    return MediaError(
        f"{path}: {found}. Expected a video of at most {MAX_PIXELS / 1e6:.0f} million pixels a frame. {REPAIR}"
    )


def _timed(container: Any, stream: Any, path: Path, damage: Damage) -> Iterator[tuple[Fraction, Fraction, Any]]:
    """Decoded frames with the times, in seconds from time 0, at which each starts and ends."""
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
                f"{path}: the frame size changes from {size[0]}x{size[1]} to {frame.width}x{frame.height} after "
                f"{float(end or 0):.2f} s. Expected one size. {REPAIR}"
            )
        previous_end = end or Fraction(0)
        stamp = frame.dts if by_decoding else frame.pts
        at = stamp * frame.time_base - zero if stamp is not None else previous_end
        if by_decoding and stamp is not None:
            delay = (stamp - (stream.start_time or 0)) * frame.time_base if delay is None else delay
            at -= delay
        at = at if start is None else max(at, start)  # timestamps of broken files may decrease
        if at - previous_end > MAX_GAP_S:
            raise MediaError(
                f"{path}: no frame for {float(at - previous_end):.0f} s from {float(previous_end):.2f} s on. Expected "
                f"holes of at most {MAX_GAP_S:.0f} s. {REPAIR}"
            )
        start, end = at, at + (frame.duration * frame.time_base if frame.duration and not by_decoding else usual)
        first = start if first is None else first
        yield start, end, frame
    if first is None or end is None:
        raise _no_frame(path, errors)
    check_end(path, "video", float(end - first), stated, max(float(usual), inexact_s(container)), errors, damage)


def _slack(container: Any, stream: Any, rate: Fraction | None) -> Fraction:
    """How late a source frame may be and still be used for an instant, in seconds."""
    own, unit = track_fps(container, stream), Fraction(stream.time_base or 0)
    if rate is not None and own and abs(own / rate - 1) < _SAME_RATE:
        return Fraction(1, 2) / rate  # each at the nearest instant, so that jitter neither drops nor repeats a frame
    nominal = Fraction(stream.guessed_rate or 0) * unit
    exact = nominal and (1 / nominal).denominator == 1  # AVI counts in frames or half frames, without rounding
    return _JITTER_S + (0 if exact else unit / 2)


def read_frames(path: Path | str, fps: float | None = FPS, damage: Damage | None = None) -> Iterator[np.ndarray]:
    """Frames of the video track (the default one, else libav's best), turned upright as the display matrix says.

    With `fps`, output frame k is the source frame that is on screen at k / fps seconds, so that frame k and sample
    16000 k / fps of `audio.load_audio` belong together whatever the file's own rate, constant or not. Time 0 is
    `track_times.time_zero`: the first frame, unless the video starts so much later than its audio that no encoder's
    delay explains it; then the first frame is shown from the start of the audio on. Frames are held across holes. A
    source frame up to 1 ms late is still used, because many files round their timestamps; if the file's rate is `fps`
    itself, each frame is used at the nearest instant.

    Pixels are taken as square and frames as progressive; colours are converted to SDR by the file's tags (see
    `colour`). Differs: the published pipelines read with OpenCV, whose fast conversion is about one level darker, and
    which ignores the tags.

    Args:
        path: any container and codec that PyAV reads.
        fps: output frames a second; None gives every source frame once.
        damage: counts what the decoder concealed or could not read; without it a warning is logged.

    Yields:
        uint8 RGB (H, W, 3); each array is a new one.

    Raises:
        FileNotFoundError: there is no such file.
        MediaError: not a media file, no video in it, a single image, more than 36 million pixels, colours that cannot
            be converted, a change of size, or an end too long before the stated one (a frame or 2 %, at most 0.5 s). A
            file that is cut off yields the frames that decode, then raises.
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
    finally:  # also if the caller does not read to the end
        if damage is None:
            found.warn(path)


def probe(path: Path | str) -> VideoInfo:
    """Size, rate and length of a video; decodes only one frame.

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
