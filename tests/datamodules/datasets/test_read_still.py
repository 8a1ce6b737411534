# SPDX-License-Identifier: Apache-2.0
"""How the file of a still is read: formats, orientation, cut and size; and files that cannot be read."""

import os
import re
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lipsync_bench.datamodules.datasets.stills import read_still
from lipsync_bench.datamodules.errors import MediaError


def encoded(image: np.ndarray, suffix: str = ".png", parameters: tuple[int, ...] = ()) -> bytes:
    return cv2.imencode(suffix, image, parameters)[1].tobytes()


def picture(height: int, width: int) -> np.ndarray:
    """A smooth image in BGR, so that JPEG keeps it."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows % 256, columns % 256, np.full_like(rows, 90)], axis=-1).astype(np.uint8)


def test_a_still_is_rgb_cut_to_a_square_and_resized(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    image = np.random.default_rng(0).integers(0, 256, (60, 100, 3), np.uint8)
    path.write_bytes(encoded(image))
    middle = np.ascontiguousarray(image[:, 20:80, ::-1])
    for size, interpolation in ((60, None), (20, cv2.INTER_AREA), (90, cv2.INTER_LINEAR)):
        expected = middle if interpolation is None else cv2.resize(middle, (size, size), interpolation=interpolation)
        assert np.array_equal(read_still(path, size).permute(1, 2, 0).numpy(), expected)
    path.write_bytes(encoded(np.ascontiguousarray(image.transpose(1, 0, 2))))
    assert torch.equal(read_still(path, 60), torch.from_numpy(middle.transpose(2, 1, 0).copy()))


def test_unusual_images(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    plain = picture(16, 16)
    for image, expected in (
        (plain.astype(np.uint16) * 256 + 255, plain),
        (np.dstack([plain, np.zeros((16, 16), np.uint8)]), plain),
        (plain[..., 0], np.dstack([plain[..., 0]] * 3)),
    ):
        path.write_bytes(encoded(image))
        assert np.array_equal(read_still(path, 16).permute(1, 2, 0).numpy()[..., ::-1], expected)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    plain, turned = tmp_path / "plain.jpg", tmp_path / "turned.jpg"
    data = encoded(picture(64, 64), ".jpg")
    tag = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"  # 6: turn clockwise by 90 degrees
    plain.write_bytes(data)
    turned.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(tag) + 2) + tag + data[2:])
    assert torch.equal(read_still(turned, 64), read_still(plain, 64).rot90(-1, (1, 2)))


@pytest.mark.parametrize("suffix", [".png", ".jpg", "progressive.jpg", ".webp", ".bmp"])
def test_every_format_is_read_and_a_truncated_file_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"лицо{suffix}"
    image = picture(128, 128)
    data = encoded(image, path.suffix, (cv2.IMWRITE_JPEG_PROGRESSIVE, 1) if "progressive" in suffix else ())
    path.write_bytes(data)
    difference = read_still(path, 128).permute(1, 2, 0).numpy()[..., ::-1].astype(int) - image
    assert np.abs(difference).mean() < (3 if path.suffix in (".jpg", ".webp") else 1e-9)
    for share in (0.02, 0.5, 0.9, 0.99):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(MediaError, match=rf"^{re.escape(str(path))}: \d+ bytes that are cut short.*Copy it again"):
            read_still(path, 128)


def test_images_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    huge = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, 1 << 20, 1 << 20, 1, 24, 0, 0, 0, 0, 0, 0)
    wide = huge[:18] + struct.pack("<ii", 7000, 6000) + huge[26:]
    for content, message in (
        (b"", r"the file is empty \(0 bytes\)"),
        (b"<html>404</html>", "16 bytes .* or no image"),
        (huge, ".*Expected"),  # a head that promises more pixels than OpenCV takes
        (wide, "7000x6000 pixels"),  # fewer than that, but half a gigabyte
        (None, r"cannot be read \(No such file"),
    ):
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(MediaError, match=rf"{re.escape(str(path))}: {message}.*Copy it again"):
            read_still(path, 16)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(MediaError, match="is no file"):
        read_still(tmp_path / "a.png", 16)
