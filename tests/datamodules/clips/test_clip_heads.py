# SPDX-License-Identifier: Apache-2.0
"""Heads of clips that were changed by hand or by chance: a ClipError that names the file, and no memory taken."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lipsync_bench.datamodules.clips.clip import Clip, ClipHeader, read_header, write_clip
from lipsync_bench.datamodules.errors import ClipError
from lipsync_bench.datamodules.limits import MAX_CROP_PX

Head = dict[str, Any]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    header = ClipHeader("s/1", "s", "a.mp4", "00", 25.0, 64, 64, "mediapipe", "1", "mesh", 4, 4)
    jpeg = cv2.imencode(".jpg", np.full((32, 32, 3), 90, np.uint8))[1].tobytes()
    write_clip(
        tmp_path / "c.safetensors",
        header,
        jpegs=[jpeg] * 4,
        mel=np.zeros((20, 80), np.float32),
        wav=np.zeros(2560, np.int16),
        boxes=np.zeros((4, 4), np.float32),
        landmarks=np.zeros((4, 68, 2), np.float32),
        mesh=np.zeros((4, 478, 3), np.float32),
    )
    return tmp_path / "c.safetensors"


def parts(path: Path) -> tuple[Head, bytes]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write(path: Path, head: bytes, body: bytes) -> None:
    path.write_bytes(struct.pack("<Q", len(head)) + head + body)


def read_all(path: Path) -> None:
    read_header(path)
    with Clip(path) as clip:
        for part in (clip.wav, clip.mel, clip.boxes, clip.mesh, clip.landmarks, clip.frames):
            part()


def tensor(name: str, key: str, value: object) -> Callable[[Head], None]:
    return lambda head: head[name].update({key: value})


def field(name: str, value: object) -> Callable[[Head], None]:
    def change(head: Head) -> None:
        fields = json.loads(head["__metadata__"]["clip"])
        head["__metadata__"]["clip"] = json.dumps({**fields, name: value})

    return change


CHANGES = {
    "shape text": tensor("wav", "shape", "x"),
    "shape of texts": tensor("mesh", "shape", [4, 478, "3"]),
    "shape of mappings": tensor("landmarks", "shape", [4, 68, {}]),
    "shape negative": tensor("wav", "shape", [-1]),
    "shape huge": tensor("wav", "shape", [2**62]),
    "shape bool": tensor("wav", "shape", [True]),
    "shape float": tensor("wav", "shape", [2560.0]),
    "shape none": tensor("wav", "shape", []),
    "shape smaller": tensor("wav", "shape", [100]),
    "mel of another width": tensor("mel", "shape", [40, 40]),
    "boxes of another width": tensor("boxes", "shape", [4, 2, 2]),
    "no offsets": tensor("mel", "data_offsets", []),
    "offsets text": tensor("mel", "data_offsets", ["0", "6400"]),
    "offsets backwards": tensor("mel", "data_offsets", [6400, 0]),
    "offsets beyond": tensor("mel", "data_offsets", [0, 2**60]),
    "dtype list": tensor("mel", "dtype", ["F32"]),
    "dtype unknown": tensor("mel", "dtype", "F8"),
    "tensor a list": lambda head: head.update(mel=[1]),
    "no metadata": lambda head: head.pop("__metadata__"),
    "metadata text": lambda head: head.update(__metadata__="x"),
    "frames text": field("frames", "4"),
    "frames none": field("frames", 0),
    "frames other": field("frames", 5),
    "frames bool": field("frames", True),
    "frames huge": field("frames", 2**70),
    "detected more": field("detected", 9),
    "fps infinite": field("source_fps", float("inf")),
    "fps not a number": field("source_fps", float("nan")),
    "source no text": field("source", 3),
    "source climbs out": field("source", "../../x"),
    "id of control characters": field("id", "s/\x1b[2J"),
    "unknown field": field("unknown", 1),
    "schema list": field("schema", [1]),
    "settings list": field("settings", []),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_head_is_a_clip_error_that_names_the_file(good: Path, name: str) -> None:
    read_all(good)
    head, body = parts(good)
    CHANGES[name](head)
    write(good, json.dumps(head).encode(), body)
    with pytest.raises(ClipError, match=r"c\.safetensors"):
        read_all(good)


def test_tensors_that_share_bytes_are_refused(good: Path) -> None:
    head, body = parts(good)
    head["boxes"]["data_offsets"] = [head["mel"]["data_offsets"][0], head["mel"]["data_offsets"][0] + 64]
    write(good, json.dumps(head).encode(), body)
    with pytest.raises(ClipError, match=r"c\.safetensors.*overlaps"):
        read_all(good)


@pytest.mark.parametrize("head", [b"[" * 200_000, b'{"a":' * 20_000, b"\xff\xfe", b"[]", b"null", b""])
def test_a_head_of_something_else_is_refused(good: Path, head: bytes) -> None:
    write(good, head, parts(good)[1])
    with pytest.raises(ClipError, match=r"c\.safetensors"):
        read_all(good)


@pytest.mark.parametrize("offsets", [[0, 9, 5, 20, 30], [-9, 0, 5, 9, 20], [0, 5, 9, 20, 2**40], [0, 0, 0, 0, 0]])
def test_crops_outside_the_file_are_refused(good: Path, offsets: list[int]) -> None:
    head, body = parts(good)
    start = head["offsets"]["data_offsets"][0]
    body = body[:start] + np.array(offsets, np.int64).tobytes() + body[start + 40 :]
    write(good, json.dumps(head).encode(), body)
    with pytest.raises(ClipError, match=r"c\.safetensors"):
        read_all(good)


def test_a_crop_that_states_a_huge_size_takes_no_memory(good: Path) -> None:
    head, body = parts(good)
    at = body.index(b"\xff\xc0") + 5  # start of frame: height and width
    write(good, json.dumps(head).encode(), body[:at] + struct.pack(">HH", MAX_CROP_PX + 1, 65000) + body[at + 4 :])
    with pytest.raises(ClipError, match=rf"frame 0 cannot be decoded \(a side of more than {MAX_CROP_PX}"):
        read_all(good)


def test_a_pipe_or_folder_of_that_name_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(ClipError, match=rf"{name}\.safetensors: is not a file"):
            read_header(tmp_path / f"{name}.safetensors")
