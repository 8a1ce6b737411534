# SPDX-License-Identifier: Apache-2.0
"""What a file's colour tags say is undone, or the file is refused by the name of what it says."""

import logging
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.media.colour import SdrFrames
from lipsync_bench.datamodules.media.video import VideoWriter, read_frames
from tests.datamodules.wide_videos import BT2020, DISPLAY_P3, hlg, pq, sdr, write_wide


def portrait() -> np.ndarray:
    return cv2.resize(astronaut()[0:256, 96:352], (128, 128), interpolation=cv2.INTER_AREA)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


@pytest.mark.parametrize(
    ("encode", "tags", "primaries", "least_db"),
    [
        pytest.param(hlg, (9, 18, 9), BT2020, 37, id="HLG"),
        pytest.param(pq, (9, 16, 9), BT2020, 37, id="PQ"),
        pytest.param(hlg, (2, 18, 2), BT2020, 37, id="HLG, no other tag"),
        pytest.param(pq, (2, 16, 9), BT2020, 37, id="PQ, no primaries"),
        pytest.param(hlg, (1, 18, 1), np.eye(3), 37, id="HLG, BT.709 primaries"),
        pytest.param(hlg, (12, 18, 1), DISPLAY_P3, 37, id="HLG, Display P3"),
        pytest.param(sdr, (9, 14, 9), BT2020, 37, id="BT.2020, 10 bit"),
        pytest.param(sdr, (9, 1, 9), BT2020, 37, id="BT.2020, BT.709's transfer function"),
        pytest.param(sdr, (2, 2, 9), BT2020, 37, id="BT.2020, only the matrix"),
        pytest.param(sdr, (12, 1, 1), DISPLAY_P3, 37, id="Display P3"),
        pytest.param(sdr, (12, 13, 1), DISPLAY_P3, 37, id="Display P3, sRGB"),
        pytest.param(sdr, (1, 1, 1), np.eye(3), 37, id="BT.709, 10 bit"),
    ],
)
def test_the_same_frame_comes_out_as_from_sdr(
    tmp_path: Path, encode: Any, tags: tuple[int, int, int], primaries: np.ndarray, least_db: float
) -> None:
    image = portrait()
    (shown,) = read_frames(write_wide(tmp_path / "a.mkv", [image], encode, tags, primaries))
    assert psnr(shown, image) > least_db
    skin = (slice(30, 70), slice(45, 85))
    assert np.abs(shown[skin].astype(float).mean((0, 1)) - image[skin].mean((0, 1))).max() < 2


def test_hdr_of_phones_is_converted_and_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_wide(tmp_path / "phone.mp4", [portrait()] * 3, hlg, (9, 18, 9), codec="libx265")
    for _ in range(2):
        with caplog.at_level(logging.WARNING):
            assert all(psnr(frame, portrait()) > 35 for frame in read_frames(path))
    (record,) = [r for r in caplog.records if r.name == "lipsync_bench.datamodules.media.colour"]
    assert "phone.mp4: HDR video, transfer function HLG (ARIB STD-B67)" in record.getMessage()


def test_values_brighter_than_white_are_clipped(tmp_path: Path) -> None:
    ramp = np.repeat(np.arange(0, 256, 2, dtype=np.uint8)[None, :, None].repeat(64, 0), 3, axis=2)
    (shown,) = read_frames(write_wide(tmp_path / "a.mkv", [ramp], lambda light: hlg(light * 3), (9, 18, 9)))
    values = shown[32, :, 0].astype(int)
    assert (np.diff(values) >= 0).all()  # a wrapped value would fall
    assert (values[ramp[32, :, 0] > 255 / 3 ** (1 / 2.4) + 2] == 255).all()
    assert np.ptp(shown.astype(int), axis=2).max() <= 1


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        ((9, 14, 10), "matrix of its colours is BT.2020 constant luminance"),
        ((9, 16, 14), "matrix of its colours is ICtCp"),
        ((1, 1, 8), "matrix of its colours is YCgCo"),
        ((1, 8, 1), "transfer function of its colours is linear light"),
        ((1, 9, 1), r"transfer function of its colours is logarithmic \(100:1\)"),
        ((11, 1, 1), r"primaries of its colours is SMPTE RP 431-2 \(DCI-P3\)"),
    ],
)
def test_unsupported_colours_are_refused_by_name(tmp_path: Path, tags: tuple[int, int, int], name: str) -> None:
    path = write_wide(tmp_path / "strange.mkv", [portrait()], sdr, tags)
    with pytest.raises(MediaError, match=rf"strange\.mkv: the {name}\. Expected .*Convert it with: ffmpeg"):
        list(read_frames(path))


def _coded(path: Path, codec: str, pixels: str, values: np.ndarray, color_range: int | None) -> np.ndarray:
    """One frame of these stored values, losslessly, as it is read."""
    with av.open(str(path), "w") as container:
        lossless = {"libx264": {"qp": "0"}, "libx265": {"x265-params": "lossless=1:log-level=none"}}
        stream: Any = container.add_stream(codec, rate=25, options=lossless.get(codec.removesuffix("rgb"), {}))
        stream.height, stream.width = values.shape[:2]
        stream.pix_fmt = pixels
        if color_range is not None:
            stream.codec_context.color_range = color_range
        frame: Any = av.VideoFrame(values.shape[1], values.shape[0], pixels)
        for k, plane in enumerate(frame.planes):
            channel = values if values.ndim == 2 else values[..., (1, 2, 0)[k] if len(frame.planes) == 3 else slice(3)]
            rows = np.zeros((plane.height, plane.line_size // values.itemsize), values.dtype)
            flat = channel.reshape(plane.height, -1)
            rows[:, : flat.shape[1]] = flat
            plane.update(rows.tobytes())
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (image,) = read_frames(path)
    return image


@pytest.mark.parametrize(
    ("codec", "pixels", "color_range", "limited"),
    [
        ("libx264", "gray", None, True),
        ("libx264", "gray", 1, True),
        ("libx264", "gray", 2, False),
        ("libx264", "gray10le", 1, True),
        ("libx265", "gray", None, True),
        ("libx265", "gray10le", 1, True),
        ("libx265", "gray12le", 2, False),
        ("ffv1", "gray", 1, True),
        ("ffv1", "gray", None, False),
        ("png", "gray", None, False),
        ("libx264rgb", "rgb24", 1, True),
        ("libx264rgb", "rgb24", None, False),
        ("libx265", "gbrp10le", 1, True),
        ("libx265", "gbrp", 2, False),
    ],
)
def test_range_of_grey_and_rgb(tmp_path: Path, codec: str, pixels: str, color_range: int | None, limited: bool) -> None:
    bits = next((n for n in (10, 12) if str(n) in pixels), 8)
    black, white = (16 << bits - 8, 235 << bits - 8) if limited else (0, 2**bits - 1)
    wanted = np.linspace(0, 255, 64).round()[None].repeat(64, 0)
    values = np.rint(black + wanted / 255 * (white - black)).astype(np.uint8 if bits == 8 else np.uint16)
    if not pixels.startswith("gray"):
        values = np.repeat(values[..., None], 3, axis=2)
    suffix = ".mov" if codec == "png" else ".mkv"
    shown = _coded(tmp_path / f"a{suffix}", codec, pixels, values, color_range)
    assert shown.shape == (64, 64, 3)
    assert np.abs(shown - wanted[..., None]).max() <= 1


def test_hdr_in_monochrome(tmp_path: Path) -> None:
    wanted = np.linspace(0, 255, 64).round()[None].repeat(64, 0)
    frame: Any = av.VideoFrame(64, 64, "gray10le")
    rows = np.rint(64 + 876 * hlg((wanted / 255) ** 2.4)).astype("<u2")
    frame.planes[0].update(np.pad(rows, ((0, 0), (0, frame.planes[0].line_size // 2 - 64))).tobytes())
    frame.color_trc, frame.color_primaries, frame.color_range = 18, 9, 1
    assert np.abs(SdrFrames(tmp_path, "hevc")(frame) - wanted[..., None]).max() <= 3


def test_frames_converted_from_hdr_keep_their_colours_when_written(tmp_path: Path) -> None:
    image = portrait()
    frames = list(read_frames(write_wide(tmp_path / "a.mkv", [image] * 3, pq, (9, 16, 9))))
    with VideoWriter(tmp_path / "out.mp4", 25.0, image.shape[:2], crf=1) as writer:
        for frame in frames:
            writer.write(frame)
    with av.open(str(tmp_path / "out.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert [context.colorspace, context.color_primaries, context.color_trc] == [1, 1, 1]
    assert all(psnr(frame, image) > 32 for frame in read_frames(tmp_path / "out.mp4"))
