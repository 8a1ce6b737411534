# SPDX-License-Identifier: Apache-2.0
"""What users really give to the commands: cut, silent, empty, turned, oddly named files, lists that lead elsewhere.
Each is a counted failure or a clear error, and whatever can be used is used.
"""

import csv
import os
import re
import shutil
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.media.video import VideoWriter, probe, read_frames
from lipsync_bench.evaluation.candidates import VideoFolder
from lipsync_bench.models import Wav2Lip
from lipsync_bench.models.core.checkpoints import save_module
from lipsync_bench.results.rows import read_rows
from tests.commands import run_bench

CHANNELS = {"mono": 1, "stereo": 2, "5.1": 6}
TONE_HZ = 440


def film(
    path: Path, frames: Sequence[np.ndarray], *, rate: int = 16000, layout: str | None = "mono", turn: int = 0
) -> Path:
    """An MP4 as a camera writes it, its index at the end: a tone in all channels, the picture stored turned to the left
    by `turn` degrees, with a display matrix that turns it back.
    """
    stored = [np.ascontiguousarray(np.rot90(frame, turn // 90)) for frame in frames]
    with av.open(f"file:{path}", "w", format="mp4") as container:
        video: Any = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "15"})
        video.height, video.width = stored[0].shape[:2]
        video.pix_fmt = "yuv420p"
        if turn:
            video.set_display_rotation(-turn)
        sound: Any = container.add_stream("aac", rate=rate, layout=layout) if layout else None
        for image in stored:
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode(None))
        if layout:
            wave = tone(len(frames) / 25, rate)
            for start in range(0, len(wave), 1024):
                piece = np.tile(wave[start : start + 1024], (CHANNELS[layout], 1))
                frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=layout)
                frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
                container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return path


def write_video(path: Path, frames: Sequence[np.ndarray], **options: Any) -> Path:
    """As the suite writes it: the index comes first, sides may be odd."""
    with VideoWriter(path, 25.0, frames[0].shape[:2], preset="ultrafast", **options) as writer:
        for frame in frames:
            writer.write(np.ascontiguousarray(frame))
    return path


def tone(seconds: float, rate: int) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * TONE_HZ * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write_wav(path: Path, samples: np.ndarray, rate: int = 16000, kind: int = 1) -> Path:
    """Mono; `kind` 1 for integers, 3 for floats."""
    width, data = samples.dtype.itemsize, samples.tobytes()
    head = struct.pack(
        "<4sI8sIHHIIHH", b"RIFF", 36 + len(data), b"WAVEfmt ", 16, kind, 1, rate, rate * width, width, 8 * width
    )
    path.write_bytes(head + b"data" + struct.pack("<I", len(data)) + data)
    return path


def cut_off(source: Path, path: Path) -> Path:
    content = source.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def loudest_hz(wave: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(wave[:16000].astype(float))).argmax())


@pytest.fixture(scope="module")
def good(corpus: Path) -> Path:
    """40 frames of 256 x 256; its index comes first."""
    return corpus / "videos" / "main" / "s01" / "00001.mp4"


@pytest.fixture(scope="module")
def frames(good: Path) -> list[np.ndarray]:
    return list(read_frames(good))


@pytest.fixture(scope="module")
def two_faces(corpus: Path, frames: list[np.ndarray]) -> list[np.ndarray]:
    """A face at the left, a smaller one at the right."""
    others = read_frames(corpus / "videos" / "main" / "s02" / "00001.mp4")
    small = [cv2.resize(frame, (176, 176), interpolation=cv2.INTER_AREA) for frame in others]
    return [
        np.hstack([frame[:, 48:208], np.pad(other, ((80, 0), (0, 0), (0, 0)))])
        for frame, other in zip(frames, small, strict=True)
    ]


@pytest.fixture(scope="module")
def bad(good: Path, frames: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that are of no use, whatever is done with them."""
    folder = tmp_path_factory.mktemp("bad")
    cut_off(good, folder / "cut.mp4")
    cut_off(film(folder / "whole.mp4", frames), folder / "no index.mp4")
    (folder / "whole.mp4").unlink()
    film(folder / "mute.mp4", frames, layout=None)
    film(folder / "nobody.mp4", [np.full((160, 160, 3), 90, np.uint8)] * 40)
    (folder / "zero.mp4").touch()
    (folder / "still.mp4").write_bytes(cv2.imencode(".jpg", frames[0])[1].tobytes())
    speech = (20000 * tone(1.6, 16000)).astype(np.int16)
    write_wav(folder / "sound only.mp4", speech)
    cut_off(write_wav(folder / "cut.wav", speech), folder / "cut.wav")
    write_wav(folder / "short.wav", speech[:1600])
    write_wav(folder / "nan.wav", np.where(np.arange(16000) == 8000, np.nan, 0).astype(np.float32), kind=3)
    return folder


# Preparation


def read_clip(path: Path) -> dict[str, Any]:
    """What two clips of the same frames share; `small` are the crops, shrunk."""
    with Clip(path) as clip:
        assert len(clip) == 40
        small = [cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA).astype(int) for image in clip.frames()]
        size = (clip.header.source_width, clip.header.source_height)
        return {"boxes": clip.boxes(), "wav": clip.wav(), "small": np.stack(small), "size": size}


def test_a_folder_of_all_sorts_is_prepared(bad, good, frames, two_faces, tmp_path, caplog):
    source, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(bad, source)
    names = ["good.mp4", "Ünïcode клип 说话.mp4", "[take 1] final (2).mp4"]
    for name in names:
        shutil.copy(good, source / name)
    film(source / "two.mp4", two_faces)
    film(source / "phone 8 kHz.mp4", frames, rate=8000)
    film(source / "5.1.mp4", frames, rate=48000, layout="5.1")
    film(source / "turned.mp4", [frame[:, 32:224] for frame in frames], turn=90)
    film(source / "upside down.mp4", [frame[:, 32:224] for frame in frames], turn=180)
    write_video(source / "odd.mp4", [frame[20:223, 45:206] for frame in frames], audio=tone(1.6, 16000))

    assert run_bench("prepare", "--source", source, "--out", out, "--workers", 1) == 0
    with (out / "failures.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["source"]: (row["error"], row["reason"]) for row in csv.DictReader(file)}
    expected = {
        "cut.mp4": ("MediaError", r"cut\.mp4: (audio|video) ends after .* cut off or damaged\. Expected 1\.\d+ s"),
        "mute.mp4": ("MediaError", r"mute\.mp4: no audio track\. Expected a video with audio"),
        "no index.mp4": ("MediaError", r"no index\.mp4: cannot be opened as media .*Expected a whole video"),
        "nobody.mp4": ("FaceError", r"no face in any of 40 frames; expected an upright one of .*--detector"),
        "sound only.mp4": ("MediaError", r"holds audio but no video track\. Expected a video"),
        "still.mp4": ("MediaError", r"still\.mp4: holds a single image\. Expected a video"),
        "zero.mp4": ("MediaError", r"zero\.mp4: the file is empty \(0 bytes\)\. Expected a video"),
    }
    assert rows.keys() == expected.keys()
    for name, (error, reason) in expected.items():
        assert rows[name][0] == error
        assert re.search(reason, rows[name][1]), rows[name]
    assert "9 clips prepared, 0 already there, 7 failed" in caplog.text

    made = {path.stem for path in (out / "clips").iterdir()}
    assert made == {
        "good",
        "Ünïcode_клип_说话",
        "_take_1__final__2_",
        "two",
        "phone_8_kHz",
        "5.1",
        "turned",
        "upside_down",
        "odd",
    }
    clips = {name: read_clip(out / "clips" / f"{name}.safetensors") for name in made}
    whole = clips["good"]
    for name in ("Ünïcode_клип_说话", "_take_1__final__2_"):
        np.testing.assert_array_equal(clips[name]["boxes"], whole["boxes"])
    assert (clips["two"]["boxes"][:, 2] <= 160).all()
    sizes = {name: clips[name]["size"] for name in ("two", "turned", "upside_down", "odd")}
    assert sizes == {"two": (336, 256), "turned": (192, 256), "upside_down": (192, 256), "odd": (161, 203)}
    corners = {"phone_8_kHz": (0, 0), "5.1": (0, 0), "turned": (32, 0), "upside_down": (32, 0), "odd": (45, 20)}
    for name, (x, y) in {**corners, "two": (48, 0)}.items():  # of what was cut out of the good video's frames
        assert np.abs(clips[name]["boxes"] + [x, y, x, y] - whole["boxes"]).max() <= 6, name
        assert np.abs(clips[name]["small"] - whole["small"]).mean() < 6, name
    for name in ("phone_8_kHz", "5.1"):
        assert len(clips[name]["wav"]) == pytest.approx(1.6 * 16000, abs=3000)  # whole AAC frames
        assert loudest_hz(clips[name]["wav"]) == TONE_HZ

    caplog.clear()
    assert run_bench("prepare", "--source", source, "--out", out, "--workers", 1, "--max-failures", 0.3) == 1
    assert re.search(r"error: 0 clips prepared, 9 already there, 7 failed .*at most 30% failures", caplog.text)
    assert {path.stem for path in (out / "clips").iterdir()} == made


def test_a_name_that_is_no_utf8_harms_no_other(good, tmp_path):
    """As unpacked from an old archive: the bytes of Latin-1."""
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    shutil.copy(good, source / "good.mp4")
    shutil.copy(good, os.fsencode(source) + b"/caf\xe9.mp4")
    assert run_bench("prepare", "--source", source, "--out", out, "--workers", 1) == 0
    with (out / "failures.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        failed = list(csv.DictReader(file))
    assert (out / "clips" / "good.safetensors").is_file()
    assert len(failed) + len(list((out / "clips").iterdir())) == 2


def test_a_name_with_a_line_break_is_a_failure_and_the_evaluation_goes_on(good, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("good.mp4", "two\nlines\x1b[31m.mp4"):
        shutil.copy(good, source / name)
    assert run_bench("evaluate", "--pred", source, "--target", source, "--out", out, "--workers", 1) == 0
    assert set(read_rows(out)["clip"]) == {"clips/good"}
    assert "control characters" in (out / "targets" / "failures.csv").read_text()


# Evaluation


def test_predictions_of_all_sorts_are_scored_or_counted(bad, good, frames, corpus, tmp_path, caplog):
    target, pred, out = tmp_path / "target", tmp_path / "mine", tmp_path / "out"
    target.mkdir()
    pred.mkdir()
    short = film(tmp_path / "short.mp4", frames[:15])
    unusable = ["cut", "no index", "still", "zero", "sound only"]
    for name in ("[take 1] final", "клип 7", "turned", "mute", "gone", *unusable):
        shutil.copy(short, target / f"{name}.mp4")
    shutil.copy(good, target / "cut later.mp4")
    shutil.copy(bad / "cut.mp4", target / "broken target.mp4")
    for name in ("mute", *unusable):
        shutil.copy(bad / f"{name}.mp4", pred)
    shutil.copy(short, pred / "[take 1] final.mp4")
    shutil.copy(corpus / "videos" / "main" / "s02" / "00001.mp4", pred / "клип 7.mp4")
    film(pred / "turned.mp4", frames, rate=48000, layout="5.1", turn=90)
    cut_off(write_video(tmp_path / "whole.mp4", frames), pred / "cut later.mp4")

    assert run_bench("evaluate", "--pred", pred, "--target", target, "--out", out, "--workers", 1) == 0
    rows = read_rows(out)
    assert rows["method"].value_counts().to_dict() == {"ground_truth": 11, "mine": 11, "repeated_frame": 11}
    assert set(rows[rows["status"] == "failed"]["method"]) == {"mine"}
    mine = rows[rows["method"] == "mine"].set_index("clip")
    scored = mine[mine["status"] == "ok"]["psnr"].to_dict()
    assert scored.keys() == {"clips/_take_1__final", "clips/клип_7", "clips/turned", "clips/mute"}
    assert scored["clips/_take_1__final"] == np.inf
    assert scored["clips/клип_7"] < 20
    assert min(scored["clips/turned"], scored["clips/mute"]) > 30
    failed = mine[mine["status"] == "failed"]["reason"].to_dict()
    expected = {
        "cut": r"cut\.mp4: audio ends after .* cut off or damaged\. Expected 1\.\d+ s",
        "cut_later": r"cut later\.mp4: video ends after .* cut off or damaged\. Expected 1\.\d+ s",
        "no_index": r"no index\.mp4: cannot be opened as media .*Expected a whole video",
        "still": r"still\.mp4: holds a single image\. Expected a video",
        "zero": r"zero\.mp4: the file is empty \(0 bytes\)\. Expected a video",
        "sound_only": r"sound only\.mp4: holds audio but no video track\. Expected a video",
        "gone": r"clips/gone: no prediction in .*Expected gone\.mp4",
    }
    assert failed.keys() == {f"clips/{name}" for name in expected}
    for name, reason in expected.items():
        assert re.match(f"MediaError: .*{reason}", failed[f"clips/{name}"]), failed[f"clips/{name}"]
    board = pd.read_csv(out / "leaderboard.csv").set_index("method")
    assert board.loc["mine", ["clips", "failures"]].tolist() == [4, 7]
    assert board.loc["repeated_frame", ["clips", "failures"]].tolist() == [11, 0]
    assert "1 of the targets could not be prepared" in caplog.text
    assert "broken target.mp4" in (out / "targets" / "failures.csv").read_text()


@pytest.mark.parametrize(
    ("predictions", "targets"),
    [
        (["what?.mp4", "whats.mp4"], {"what?.mp4": "what?.mp4", "whats.mp4": "whats.mp4"}),
        (["a*.mp4", "ab.mp4", "[a].mp4"], {"a*.mp4": "a*.mp4", "[a].mp4": "[a].mp4"}),
        (["5.mp4", "5.1.mp4"], {"5.mp4": "5.mp4", "5.1.mov": "5.1.mp4"}),
        (["s1/00001.mp4"], {"s1/00001.mp4": "s1/00001.mp4", "s2/00001.mp4": None}),
        (["00001.mp4"], {"s1/00001.mp4": None, "s2/00001.mp4": None}),
        (["made/00001.mp4"], {"s1/00001.mp4": "made/00001.mp4"}),
    ],
)
def test_a_prediction_belongs_to_one_target(tmp_path, predictions, targets):
    for name in predictions:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    videos = VideoFolder("mine", tmp_path, {name: name for name in targets})
    for name, prediction in targets.items():
        if prediction is not None:
            assert videos.file(name, name) == tmp_path / prediction
        else:  # somebody else's video must not be scored for it
            with pytest.raises(MediaError, match=rf"{name}: .*Expected"):
                videos.file(name, name)


# Lists


@pytest.mark.parametrize("line", ["../secret/1", "/etc/passwd", "s01/../../1"])
def test_a_list_that_leads_elsewhere_stops_the_command(corpus, tmp_path, caplog, line):
    source, clips = tmp_path / "videos", tmp_path / "clips"
    shutil.copytree(corpus / "videos" / "main", source / "main")
    (source / "val.txt").write_text(f"s01/00001\n{line}\n")
    assert run_bench("prepare", "--dataset", "lrs2", "--source", source, "--out", tmp_path / "out") == 1
    assert re.search(rf"error: .*val\.txt:2: found '{line}'\. Expected <speaker>/<clip>.*Correct the list", caplog.text)
    assert not (tmp_path / "out").exists()
    caplog.clear()

    shutil.copytree(corpus / "clips", clips)
    with (clips / "splits" / "test.txt").open("a") as file:
        file.write(f"{line}\n")
    assert run_bench("evaluate", "--dataset", "synthetic", "--root", clips, "--out", tmp_path / "out") == 1
    assert re.search(
        rf"error: .*test\.txt:3: found '{line}'\. Expected <speaker>/<clip>.*Correct the list", caplog.text
    )
    assert not (tmp_path / "out").exists()


# Dubbing


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "wav2lip.ckpt"
    torch.manual_seed(0)
    save_module(Wav2Lip(width=0.125, recipe={"crop": "mesh"}), path)
    return path


def run_dub(checkpoint: Path, video: Path, audio: Path, out: Path) -> int:
    return run_bench("dub", "--checkpoint", checkpoint, "--video", video, "--audio", audio, "--out", out)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cut.mp4", r"cut\.mp4: video ends after .* cut off or damaged\. Expected 1\.60 s, .*Replace the file"),
        ("no index.mp4", r"no index\.mp4: cannot be opened as media .*Expected a whole video .*Replace the file"),
        ("nobody.mp4", r"nobody\.mp4: no face in any of 40 frames; expected an upright one of .*--detector"),
        ("zero.mp4", r"zero\.mp4: the file is empty \(0 bytes\)\. Expected a video .*Copy it again"),
        ("still.mp4", r"still\.mp4: holds a single image\. Expected a video.*Choose another file"),
        ("sound only.mp4", r"sound only\.mp4: holds audio but no video track\. Expected a video.*Choose another file"),
        (".", r"bad\d+: not a regular file\. Expected a video .*Give the path of one file"),
    ],
)
def test_a_video_that_cannot_be_dubbed(checkpoint, bad, good, tmp_path, caplog, name, message):
    assert run_dub(checkpoint, bad / name, good, tmp_path / "out" / "out.mp4") == 1
    assert re.search(f"error: .*{message}", caplog.text), caplog.text
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cut.mp4", r"cut\.mp4: audio ends after .* cut off or damaged\. Expected 1\.\d+ s, .*Replace the file"),
        ("cut.wav", r"cut\.wav: audio ends after 0\.80 s, .*Expected 1\.60 s, .*Replace the file"),
        ("no index.mp4", r"no index\.mp4: cannot be opened as media .*Expected a whole video .*Replace the file"),
        ("mute.mp4", r"mute\.mp4: no audio track\. Expected a file with audio\. Choose another file"),
        ("zero.mp4", r"zero\.mp4: the file is empty \(0 bytes\)\. Expected a video or audio file\. Copy it again"),
        ("still.mp4", r"still\.mp4: no audio track\. Expected a file with audio\. Choose another file"),
        ("nan.wav", r"nan\.wav: NaN or infinite audio samples .*Expected finite samples\. Export the audio again"),
        ("short.wav", r"short\.wav: 0\.10 s of audio\. Expected at least 0\.19 s\. Use longer speech \(--audio\)"),
    ],
)
def test_speech_that_cannot_be_dubbed(checkpoint, bad, good, tmp_path, caplog, name, message):
    assert run_dub(checkpoint, good, bad / name, tmp_path / "out" / "out.mp4") == 1
    assert re.search(f"error: .*{message}", caplog.text), caplog.text
    assert not list(tmp_path.rglob("*"))


def test_unusual_videos_are_dubbed(checkpoint, frames, two_faces, tmp_path):
    speech = film(tmp_path / "речь [1].mp4", frames[:20], rate=48000, layout="5.1")
    turned = film(tmp_path / "turned.mp4", [frame[:, 32:224] for frame in frames[:25]], turn=90)
    out = tmp_path / "[дубль 1].mp4"
    assert run_dub(checkpoint, turned, speech, out) == 0
    info = probe(out)
    assert (info.width, info.height, info.rotation) == (192, 256, 0)
    assert 20 <= info.frames <= 21  # whole AAC frames
    assert changed(frames[10][:, 32:224], list(read_frames(out))[10])[:60].mean() < 4  # above the face
    assert run_dub(checkpoint, film(tmp_path / "two.mp4", two_faces[:25]), speech, out) == 0
    difference = changed(two_faces[10], list(read_frames(out))[10])
    assert difference[:, 160:].mean() < 3
    assert difference[120:200, 40:120].mean() > 10


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return np.abs(after.astype(int) - before).mean(axis=-1)
