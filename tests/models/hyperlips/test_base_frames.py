# SPDX-License-Identifier: Apache-2.0
"""The file of generated faces gives back what was written, piece by piece; a broken one says so and how to mend it."""

import dataclasses
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from lipsync_bench.datamodules.clip_datamodule import ClipDataModule
from lipsync_bench.datamodules.clips.clip import read_header
from lipsync_bench.datamodules.errors import ClipError
from lipsync_bench.models.hyperlips.hr.base_frames import (
    REPAIR,
    BaseFrames,
    BaseFramesHeader,
    base_frames_path,
    write_base_frames,
)

FRAMES = 7


def header(**changes: Any) -> BaseFramesHeader:
    values: dict[str, Any] = {
        "id": "zoë/clip 1",
        "source_sha256": "0" * 64,
        "clip_settings": "{}",
        "checkpoint_sha256": "1" * 64,
        "size_px": 128,
        "mesh_order": "bgr",
        "frames": FRAMES,
    }
    return BaseFramesHeader(**{**values, **changes})


def content() -> dict[str, Any]:
    random = np.random.default_rng(0)
    row, column = np.mgrid[:128, :128]
    frames = [np.stack([row + k, column, 255 - row], axis=-1).astype(np.uint8) for k in range(FRAMES)]
    found = np.ones(FRAMES, bool)
    found[3] = False
    return {
        "frames": frames,
        "sketches": random.integers(0, 2, (FRAMES, 128, 128), dtype=np.uint8) * np.uint8(255),
        "found": found,
        "lip_outlines": random.uniform(0, 1, (FRAMES, 20, 2)).astype(np.float32),
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "zoë" / "clip 1.base"
    write_base_frames(path, header(), **content())
    return path


def test_everything_comes_back(path: Path) -> None:
    written = content()
    with BaseFrames(path) as base:
        assert base.header == header()
        assert len(base) == FRAMES
        assert abs(base.faces().astype(int) - np.stack(written["frames"])).max() <= 8  # JPEG
        np.testing.assert_array_equal(base.faces(2, 3), base.faces()[2:5])
        expected = written["sketches"].copy()
        expected[3] = 0  # no mesh there
        np.testing.assert_array_equal(base.sketches(), expected)
        np.testing.assert_array_equal(base.sketches(5, 2), expected[5:])
        np.testing.assert_array_equal(base.found(), written["found"])
        np.testing.assert_array_equal(base.found(3, 2), [False, True])
        np.testing.assert_array_equal(base.lip_outlines(), written["lip_outlines"])
        np.testing.assert_array_equal(base.lip_outlines(1, 2), written["lip_outlines"][1:3])
        assert base.faces(FRAMES, 0).shape == (0, 128, 128, 3)
        base.found()[:] = False  # what is given out is a copy
        assert base.found().sum() == FRAMES - 1


def test_the_format_is_the_documented_one(path: Path) -> None:
    with safe_open(path, "numpy") as file:
        assert sorted(file.metadata()) == ["base_frames"]
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    assert {name: (value.dtype.name, value.shape[1:]) for name, value in tensors.items()} == {
        "frames": ("uint8", ()),
        "offsets": ("int64", ()),
        "sketch": ("uint8", (2048,)),
        "found": ("bool", ()),
        "lip_outline": ("float32", (20, 2)),
    }
    assert tensors["offsets"][-1] == len(tensors["frames"])
    assert tensors["frames"][:2].tobytes() == b"\xff\xd8"


def test_same_content_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    write_base_frames(tmp_path / "again.base", header(), **content())
    assert (tmp_path / "again.base").read_bytes() == path.read_bytes()
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # no temporary file left


def test_a_window_reads_only_its_bytes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = BaseFrames(path)
    lengths: list[int] = []
    pread = os.pread

    def counting(handle: int, length: int, offset: int) -> bytes:
        lengths.append(length)
        return pread(handle, length, offset)

    len(base)
    monkeypatch.setattr(os, "pread", counting)
    base.sketches(2, 3)
    assert sum(lengths) == 3 * 2048
    lengths.clear()
    base.faces(2, 1)
    assert sum(lengths) < path.stat().st_size / FRAMES
    base.close()


def test_it_can_be_pickled_and_closed(path: Path) -> None:
    base = BaseFrames(path)
    first = base.found()
    copy = pickle.loads(pickle.dumps(base))
    assert copy.path == path
    np.testing.assert_array_equal(copy.found(), first)
    base.close()
    np.testing.assert_array_equal(base.found(), first)  # opens it again
    base.close()
    copy.close()


@pytest.mark.parametrize(("start", "count"), [(-1, 2), (5, 3), (0, 8), (8, None)])
def test_ranges_outside_the_clip_are_refused(path: Path, start: int, count: int | None) -> None:
    with BaseFrames(path) as base:
        for read in (base.faces, base.sketches, base.found, base.lip_outlines):
            with pytest.raises(IndexError, match=r"asked for\. Expected some of 0\.\.6"):
                read(start, count)


def test_it_lies_beside_the_clip_and_is_not_one(corpus: Path) -> None:
    clip = next(iter(sorted((corpus / "clips").glob("*/*.safetensors"))))
    path = base_frames_path(clip)
    assert path == clip.parent / f"{clip.stem}.base"
    assert base_frames_path(Path("a/00001.mp4.safetensors")) == Path("a/00001.mp4.base")


def test_clips_are_listed_without_it(tmp_path: Path, corpus: Path) -> None:
    root = tmp_path / "clips"
    clip = next(iter(sorted((corpus / "clips").glob("*/*.safetensors"))))
    (root / clip.parent.name).mkdir(parents=True)
    (root / clip.parent.name / clip.name).write_bytes(clip.read_bytes())
    write_base_frames(base_frames_path(root / clip.parent.name / clip.name), header(), **content())
    (root / "manifest.json").write_text("{}")
    (root / "splits").mkdir()
    for split in ("train", "val", "test"):
        listed = f"{clip.parent.name}/{clip.stem}\n" if split == "train" else ""
        (root / "splits" / f"{split}.txt").write_text(listed)
    module = ClipDataModule(root, num_workers=0)
    assert module.clips("train") == [root / clip.parent.name / clip.name]


def test_header_tells_whether_the_clip_is_still_the_same(corpus: Path) -> None:
    clip = read_header(next(iter(sorted((corpus / "clips").glob("*/*.safetensors")))))
    made = BaseFramesHeader.of(clip, "1" * 64)
    assert (made.id, made.frames, made.size_px, made.mesh_order) == (clip.id, clip.frames, 128, "rgb")
    assert made.belongs_to(clip)
    other = {"detector_version": "mediapipe 99"}
    for change in ({"id": "a/b"}, {"source_sha256": "2" * 64}, {"settings": "{}"}, {"frames": clip.frames + 1}, other):
        assert not made.belongs_to(dataclasses.replace(clip, **change))
    earlier = dataclasses.replace(made, detector_version="")  # of a version that did not tell it
    assert earlier.belongs_to(dataclasses.replace(clip, **other))


def without(name: str, **replaced: np.ndarray) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    tensors = {
        "frames": random.integers(0, 255, 70, np.uint8),
        "offsets": np.arange(0, 71, 10, dtype=np.int64),
        "sketch": np.zeros((FRAMES, 2048), np.uint8),
        "found": np.ones(FRAMES, bool),
        "lip_outline": np.zeros((FRAMES, 20, 2), np.float32),
    }
    tensors.update(replaced)
    tensors.pop(name, None)
    return tensors


def packed(made: BaseFramesHeader, **changes: Any) -> dict[str, str]:
    return {"base_frames": json.dumps({**dataclasses.asdict(made), **changes})}


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        (without("found"), packed(header()), "tensor found is None, expected bool"),
        (without("", sketch=np.zeros((FRAMES, 128), np.uint8)), packed(header()), r"tensor sketch .* expected uint8"),
        (without("", found=np.ones(FRAMES - 1, bool)), packed(header()), r"expected bool \(7,\)"),
        (without("", offsets=np.zeros(8, np.int32)), packed(header()), "no base-frame header"),
        (without(""), packed(header(frames=6)), r"tensor offsets .* expected int64 \(7,\)"),
        (without(""), packed(header(), schema="2"), "base-frame format 2, expected 1"),
        (without(""), packed(header(), colour="bgr"), "header fields do not fit .*colour"),
        (without(""), {}, "no base-frame header"),
        (without(""), {"base_frames": "{"}, "no base-frame header"),
    ],
)
def test_files_of_another_form_are_named(
    tmp_path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str], message: str
) -> None:
    path = tmp_path / "a.base"
    save_file(tensors, path, metadata)
    with BaseFrames(path) as base, pytest.raises(ClipError, match=f"a.base: .*{message}") as caught:
        len(base)
    assert str(caught.value).endswith(REPAIR)


@pytest.mark.parametrize("keep", [0, 5, 200, 0.5, -1])
def test_cut_files_are_named(path: Path, keep: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with BaseFrames(path) as base, pytest.raises(ClipError, match=r"clip 1\.base: .*bench base-frames --checkpoint"):
        base.found()


def test_broken_images_are_named(path: Path, tmp_path: Path) -> None:
    with safe_open(path, "numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        metadata = file.metadata()
    first, second = tensors["offsets"][4:6]
    broken = {**tensors, "frames": tensors["frames"].copy()}
    broken["frames"][first:second] = 0
    save_file(broken, tmp_path / "zeros.base", metadata)
    with BaseFrames(tmp_path / "zeros.base") as base:
        assert len(base.faces(0, 4)) == 4
        with pytest.raises(ClipError, match=r"face 4 cannot be decoded .*Expected a JPEG.*bench base-frames"):
            base.faces(2, 4)
    save_file(tensors, tmp_path / "size.base", packed(header(size_px=64)))
    with (
        BaseFrames(tmp_path / "size.base") as base,
        pytest.raises(ClipError, match=r"face 0 .* expected \(64, 64, 3\)"),
    ):
        base.faces()
    for offsets in (tensors["offsets"] + 10**6, -tensors["offsets"]):
        save_file({**tensors, "offsets": offsets}, tmp_path / "offsets.base", metadata)
        with BaseFrames(tmp_path / "offsets.base") as base, pytest.raises(ClipError, match="its images are at"):
            base.faces()


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with BaseFrames(tmp_path / "absent.base") as base, pytest.raises(FileNotFoundError, match=r"absent\.base"):
        len(base)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": content()["frames"][:-1]}, "6 faces, header.frames is 7. Expected the same number"),
        ({"frames": [np.zeros((96, 96, 3), np.uint8)] * FRAMES}, r"frames are .*96.* expected .*128"),
        ({"frames": [np.zeros((128, 128, 3), np.float32)] * FRAMES}, "frames are .*float32"),
        ({"sketches": np.zeros((FRAMES, 64, 64), np.uint8)}, r"sketches are .*64, 64.* expected"),
        ({"sketches": np.full((FRAMES, 128, 128), 7, np.uint8)}, "grey pixels. Expected 0 and 255"),
        ({"found": np.ones(FRAMES, np.uint8)}, "found are .*uint8.* expected .*bool"),
        ({"lip_outlines": np.zeros((FRAMES, 20, 3))}, r"lip_outlines are \(7, 20, 3\), expected \(7, 20, 2\)"),
    ],
)
def test_wrong_content_is_not_written(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_base_frames(tmp_path / "a.base", header(), **{**content(), **changes})
    assert list(tmp_path.iterdir()) == []
