# SPDX-License-Identifier: Apache-2.0
"""Preparing clips: what they hold, that a run can be repeated and interrupted, that one bad video harms no other."""

import csv
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from skimage.data import astronaut

from datamodules import prepare as prepare_module
from datamodules import prepare_clip
from datamodules.audio import load_audio, mel_spectrogram, to_int16
from datamodules.clip import Clip, read_header
from datamodules.crops import SMOOTHING_RADIUS, crop_boxes, cut
from datamodules.faces import track_faces
from datamodules.files import sha256
from datamodules.pool import WorkerDied, run_jobs
from datamodules.prepare import PrepareReport, prepare
from datamodules.prepare_clip import Settings
from datamodules.sources import find_sources
from datamodules.video import VideoWriter, read_frames

SIZE_HW = (220, 240)
REPOSITORY = Path(__file__).parents[2]


def tone(seconds: float) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(int(16000 * seconds)) / 16000)).astype(np.float32)


def write_video(path: Path, frames: int = 22, *, dark: range = range(0), face: bool = True, sound: bool = True) -> Path:
    """The photograph's head, moving to the left by 1 px a frame; `dark` frames are black."""
    path.parent.mkdir(parents=True, exist_ok=True)
    photo = astronaut() if face else np.full((512, 512, 3), 90, np.uint8)
    with VideoWriter(path, 25.0, SIZE_HW, audio=tone(frames / 25) if sound else None, preset="ultrafast") as video:
        for k in range(frames):
            frame = photo[20:240, 110 + k % 60 : 350 + k % 60]
            video.write(np.zeros_like(frame) if k in dark else np.ascontiguousarray(frame))
    return path


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("good") / "good.mp4")


@pytest.fixture(scope="module")
def gap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("gap") / "gap.mp4", 36, dark=range(19, 24))


@pytest.fixture
def source(tmp_path: Path, good: Path) -> Path:
    """Three good videos of three speakers."""
    for name in ("anna/1.mp4", "bob/1.mp4", "zoë/клип 7.mp4"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        shutil.copy(good, tmp_path / "in" / name)
    return tmp_path / "in"


def run(source: Path, **arguments: Any) -> PrepareReport:
    return prepare(source, source.parent / "out", workers=arguments.pop("workers", 1), **arguments)


def manifest(out: Path) -> dict[str, Any]:
    return json.loads((out / "manifest.json").read_text("utf-8"))


def failures(out: Path) -> list[dict[str, str]]:
    with (out / "failures.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def contents(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


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
    settings = Settings("mediapipe", crop, "largest", 12, 512)
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
    _, _, jpegs = prepare_clip._track_and_cut(Path("-"), Settings("mediapipe", "mesh", "largest", 12, 512))
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
    monkeypatch.setattr("datamodules.detectors.MediaPipeDetector.version", "mediapipe 99")
    assert (report := run(source, max_crop_px=64)).done == 3, report


def test_an_interrupted_run_is_taken_up_again(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = source.parent / "out"
    whole: Callable[[Any], Any] = prepare_module.prepare_one

    def interrupted(job: Any) -> Any:
        if job.source.id == "bob/1":
            raise KeyboardInterrupt
        return whole(job)

    monkeypatch.setattr(prepare_module, "prepare_one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(source)
    assert contents(out).keys() == {"anna/1.safetensors", "failures.csv", "manifest.json"}
    assert manifest(out)["complete"] is False
    assert [entry["id"] for entry in manifest(out)["clips"]] == ["anna/1"]
    monkeypatch.setattr(prepare_module, "prepare_one", whole)
    report = run(source)
    assert (report.done, report.skipped) == (2, 1)
    assert manifest(out)["complete"] is True


def test_leftovers_of_killed_runs_are_removed(source: Path) -> None:
    out = source.parent / "out"
    (out / "anna").mkdir(parents=True)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    leftover = out / "anna" / f".1.safetensors.tmp-{dead.pid}"
    of_another = out / "anna" / f".2.safetensors.tmp-{os.getppid()}"
    leftover.touch()
    of_another.touch()
    run(source)
    assert not leftover.exists()
    assert of_another.exists()


def test_bad_videos_are_listed_and_harm_no_other(tmp_path: Path, good: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    shutil.copy(good, source / "good.mp4")
    (source / "broken.mp4").write_bytes(np.random.default_rng(0).bytes(20000))
    (source / "empty.mkv").touch()
    write_video(source / "silent.mp4", sound=False)
    write_video(source / "nobody.mp4", face=False)
    write_video(source / "short.mp4", 4)
    write_video(source / "away.mp4", 30, dark=range(10, 25))
    (source / "notes.txt").write_text("not a video")
    with caplog.at_level(logging.WARNING):
        report = prepare(source, out, workers=1)
    assert (report.done, report.failed) == (1, 6)
    assert "failures.csv" in report.summary()
    rows = failures(out)
    assert [(row["id"], row["source"], row["error"]) for row in rows] == [
        ("clips/away", "away.mp4", "FaceError"),
        ("clips/broken", "broken.mp4", "MediaError"),
        ("clips/empty", "empty.mkv", "MediaError"),
        ("clips/nobody", "nobody.mp4", "FaceError"),
        ("clips/short", "short.mp4", "MediaError"),
        ("clips/silent", "silent.mp4", "MediaError"),
    ]
    reasons = {row["id"].partition("/")[2]: row["reason"] for row in rows}
    assert "15 in a row from frame 10" in reasons["away"]
    assert "no face on any of 22 frames" in reasons["nobody"]
    assert "expected at least" in reasons["short"]
    assert "no sound track" in reasons["silent"]
    assert all("\n" not in reason and reason for reason in reasons.values())
    assert [path.name for path in (out / "clips").iterdir()] == ["good.safetensors"]
    assert manifest(out)["failed"] == 6
    # Failures are tried again, and may be bridged by another setting.
    write_video(source / "nobody.mp4")
    report = prepare(source, out, workers=1)
    assert (report.done, report.skipped, report.failed) == (1, 1, 5)
    assert prepare(source, out, workers=1, max_gap_frames=15).failed == 4
    with pytest.raises(RuntimeError, match=r"4 failed.*at most 50% failures \(--max-failures\)"):
        prepare(source, out, workers=1, max_gap_frames=15, max_failures=0.5)


def test_a_clip_whose_source_became_unusable_goes(source: Path) -> None:
    run(source)
    out = source.parent / "out"
    write_video(source / "anna" / "1.mp4", face=False)
    (source / "bob" / "1.mp4").unlink()
    assert run(source).failed == 1
    assert not (out / "anna" / "1.safetensors").exists()
    assert (out / "bob" / "1.safetensors").exists()  # not in the manifest any more, but not ours to delete
    assert [entry["id"] for entry in manifest(out)["clips"]] == ["zoë/клип_7"]


def lrs2(root: Path, good: Path) -> Path:
    for name in ("6100/00001", "6100/00002", "6200/00001", "6300/00009"):
        (root / "main" / f"{name}.mp4").parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(good, root / "main" / f"{name}.mp4")
    (root / "train.txt").write_text("6100/00001\n6100/00002\n")
    (root / "val.txt").write_bytes(b"6200/00001\r\n\r\n6400/00001\r\n")
    (root / "test.txt").write_text("6300/00009 NF\n")
    return root


def test_lists_of_lrs2(tmp_path: Path, good: Path) -> None:
    root = lrs2(tmp_path / "in", good)
    out = tmp_path / "out"
    report = prepare(root / "main", out, "lrs2", workers=1)
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
    with pytest.raises(ValueError, match=r"val\.txt, line 2: .*Expected <speaker>/<clip>"):
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


def test_what_cannot_be_prepared(tmp_path: Path, source: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--source"):
        run(tmp_path / "absent")
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match="no videos"):
        run(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no folder main"):
        run(source, dataset="lrs2")
    with pytest.raises(ValueError, match="--dataset"):
        run(source, dataset="voxceleb")
    with pytest.raises(ValueError, match="--max-failures"):
        run(source, max_failures=2)
    with pytest.raises(ValueError, match="--workers"):
        run(source, workers=0)


def test_lines_in_the_log_where_there_is_no_terminal(
    source: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_module, "_LOG_INTERVAL_S", 0.0)
    with caplog.at_level(logging.INFO, logger="datamodules.prepare"):
        run(source)
    assert sum("clips/s" in record.message for record in caplog.records) == 3
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="datamodules.prepare"):
        run(source, overwrite=True, progress=False)
    assert not caplog.records


def test_a_dead_worker_costs_one_job() -> None:
    # eval stands for work that any process can import; os._exit for a crash in a codec.
    jobs = ["1 + 1", "__import__('os')._exit(9)", "__import__('os').kill(__import__('os').getpid(), 9)", "2 * 3", "7"]
    results = dict(run_jobs(eval, jobs, 2))
    assert results.keys() == set(jobs)
    assert [results[job] for job in ("1 + 1", "2 * 3", "7")] == [2, 6, 7]
    deaths = [results[jobs[1]], results[jobs[2]]]
    assert all(isinstance(death, WorkerDied) for death in deaths)
    assert [str(death).rpartition(" ")[2] for death in deaths] == ["9", "-9"]


def test_a_dead_worker_is_a_failed_clip(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def died(function: Any, jobs: Any, workers: int) -> Iterator[Any]:
        for job in jobs:
            yield job, (WorkerDied("status -9") if job.source.id == "bob/1" else function(job))

    monkeypatch.setattr(prepare_module, "run_jobs", died)
    assert run(source).failed == 1
    assert failures(source.parent / "out")[0]["error"] == "WorkerDied"
    assert manifest(source.parent / "out")["complete"] is True


def _alive_in_group(group: int) -> list[str]:
    """Processes of a group that have not ended after 5 s; dead ones that nobody has waited for do not count."""
    found: list[str] = []
    for _ in range(50):
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                text = path.read_text()
            except OSError:
                continue
            state, _, its_group = text.rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                found.append(text)
        if not found:
            break
        time.sleep(0.1)
    return found


@pytest.mark.slow
def test_ctrl_c_leaves_whole_files_and_no_processes(tmp_path: Path, good: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for k in range(60):
        shutil.copy(good, source / f"{k:02d}.mp4")
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom datamodules.prepare import prepare\n"
        f"if __name__ == '__main__':\n    prepare(Path({str(source)!r}), Path({str(out)!r}), workers=2)\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while len(list(out.glob("*/*.safetensors"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    start = time.monotonic()
    _, messages = process.communicate(timeout=60)
    assert time.monotonic() - start < 15
    assert process.returncode != 0
    assert "KeyboardInterrupt" in messages
    assert not _alive_in_group(process.pid)
    made = sorted(path.name for path in (out / "clips").iterdir())
    assert 2 <= len(made) < 60
    assert all(name.endswith(".safetensors") and not name.startswith(".") for name in made)
    for name in made:
        assert read_header(out / "clips" / name).frames == 22
    content = manifest(out)
    assert content["complete"] is False
    assert {f"{Path(entry['id']).name}.safetensors" for entry in content["clips"]} <= set(made)


@pytest.mark.slow
def test_real_clips(real_clips: Path, tmp_path: Path) -> None:
    report = prepare(real_clips, tmp_path / "out", workers=2)
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
