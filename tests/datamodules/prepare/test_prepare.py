# SPDX-License-Identifier: Apache-2.0
"""Preparing clips: which videos, what clips hold, and that a second run makes only what has changed."""

import logging
import os
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from skimage.data import astronaut

from lipsync_bench.datamodules.clips.clip import Clip, read_header
from lipsync_bench.datamodules.faces.crops import SMOOTHING_RADIUS, crop_boxes, cut
from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.datamodules.media.audio import load_audio, mel_spectrogram, to_int16
from lipsync_bench.datamodules.media.video import read_frames
from lipsync_bench.datamodules.prepare import make_clip as prepare_clip
from lipsync_bench.datamodules.prepare import prepare as prepare_module
from lipsync_bench.datamodules.prepare.make_clip import Settings
from lipsync_bench.datamodules.prepare.options import PrepareOptions
from lipsync_bench.datamodules.prepare.prepare import prepare
from lipsync_bench.datamodules.prepare.sources import find_sources
from tests.datamodules.preparation import SIZE_HW, contents, failures, manifest, run, write_video
from tests.datamodules.tracks import track_faces


@pytest.fixture(scope="module")
def gap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("gap") / "gap.mp4", 36, dark=range(19, 24))


def test_a_clip_holds_what_the_video_shows(source: Path) -> None:
    report = run(source)
    assert (report.done, report.skipped, report.failed) == (3, 0, 0)
    assert report.summary().startswith("3 clips prepared, 0 already there, 0 failed in ")
    out = source.parent / "out"
    video = source / "zoë" / "клип 7.mp4"
    frames = list(read_frames(video))
    with Clip(out / "zoë" / "клип_7.safetensors") as clip:
        head = clip.header
        assert (head.id, head.speaker, head.source) == ("zoë/клип_7", "zoë", "zoë/клип 7.mp4")
        assert head.source_sha256 == sha256(video)
        assert (head.source_fps, head.source_width, head.source_height) == (25.0, 240, 220)
        assert (head.detector, head.crop_rule, head.frames, head.detected) == ("mediapipe", "mesh", 22, 22)
        wave = load_audio(video)
        np.testing.assert_array_equal(clip.wav(), to_int16(wave))
        np.testing.assert_array_equal(clip.mel(), mel_spectrogram(wave))
        track = track_faces(frames)
        boxes = clip.boxes()
        np.testing.assert_array_equal(boxes, crop_boxes(track, "mesh", SIZE_HW))
        for crop, frame, box in zip(clip.frames(), frames, boxes, strict=True):
            assert np.abs(crop.astype(int) - cut(frame, box)).mean() < 2  # JPEG quality 95
        size = boxes[:, None, 2:] - boxes[:, None, :2]
        np.testing.assert_allclose(clip.landmarks() * size + boxes[:, None, :2], track.landmarks, atol=1e-3)
        np.testing.assert_allclose(clip.mesh()[..., :2] * size + boxes[:, None, :2], track.mesh[..., :2], atol=0.1)
        np.testing.assert_allclose(clip.mesh()[..., 2] * size[..., 0], track.mesh[..., 2], atol=0.1)
    content = manifest(out)
    assert content["complete"] is True
    assert content["source_root"] == str(source.resolve())
    assert [entry["id"] for entry in content["clips"]] == ["anna/1", "bob/1", "zoë/клип_7"]
    assert content["clips"][2]["sha256"] == sha256(out / "zoë" / "клип_7.safetensors")
    assert failures(out) == []
    assert contents(out).keys() == {
        "anna/1.safetensors",
        "bob/1.safetensors",
        "zoë/клип_7.safetensors",
        "failures.csv",
        "manifest.json",
    }


@pytest.mark.parametrize("crop", ["mesh", "detector"])
@pytest.mark.parametrize("name", ["good", "gap"])
def test_one_pass_gives_what_two_passes_give(
    name: str, crop: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = request.getfixturevalue(name)
    decodes: list[Path] = []

    def counting(path: Path) -> Iterator[np.ndarray]:
        decodes.append(path)
        return read_frames(path)

    monkeypatch.setattr(prepare_clip, "read_frames", counting)
    settings = Settings(crop=crop)
    track, boxes, jpegs = prepare_clip._track_and_cut(path, settings)
    assert len(decodes) == (1 if name == "good" else 2)
    assert (~track.detected).sum() == (0 if name == "good" else 5)
    expected = crop_boxes(track_faces(read_frames(path)), crop, SIZE_HW)
    np.testing.assert_array_equal(boxes, expected)
    for jpeg, frame, box in zip(jpegs, read_frames(path), boxes, strict=True):
        assert jpeg == prepare_clip._encode(frame, box, 512)


def test_frames_of_a_long_video_are_not_all_held(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most = 0

    class Frame(np.ndarray):  # plain arrays cannot be counted by weak references in a set
        __hash__ = object.__hash__  # type: ignore[assignment]

        def __eq__(self, other: object) -> Any:
            return self is other

    def watched(path: Path) -> Iterator[np.ndarray]:
        nonlocal most
        for _ in range(60):
            frame = astronaut()[20:240, 110:350].copy().view(Frame)
            alive.add(frame)
            most = max(most, len(alive))
            yield frame

    monkeypatch.setattr(prepare_clip, "read_frames", watched)
    _, _, jpegs = prepare_clip._track_and_cut(Path("-"), Settings())
    assert len(jpegs) == 60
    assert SMOOTHING_RADIUS < most <= SMOOTHING_RADIUS + 3


def test_the_second_run_does_nothing(source: Path) -> None:
    run(source)
    out = source.parent / "out"
    before = contents(out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    report = run(source)
    assert (report.done, report.skipped, report.failed) == (0, 3, 0)
    assert contents(out) == before
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == times
    # And making everything anew gives the same bytes.
    assert run(source, overwrite=True).done == 3
    assert contents(out) == before


def test_what_is_made_anew(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(source)
    out = source.parent / "out"
    os.utime(source / "anna" / "1.mp4", (1, 1))  # another time, the same bytes
    assert (report := run(source)).skipped == 3, report
    write_video(source / "anna" / "1.mp4", 24)
    broken = out / "bob" / "1.safetensors"
    broken.write_bytes(broken.read_bytes()[:-100])
    assert (report := run(source)).done == 2, report
    assert read_header(out / "anna" / "1.safetensors").frames == 24
    assert read_header(broken).frames == 22
    assert (report := run(source, max_crop_px=64)).done == 3, report
    with Clip(broken) as clip:
        assert max(max(image.shape) for image in clip.frames()) == 64
        assert (clip.boxes()[:, 3] - clip.boxes()[:, 1]).max() > 64
    (out / "manifest.json").unlink()  # as after a kill: the clips themselves tell
    assert (report := run(source, max_crop_px=64)).skipped == 3, report
    (out / "manifest.json").write_text("{")
    assert (report := run(source, max_crop_px=64)).skipped == 3, report
    monkeypatch.setattr("lipsync_bench.datamodules.faces.detectors.MediaPipeDetector.version", "mediapipe 99")
    assert (report := run(source, max_crop_px=64)).done == 3, report


def lrs2(root: Path, good: Path) -> Path:
    for name in ("6100/00001", "6100/00002", "6200/00001", "6300/00009"):
        (root / "main" / f"{name}.mp4").parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(good, root / "main" / f"{name}.mp4")
    (root / "train.txt").write_text("6100/00001\n6100/00002\n")
    (root / "val.txt").write_bytes(b"6200/00001\r\n\r\n6400/00001\r\n")
    (root / "test.txt").write_text("6300/00009 NF\n6300/00009\n")
    return root


def test_lists_of_lrs2(tmp_path: Path, good: Path) -> None:
    root = lrs2(tmp_path / "in", good)
    out = tmp_path / "out"
    report = prepare(root / "main", out, PrepareOptions("lrs2", workers=1))
    assert (report.done, report.failed) == (4, 1)
    assert failures(out)[0]["id"] == "6400/00001"
    assert failures(out)[0]["error"] == "FileNotFoundError"
    assert "6400/00001.mp4: no such file" in failures(out)[0]["reason"]
    assert (out / "splits" / "val.txt").read_text() == "6200/00001\n6400/00001\n"
    assert (out / "splits" / "test.txt").read_text() == "6300/00009\n"
    assert read_header(out / "6300" / "00009.safetensors").source == "main/6300/00009.mp4"
    assert manifest(out)["source_root"] == str(root)
    assert run(root, dataset="lrs2").skipped == 4  # the parent of main is the same data set
    assert run(root, dataset="synthetic").skipped == 4
    for split in ("train", "val", "test"):
        (root / f"{split}.txt").unlink()
    assert [item.id for item in find_sources(root, "lrs2")] == ["6100/00001", "6100/00002", "6200/00001", "6300/00009"]


@pytest.mark.parametrize("line", ["../6100/00001", "../00001", "6100/..", "/etc/passwd", "6100/a/b", "6100", "a\\b/c"])
def test_a_list_that_leads_elsewhere(tmp_path: Path, good: Path, line: str) -> None:
    root = lrs2(tmp_path / "in", good)
    (root / "val.txt").write_text(f"6200/00001\n{line}\n")
    with pytest.raises(ValueError, match=r"val\.txt:2: found .*Expected <speaker>/<clip>"):
        run(root, dataset="lrs2")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_mead_takes_sound_from_its_own_file(tmp_path: Path) -> None:
    root = tmp_path / "in"
    for speaker, number in (("M003", "002"), ("W011", "040")):
        write_video(root / speaker / "video/front/neutral/level_1" / f"{number}.mp4", sound=speaker == "W011")
        (root / speaker / "audio/neutral/level_1").mkdir(parents=True)
    write_video(root / "M003/video/left_30/neutral/level_1/002.mp4", 6)
    write_video(root / "M003/video/front/angry/level_1/002.mp4", 6)
    sound = root / "M003/audio/neutral/level_1/002.m4a"
    write_video(sound.with_suffix(".mp4"), 25).rename(sound)  # any file with sound
    report = run(root, dataset="mead")
    assert (report.done, report.failed) == (2, 0), failures(tmp_path / "out")
    with Clip(tmp_path / "out" / "M003" / "002.safetensors") as clip:
        video = root / clip.header.source
        assert clip.header.source_sha256 == f"{sha256(video)}+{sha256(sound)}"
        np.testing.assert_array_equal(clip.wav(), to_int16(load_audio(sound)))
    assert read_header(tmp_path / "out" / "W011" / "040.safetensors").frames == 22


def test_ids_of_a_folder(tmp_path: Path) -> None:
    names = [
        "top.MP4",
        "a/one.mp4",
        "b/a/one.mp4",
        "b/a/one.webm",
        "Müller & Söhne/клип: 1?.mov",
        "deep/er/still/x.avi",
        "a/.hidden.mp4",
        ".git/x.mp4",
        "a/text.txt",
        f"long/{'ü' * 110}.m4v",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "circle").symlink_to(tmp_path)
    ids = {item.path.relative_to(tmp_path).as_posix(): item.id for item in find_sources(tmp_path)}
    long = ids.pop(names[-1])
    assert ids == {
        "top.MP4": "clips/top",
        "a/one.mp4": "a/one",
        "b/a/one.mp4": "b-a/one-mp4",
        "b/a/one.webm": "b-a/one-webm",
        "Müller & Söhne/клип: 1?.mov": "Müller___Söhne/клип__1_",
        "deep/er/still/x.avi": "still/x",
    }
    assert long.startswith("long/ü")
    assert len(long.encode()) < 220


def test_lines_in_the_log_where_there_is_no_terminal(
    source: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_module, "_LOG_INTERVAL_S", 0.0)
    with caplog.at_level(logging.INFO, logger="lipsync_bench.datamodules.prepare.prepare"):
        run(source)
    assert sum("clips/s" in record.message for record in caplog.records) == 3
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="lipsync_bench.datamodules.prepare.prepare"):
        run(source, overwrite=True, progress=False)
    assert not caplog.records


@pytest.mark.slow
def test_real_clips(real_clips: Path, tmp_path: Path) -> None:
    report = prepare(real_clips, tmp_path / "out", PrepareOptions(workers=2))
    assert (report.done, report.failed) == (5, 0)
    for path in sorted((tmp_path / "out" / "clips").glob("*.safetensors")):
        with Clip(path) as clip:
            assert len(clip) >= 120
            assert clip.header.detected == len(clip)
            assert abs(clip.mel_columns / 80 - len(clip) / 25) < 0.5
            boxes, mesh, landmarks = clip.boxes(), clip.mesh(), clip.landmarks()
            assert np.abs(np.diff(boxes, axis=0)).max() <= 20  # steady
            assert mesh[..., :2].min() > -0.15
            assert mesh[..., :2].max() < 1.15
            lips = mesh[:, [61, 291, 0, 17], :2].mean(1)
            assert np.all((lips > [0.2, 0.55]) & (lips < [0.8, 0.95]))
            assert np.abs(landmarks[:, 48:].mean(1) - lips).mean() < 0.05
            assert simplejpeg.decode_jpeg_header(clip.jpegs(0, 1)[0])[3] == "444"
