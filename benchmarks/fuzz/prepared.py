# SPDX-License-Identifier: Apache-2.0
"""Files that `bench prepare` and `bench base-frames` write and data modules read, and the lists of data sets."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import simplejpeg

from benchmarks.fuzz.kinds import Kind
from benchmarks.fuzz.media import FRAMES, image, tone, write_video
from lipsync_bench.cli import doctor
from lipsync_bench.datamodules import ClipFolder
from lipsync_bench.datamodules.clips.clip import LANDMARKS, MESH_POINTS, Clip, ClipHeader, read_header, write_clip
from lipsync_bench.datamodules.clips.track import Track, TrackHeader, write_track
from lipsync_bench.datamodules.faces.crop_rules.boxes import FaceMeshBox
from lipsync_bench.datamodules.media.audio import mel_spectrogram, to_int16
from lipsync_bench.datamodules.prepare.options import PrepareOptions
from lipsync_bench.datamodules.prepare.prepare import prepare
from lipsync_bench.datamodules.prepare.sources import find_sources
from lipsync_bench.datamodules.recipes.recipe import Recipe
from lipsync_bench.models.hyperlips.hr.base_frames import (
    BaseFrames,
    BaseFramesHeader,
    base_frames_path,
    write_base_frames,
)

IDS = ("s1/1", "s1/2", "s2/1")
_SIDE = 32

__all__ = ["IDS", "KINDS", "make_clips", "make_root", "sources_in"]


def _write_clip(path: Path, id: str, source_sha256: str) -> None:
    rng = np.random.default_rng(0)
    samples = tone(FRAMES / 25 + 0.2)
    header = ClipHeader(
        *(id, id.partition("/")[0], f"{id}.mp4", source_sha256, 25.0, 64, 48, "mediapipe", "0", "mesh"),
        frames=FRAMES,
        detected=FRAMES,
    )
    crops = [np.ascontiguousarray(image(k)[:_SIDE, :_SIDE]) for k in range(FRAMES)]
    write_clip(
        path,
        header,
        jpegs=[simplejpeg.encode_jpeg(crop, 90, colorspace="RGB") for crop in crops],
        mel=mel_spectrogram(samples).T,
        wav=to_int16(samples),
        boxes=np.tile(np.array([4, 4, 44, 44], np.float32), (FRAMES, 1)),
        landmarks=rng.random((FRAMES, LANDMARKS, 2), np.float32),
        mesh=rng.random((FRAMES, MESH_POINTS, 3), np.float32),
    )


def make_clips(folder: Path, ids: Sequence[str] = IDS) -> None:
    """Clips of ids below a folder."""
    for id in ids:
        _write_clip(folder / f"{id}.safetensors", id, "0" * 64)


def make_root(folder: Path) -> None:
    """A prepared folder: three clips, split lists and a manifest."""
    make_clips(folder)
    (folder / "splits").mkdir()
    for split, id in zip(("train", "val", "test"), IDS, strict=True):
        (folder / "splits" / f"{split}.txt").write_text(f"{id}\n")
    clips = [{"id": id, "source": f"{id}.mp4", "source_sha256": "0" * 64, "sha256": "0" * 64} for id in IDS]
    stamp = {"source_bytes": 0, "source_mtime_ns": 0, "frames": FRAMES, "detected": FRAMES}
    content = {
        "schema": "1",
        "complete": True,
        "dataset": "folder",
        "source_root": "/data/videos",
        "settings": {"crop": "mesh", "max_crop_px": 512},
        "versions": {"av": "14"},
        "failed": 0,
        "clips": [{**clip, **stamp} for clip in clips],
    }
    (folder / "manifest.json").write_text(json.dumps(content))


def _read_clip(path: Path) -> None:
    read_header(path)
    for read in ("mmap", "file"):
        with Clip(path, read=read) as clip:
            assert len(clip) >= 0
            clip.frames(size_hw=(16, 16))
            clip.mel_window(0)
            for part in (clip.mel, clip.wav, clip.boxes, clip.landmarks, clip.mesh):
                part()


def _module(root: Path) -> ClipFolder:
    return ClipFolder(root, overfit=True, batch_size=1, image_size=32, num_workers=0, epoch_length=6)


def _train(path: Path) -> None:
    """One epoch of windows of a prepared folder."""
    module = _module(path.parents[1])
    module.setup()
    for loader in (module.train_dataloader(), module.val_dataloader()):
        for _ in loader:
            pass


def _make_base_frames(folder: Path) -> None:
    make_root(folder)
    for id in IDS:
        clip = folder / f"{id}.safetensors"
        header = BaseFramesHeader.of(read_header(clip), "1" * 64, _SIDE)
        write_base_frames(
            base_frames_path(clip),
            header,
            frames=[np.ascontiguousarray(image(k)[:_SIDE, :_SIDE]) for k in range(FRAMES)],
            sketches=np.zeros((FRAMES, 128, 128), np.uint8),
            found=np.ones(FRAMES, np.bool_),
            lip_outlines=np.zeros((FRAMES, 20, 2), np.float32),
        )


def _read_base_frames(path: Path) -> None:
    with BaseFrames(path) as faces:
        for part in (faces.faces, faces.sketches, faces.found, faces.lip_outlines):
            part()


def _make_track(folder: Path) -> None:
    make_clips(folder)
    clip = folder / f"{IDS[0]}.safetensors"
    faces = [np.ascontiguousarray(image(k)[:_SIDE, :_SIDE]) for k in range(FRAMES)]
    recipe = Recipe(FaceMeshBox(), (_SIDE, _SIDE))
    write_track(clip.with_name("1.track"), TrackHeader.of(read_header(clip), recipe), faces)


def _read_track(path: Path) -> None:
    for read in ("mmap", "file"):
        with Track(path, read=read) as track:
            track.faces()


def _read_root_manifest(path: Path) -> None:
    module = _module(path.parent)
    module.setup()
    with contextlib.suppress(FileNotFoundError):  # it names a folder that does not exist here
        assert module.source_root is not None


def _doctor(path: Path) -> None:
    checks = doctor._data(path.parent)  # the other checks take seconds and read nothing of the folder
    next(checks)


def _make_prepared(folder: Path) -> None:
    """A folder that was prepared from an empty video, which fails at once."""
    make_root(folder)
    for id in IDS:
        (folder / "videos" / id).parent.mkdir(parents=True, exist_ok=True)
        (folder / "videos" / f"{id}.mp4").touch()


def _prepare(path: Path) -> None:
    prepare(path.parent / "videos", path.parent, PrepareOptions(workers=1), progress=False)


def sources_in(folder: Path) -> None:
    """A data set as LRS2 lays it out, with empty videos."""
    for id in IDS:
        (folder / "main" / id).parent.mkdir(parents=True, exist_ok=True)
        (folder / "main" / f"{id}.mp4").touch()
    for split, id in zip(("train", "val", "test"), IDS, strict=True):
        (folder / f"{split}.txt").write_text(f"{id} NF\n{id}\n")


def _split_list(path: Path) -> None:
    ClipFolder(path.parents[1], splits=path.parent, image_size=32, num_workers=0).setup()


def _source_list(path: Path) -> None:
    find_sources(path.parent, "lrs2")


def write_source(folder: Path) -> None:
    """The source of the clip s1/1."""
    (folder / "sources" / "s1").mkdir(parents=True, exist_ok=True)
    write_video(folder / "sources" / "s1" / "1.mp4", "libx264", "aac", "mp4")


KINDS = (
    Kind("clip", "s1/1.safetensors", make_clips, _read_clip, "head"),
    Kind("clip_in_training", "s1/1.safetensors", make_root, _train, "head"),
    Kind("base_frames", "s1/1.base", _make_base_frames, _read_base_frames, "head"),
    Kind("track", "s1/1.track", _make_track, _read_track, "head"),
    Kind("manifest_of_prepared", "manifest.json", make_root, _read_root_manifest, "json"),
    Kind("manifest_in_doctor", "manifest.json", make_root, _doctor, "json"),
    Kind("manifest_in_prepare", "manifest.json", _make_prepared, _prepare, "json"),
    Kind("split_list", "splits/test.txt", make_root, _split_list, "lines"),
    Kind("source_list", "test.txt", sources_in, _source_list, "lines"),
)
