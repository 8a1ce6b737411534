# SPDX-License-Identifier: Apache-2.0
"""Tracks: what is written is read, a broken or foreign one is named; mel columns at a clip's ends."""

import dataclasses
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
import pytest
import simplejpeg
from safetensors.numpy import load_file
from skimage.data import astronaut

from lipsync_bench.datamodules.clips.clip import Clip, ClipHeader, write_clip
from lipsync_bench.datamodules.clips.track import (
    Track,
    TrackHeader,
    decode_face,
    encode_face,
    track_path,
    write_track,
)
from lipsync_bench.datamodules.errors import ClipError
from lipsync_bench.datamodules.faces.crop_rules.boxes import FaceMeshBox
from lipsync_bench.datamodules.media.audio import mel_spectrogram, to_float
from lipsync_bench.datamodules.recipes.recipe import Recipe
from lipsync_bench.datamodules.recipes.values import Codec

FRAMES = 7
RECIPE = Recipe(FaceMeshBox(), (24, 40))  # not square
CLIP = ClipHeader("s/1", "s", "a.mp4", "00", 25.0, 64, 64, "mediapipe", "1", "mesh", FRAMES, FRAMES, settings="{}")


def faces(count: int = FRAMES) -> np.ndarray:
    rows, columns = np.mgrid[:24, :40]
    return np.stack(
        [np.stack([rows * 5 + t, columns * 5, rows + columns + 9 * t], axis=-1) for t in range(count)]
    ).astype(np.uint8)


def written(folder: Path, codec: Codec = "jpeg") -> Path:
    path = track_path(folder / "s" / "1.mp4.safetensors", RECIPE.track_digest)
    write_track(path, TrackHeader.of(CLIP, RECIPE, codec, versions="{}"), faces())
    return path


@pytest.mark.parametrize("read", ["mmap", "file"])
@pytest.mark.parametrize("codec", get_args(Codec))
def test_what_is_written_is_read(tmp_path: Path, codec: Codec, read: Literal["mmap", "file"]) -> None:
    path = written(tmp_path, codec)
    assert path.name == f"1.mp4.{RECIPE.track_digest}.track"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    with Track(path, read) as track:
        assert len(track) == FRAMES
        assert (track.header.width, track.header.height, track.header.codec) == (40, 24, codec)
        assert track.header.track == RECIPE.track_key()
        found = track.faces(2, 3)
        assert found.shape == (3, 24, 40, 3)
        assert np.abs(found.astype(int) - faces()[2:5]).max() <= (0 if codec == "raw" else 8)
        if codec != "raw":
            colours = {"jpeg": "444", "jpeg420": "420"}[codec]
            assert simplejpeg.decode_jpeg_header(track.stored(0, 1)[0])[3] == colours
        assert len(track.faces()) == FRAMES
        for start, count in ((-1, 2), (5, 3), (8, None)):
            with pytest.raises(IndexError, match=r"asked for\. Expected some of 0\.\.6"):
                track.faces(start, count)
    assert set(load_file(path)) == {"frames", "offsets"}  # what the library reads too
    content = path.read_bytes()
    assert written(tmp_path, codec).read_bytes() == content


@pytest.mark.parametrize("side", [96, 128, 211])
def test_faces_with_halved_colours_are_nearer_and_not_larger(side: int) -> None:
    face = cv2.resize(astronaut()[20:230, 120:320], (side, side), interpolation=cv2.INTER_AREA)
    errors, sizes = {}, {}
    for codec in ("jpeg", "jpeg420"):
        stored, out = encode_face(face, codec), np.empty_like(face)
        decode_face(stored, codec, out)
        errors[codec] = np.square(out.astype(float) - face).mean()
        sizes[codec] = len(stored)
    assert errors["jpeg420"] < errors["jpeg"]
    assert sizes["jpeg420"] < 1.05 * sizes["jpeg"]


def test_it_can_be_pickled_and_replaced(tmp_path: Path) -> None:
    track = Track(written(tmp_path))
    first = track.faces(0, 1)
    with pickle.loads(pickle.dumps(track)) as copy:
        np.testing.assert_array_equal(copy.faces(0, 1), first)
    track.close()
    np.testing.assert_array_equal(track.faces(0, 1), first)  # opens it again
    track.close()
    written(tmp_path, "raw")
    assert track.header.codec == "raw"  # not the head that was remembered
    np.testing.assert_array_equal(track.faces(), faces())
    track.close()


def test_it_belongs_to_its_clip_as_it_is() -> None:
    header = TrackHeader.of(CLIP, RECIPE)
    assert header.belongs_to(CLIP)
    changes: dict[str, Any] = {
        "id": "s/2",
        "source_sha256": "11",
        "settings": "{1}",
        "detector_version": "2",
        "frames": 6,
    }
    for name, value in changes.items():
        assert not header.belongs_to(dataclasses.replace(CLIP, **{name: value})), name


def test_faces_that_do_not_fit_the_header_are_not_written(tmp_path: Path) -> None:
    path, header = tmp_path / "s" / "1.track", TrackHeader.of(CLIP, RECIPE)
    with pytest.raises(ValueError, match=r"s/1: 6 faces, header\.frames is 7"):
        write_track(path, header, faces(6))
    with pytest.raises(ValueError, match=r"s/1: a face is uint8 \(40, 24, 3\), expected uint8 \(24, 40, 3\)"):
        write_track(path, header, faces().transpose(0, 2, 1, 3))

    def interrupted() -> Iterator[np.ndarray]:
        yield faces()[0]
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_track(path, header, interrupted())
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("keep", [0, 5, 300, 0.5, -1])
def test_cut_files_are_named(tmp_path: Path, keep: float) -> None:
    path = written(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with Track(path) as track, pytest.raises(ClipError, match=rf"{path.name}: .*bench prepare --for"):
        track.faces()


@pytest.mark.parametrize("codec", get_args(Codec))
def test_broken_faces_are_named(tmp_path: Path, codec: Codec) -> None:
    path = written(tmp_path, codec)
    with Track(path) as track:
        stored = track.stored()
    data = path.read_bytes()
    if codec != "raw":
        path.write_bytes(data.replace(stored[3], bytes(len(stored[3]))))
    else:  # one byte of the fourth face belongs to the fifth
        offsets = np.cumsum([0, *map(len, stored)])
        wrong = offsets - (np.arange(len(offsets)) == 4)
        path.write_bytes(data.replace(offsets.tobytes(), wrong.tobytes()))
    with Track(path) as track:
        assert len(track.faces(0, 3)) == 3
        with pytest.raises(ClipError, match=rf"{path.name}: face 3 cannot be decoded .*bench prepare --for"):
            track.faces(2, 3)


@pytest.mark.parametrize(("columns", "samples"), [(20, 3800), (20, 3999), (16, 3001), (64, 12700)])
def test_mel_columns_at_the_ends_are_padded_as_the_recipe_says(tmp_path: Path, columns: int, samples: int) -> None:
    rng = np.random.default_rng(samples)
    wav = rng.integers(-9000, 9000, samples).astype(np.int16)
    stored = mel_spectrogram(to_float(wav)).T
    assert len(stored) == columns
    path = tmp_path / "c.safetensors"
    count = CLIP.frames
    jpeg = simplejpeg.encode_jpeg(faces()[0])
    rest = {"boxes": (count, 4), "landmarks": (count, 68, 2), "mesh": (count, 478, 3)}
    arrays: Any = {name: np.zeros(shape, np.float32) for name, shape in rest.items()}
    write_clip(path, CLIP, jpegs=[jpeg] * count, mel=stored, wav=wav, **arrays)
    expected = mel_spectrogram(to_float(wav), "constant")
    with Clip(path) as clip:
        np.testing.assert_array_equal(clip.mel(), stored.T)
        found = clip.mel("constant")
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert np.abs(found - stored.T).max() > 0.05  # the ends differ
        np.testing.assert_array_equal(found[:, 2:-2], stored.T[:, 2:-2])
        for start in range(columns - 15):
            np.testing.assert_array_equal(clip.mel_window(start, "constant"), found[:, start : start + 16])
            np.testing.assert_array_equal(clip.mel_window(start), stored.T[:, start : start + 16])
    write_clip(path, CLIP, jpegs=[jpeg] * count, mel=stored, wav=wav[:-400], **arrays)
    with Clip(path) as clip:
        clip.mel_window(2, "constant", columns - 4)  # touches no end
        with pytest.raises(ClipError, match=rf"{columns} mel columns of {samples - 400} audio samples.*bench prepare"):
            clip.mel_window(0, "constant")
