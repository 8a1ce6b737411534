# SPDX-License-Identifier: Apache-2.0
"""Boxes of further detectors beside a clip: what is written is read, and never taken for another clip's."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from lipsync_bench.datamodules.clips.boxes import (
    Boxes,
    BoxesHeader,
    boxes_path,
    clip_geometry,
    in_clip,
    write_boxes,
)
from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.errors import ClipError
from tests.datamodules.prepared_folders import write_random

BOXES = np.array([[-3.5, 0, 70.25, 90]] * 20, np.float32)
SEEN = np.arange(20) % 3 > 0


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    return Clip(write_random(tmp_path, "anna/a.b"))


@pytest.fixture
def header(clip: Clip) -> BoxesHeader:
    return BoxesHeader.of(clip.header, "s3fd", "s3fd, weights sha256 0")


def test_boxes_come_back_as_they_were(clip: Clip, header: BoxesHeader) -> None:
    path = boxes_path(clip.path, "s3fd")
    assert path.name == "a.b.s3fd.boxes"
    write_boxes(path, header, BOXES, SEEN)
    with Boxes(path) as file:
        assert file.header == header
        np.testing.assert_array_equal(file.boxes(), BOXES)
        np.testing.assert_array_equal(file.seen(), SEEN)
    geometry = clip_geometry(clip)
    assert set(geometry.boxes) == {"s3fd"}
    np.testing.assert_array_equal(geometry.boxes_of("s3fd"), BOXES)


@pytest.mark.parametrize("field", ["id", "source_sha256", "clip_settings", "clip_detector_version", "frames"])
def test_boxes_of_another_clip_are_not_this_one_s(clip: Clip, header: BoxesHeader, field: str) -> None:
    assert header.belongs_to(clip.header)
    other = dataclasses.replace(header, **{field: 19 if field == "frames" else "other"})
    assert not other.belongs_to(clip.header)
    write_boxes(boxes_path(clip.path, "s3fd"), other, BOXES[: other.frames], SEEN[: other.frames])
    assert not clip_geometry(clip).boxes


@pytest.mark.parametrize(
    ("boxes", "seen"),
    [(BOXES[:19], SEEN), (BOXES, SEEN[:19]), (BOXES, SEEN.astype(int)), (BOXES * np.nan, SEEN), (BOXES * 1e6, SEEN)],
)
def test_what_does_not_fit_is_not_written(clip: Clip, header: BoxesHeader, boxes: np.ndarray, seen: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"anna/a\.b: .*(expected|must not)"):
        write_boxes(boxes_path(clip.path, "s3fd"), header, boxes, seen)
    assert not boxes_path(clip.path, "s3fd").exists()


def test_broken_files_are_named(clip: Clip, header: BoxesHeader) -> None:
    path = boxes_path(clip.path, "s3fd")
    write_boxes(path, header, BOXES, SEEN)
    whole = path.read_bytes()
    path.rename(boxes_path(clip.path, "dlib"))
    with pytest.raises(ClipError, match=r"a\.b\.dlib\.boxes: the boxes of s3fd\. Expected .* Run: bench prepare"):
        clip_geometry(clip)
    boxes_path(clip.path, "dlib").unlink()
    for content in (whole[:-1], whole[:100], b"", whole.replace(b'"F32"', b'"I16"'), whole.replace(b"s3fd", b"none")):
        path.write_bytes(content)
        with pytest.raises(ClipError, match=r"a\.b\.s3fd\.boxes: .*Run: bench prepare"):
            clip_geometry(clip)
    path.write_bytes(whole[:-100] + b"\xff" * 80 + whole[-20:])  # not a number
    with pytest.raises(ClipError, match=r"a\.b\.s3fd\.boxes: boxes 0\.\.19 has values"):
        clip_geometry(clip)


@pytest.mark.parametrize("crop", ["mesh", "detector"])
@pytest.mark.parametrize("detector", ["mediapipe", "dlib", "s3fd"])
def test_which_boxes_the_clip_itself_has(clip: Clip, detector: str, crop: str) -> None:
    head = dataclasses.replace(clip.header, detector=detector, crop_rule=crop)
    clip._head = (head, clip._opened()[1])
    names = {name for name in ("mediapipe", "dlib", "s3fd") if in_clip(head, name)}
    assert names == set(clip.geometry().boxes)
