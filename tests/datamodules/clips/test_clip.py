# SPDX-License-Identifier: Apache-2.0
"""A clip file gives back what was written, piece by piece, whichever way it is read; a broken one says so."""

import dataclasses
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest
import simplejpeg
from safetensors import safe_open
from safetensors.numpy import save_file

from lipsync_bench.datamodules.clips.clip import Clip, ClipHeader, read_header, write_clip
from lipsync_bench.datamodules.errors import ClipError

READS: tuple[Literal["mmap", "file"], ...] = ("mmap", "file")
FRAMES = 7
COLUMNS = 23


def header(**changes: Any) -> ClipHeader:
    values: dict[str, Any] = {
        "id": "zoë/clip 1",
        "speaker": "zoë",
        "source": "main/zoë/clip 1.mp4",
        "source_sha256": "0" * 64,
        "source_fps": 29.97,
        "source_width": 640,
        "source_height": 480,
        "detector": "mediapipe",
        "detector_version": "mediapipe 0.10.21 face_mesh refine",
        "crop_rule": "mesh",
        "frames": FRAMES,
        "detected": FRAMES - 1,
    }
    return ClipHeader(**{**values, **changes})


def content(sizes: list[tuple[int, int]] | None = None) -> dict[str, Any]:
    random = np.random.default_rng(0)
    sizes = sizes or [(40 + k, 30) for k in range(FRAMES)]
    images = [cv2.resize(random.integers(0, 255, (6, 5, 3), np.uint8), (w, h)) for h, w in sizes]
    return {
        "jpegs": [simplejpeg.encode_jpeg(image, quality=95, colorspace="RGB") for image in images],
        "mel": random.uniform(-4, 4, (COLUMNS, 80)).astype(np.float32),
        "wav": random.integers(-32768, 32767, 4600, np.int16),
        "boxes": random.uniform(0, 400, (FRAMES, 4)).astype(np.float32),
        "landmarks": random.uniform(0, 1, (FRAMES, 68, 2)).astype(np.float32),
        "mesh": random.uniform(0, 1, (FRAMES, 478, 3)).astype(np.float32),
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "zoë" / "clip 1.safetensors"
    write_clip(path, header(), **content())
    return path


@pytest.mark.parametrize("read", READS)
def test_everything_comes_back(path: Path, read: Literal["mmap", "file"]) -> None:
    written = content()
    with Clip(path, read) as clip:
        assert clip.header == read_header(path) == header()
        assert len(clip) == FRAMES
        assert clip.mel_columns == COLUMNS
        assert clip.jpegs() == written["jpegs"]
        assert clip.jpegs(2, 3) == written["jpegs"][2:5]
        assert clip.jpegs(FRAMES, 0) == []
        np.testing.assert_array_equal(clip.mel(), written["mel"].T)
        np.testing.assert_array_equal(clip.mel_window(7), written["mel"][7:23].T)
        np.testing.assert_array_equal(clip.wav(), written["wav"])
        np.testing.assert_array_equal(clip.boxes(), written["boxes"])
        np.testing.assert_array_equal(clip.landmarks(), written["landmarks"])
        np.testing.assert_allclose(clip.mesh(), written["mesh"], atol=2.5e-4)  # half precision below 1
        assert clip.mesh().dtype == np.float32
        clip.boxes()[:] = 0  # what is given out is a copy
        np.testing.assert_array_equal(clip.boxes(), written["boxes"])


@pytest.mark.parametrize("read", READS)
def test_frames_are_resized_each_from_its_own_size(path: Path, read: Literal["mmap", "file"]) -> None:
    originals = [simplejpeg.decode_jpeg(jpeg, colorspace="RGB") for jpeg in content()["jpegs"]]
    with Clip(path, read) as clip:
        frames = clip.frames(1, 4, size_hw=(24, 20))
        assert frames.shape == (4, 24, 20, 3)
        assert frames.dtype == np.uint8
        for frame, original in zip(frames, originals[1:5], strict=True):
            np.testing.assert_array_equal(frame, cv2.resize(original, (20, 24), interpolation=cv2.INTER_LINEAR))
        native = clip.frames()
        assert isinstance(native, list)
        assert [frame.shape for frame in native] == [(40 + k, 30, 3) for k in range(FRAMES)]
        assert clip.frames(0, 0, size_hw=(24, 20)).shape == (0, 24, 20, 3)


def test_equal_sizes_come_as_one_array(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.safetensors", header(), **content([(32, 24)] * FRAMES))
    with Clip(tmp_path / "a.safetensors") as clip:
        frames = clip.frames()
        assert isinstance(frames, np.ndarray)
        assert frames.shape == (FRAMES, 32, 24, 3)


def test_a_window_reads_only_its_bytes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = Clip(path, "file")
    lengths: list[int] = []
    pread = os.pread

    def counting(handle: int, length: int, offset: int) -> bytes:
        lengths.append(length)
        return pread(handle, length, offset)

    len(clip)
    monkeypatch.setattr(os, "pread", counting)
    clip.mel_window(3)
    assert sum(lengths) == 16 * 80 * 4
    lengths.clear()
    jpegs = clip.jpegs(2, 2)
    assert sum(lengths) == 3 * 8 + sum(map(len, jpegs))
    clip.close()


def test_the_safetensors_library_reads_the_file(path: Path) -> None:
    with safe_open(path, framework="numpy") as file:
        np.testing.assert_array_equal(file.get_slice("mel")[7:23], content()["mel"][7:23])
        assert list(file.metadata()) == ["clip"]


def test_same_input_same_bytes(path: Path, tmp_path: Path) -> None:
    write_clip(tmp_path / "again.safetensors", header(), **content())
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("read", READS)
def test_pickling_takes_the_path_along(path: Path, read: Literal["mmap", "file"]) -> None:
    clip = Clip(path, read)
    expected = clip.wav()
    data = pickle.dumps(clip)
    assert len(data) < 1000
    copy = pickle.loads(data)
    assert (copy.path, copy.read) == (path, read)
    np.testing.assert_array_equal(copy.wav(), expected)
    clip.close()
    np.testing.assert_array_equal(clip.wav(), expected)  # opened again


def test_construction_does_not_touch_the_file(tmp_path: Path) -> None:
    clip = Clip(tmp_path / "absent.safetensors")
    with pytest.raises(FileNotFoundError):
        len(clip)


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.5, 0.999])
def test_a_truncated_file_is_an_error_with_its_path(path: Path, read: Literal["mmap", "file"], share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ClipError, match=r"clip 1\.safetensors.*bench prepare"):
        Clip(path, read).mel()
    with pytest.raises(ClipError):
        read_header(path)


def test_other_files_are_errors(tmp_path: Path, path: Path) -> None:
    noise = tmp_path / "noise.safetensors"
    noise.write_bytes(np.random.default_rng(1).bytes(5000))
    with pytest.raises(ClipError, match="not a safetensors"):
        read_header(noise)
    noise.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ClipError, match="overwritten"):
        read_header(noise)
    write_clip(noise, header(schema="0"), **content())
    with pytest.raises(ClipError, match=r"format 0, expected 1.*--overwrite"):
        read_header(noise)
    with safe_open(path, framework="numpy") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    save_file({name: tensors[name] for name in tensors if name != "mel"}, noise, metadata)
    with pytest.raises(ClipError, match="tensor mel is None"):
        read_header(noise)
    save_file({**tensors, "mel": tensors["mel"].astype(np.float64)}, noise, metadata)
    with pytest.raises(ClipError, match="no clip header"):
        read_header(noise)
    save_file({**tensors, "boxes": tensors["boxes"][1:]}, noise, metadata)
    with pytest.raises(ClipError, match=r"tensor boxes .*shape=\(6, 4\).* expected float32 \(7, 4\)"):
        read_header(noise)
    save_file(tensors, noise)
    with pytest.raises(ClipError, match="no clip header"):
        read_header(noise)


def test_a_broken_jpeg_is_named(tmp_path: Path) -> None:
    values = content()
    values["jpegs"][3] = b"not an image"
    write_clip(tmp_path / "a.safetensors", header(), **values)
    with Clip(tmp_path / "a.safetensors") as clip:
        assert len(clip.frames(0, 3, size_hw=(8, 8))) == 3
        with pytest.raises(ClipError, match="frame 3 cannot be decoded"):
            clip.frames(2, 3, size_hw=(8, 8))


@pytest.mark.parametrize("read", READS)
def test_ranges_outside_the_clip(path: Path, read: Literal["mmap", "file"]) -> None:
    with Clip(path, read) as clip:
        for start, count in ((-1, 2), (0, FRAMES + 1), (FRAMES, 1), (FRAMES + 1, None)):
            with pytest.raises(IndexError, match=r"frames .* Expected some of 0\.\.6"):
                clip.jpegs(start, count)
        for start in (-1, COLUMNS - 15):
            with pytest.raises(IndexError, match="mel columns"):
                clip.mel_window(start)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mel", np.zeros((80, COLUMNS), np.float32)),
        ("wav", np.zeros(100, np.float32)),
        ("boxes", np.zeros((FRAMES - 1, 4), np.float32)),
        ("landmarks", np.zeros((FRAMES, 68, 3), np.float32)),
        ("mesh", np.zeros((FRAMES, 468, 3), np.float32)),
        ("jpegs", []),
    ],
)
def test_wrong_shapes_are_not_written(tmp_path: Path, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match="zoë/clip 1: "):
        write_clip(tmp_path / "a.safetensors", header(), **{**content(), name: value})
    assert list(tmp_path.iterdir()) == []


def test_the_old_file_stays_when_writing_fails(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def fail(handle: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_clip(path, dataclasses.replace(header(), detected=0), **content())
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_unknown_way_of_reading(path: Path) -> None:
    with pytest.raises(ValueError, match="'mmap' or 'file'"):
        Clip(path, "lazily")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["../x", "/etc/x", "s01/../../x", "", "."])
@pytest.mark.parametrize("field", ["id", "source"])
def test_a_header_with_a_path_outside_its_folder_is_refused(tmp_path: Path, field: str, name: str) -> None:
    path = tmp_path / "clip.safetensors"
    write_clip(path, header=header(**{field: name}), **content())
    with pytest.raises(ClipError, match="Expected a path below"):
        read_header(path)


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize(("name", "value"), [("mel", np.nan), ("mel", 4.5), ("mel", -np.inf), ("boxes", np.inf)])
@pytest.mark.parametrize("place", ["first", "last"])
def test_an_impossible_number_is_an_error_when_it_is_read(
    tmp_path: Path, read: Literal["mmap", "file"], name: str, value: float, place: str
) -> None:
    values = content()
    values[name].reshape(-1)[0 if place == "first" else -1] = value
    write_clip(tmp_path / "a" / "bad.safetensors", header(), **values)
    with Clip(tmp_path / "a" / "bad.safetensors", read=read) as clip:
        with pytest.raises(
            ClipError, match=rf"bad\.safetensors: {name} 0\.\.\d+ has values from .* Expected numbers between"
        ):
            getattr(clip, name)()
        if name == "mel":
            with pytest.raises(ClipError, match=r"bad\.safetensors: mel"):
                clip.mel_window(0 if place == "first" else COLUMNS - 16)
            clip.mel_window(3)  # reads neither column
        clip.jpegs()


@pytest.mark.parametrize("name", ["landmarks", "mesh"])
def test_points_that_are_not_finite_are_an_error(tmp_path: Path, name: str) -> None:
    values = content()
    values[name][3, 2, 1] = np.nan
    write_clip(tmp_path / "bad.safetensors", header(), **values)
    with Clip(tmp_path / "bad.safetensors") as clip, pytest.raises(ClipError, match=rf"bad\.safetensors: {name}"):
        getattr(clip, name)()


@pytest.mark.parametrize("read", READS)
def test_a_clip_that_is_cut_short_while_it_is_open_is_named(path: Path, read: Literal["mmap", "file"]) -> None:
    # In a separate process: reading mapped bytes beyond the file's end is a signal that would end it.
    code = f"""
import os
from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.errors import ClipError
clip = Clip({str(path)!r}, read={read!r})
assert len(clip.jpegs()) == {FRAMES}
os.truncate({str(path)!r}, 3000)
try:
    clip.jpegs()
except ClipError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert f"{path}: " in run.stdout
    assert "ends early" in run.stdout
