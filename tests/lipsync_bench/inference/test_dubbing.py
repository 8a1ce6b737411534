# SPDX-License-Identifier: Apache-2.0
"""Dubbing a video with other audio: what is kept, what is passed through, what is logged, what is left
behind when it fails.
"""

import json
import os
import signal
import subprocess
import sys
import time
import wave
import weakref
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from lipsync_bench.datamodules.errors import FaceError, MediaError
from lipsync_bench.datamodules.faces import detectors
from lipsync_bench.datamodules.faces.crop_rules.boxes import DetectorBox, FaceMeshBox, smooth_boxes_ahead
from lipsync_bench.datamodules.faces.crops import crop_boxes
from lipsync_bench.datamodules.faces.options import FollowOptions
from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.datamodules.media.audio import frame_mels, load_audio, mel_spectrogram
from lipsync_bench.datamodules.media.video import VideoWriter, probe, read_frames
from lipsync_bench.datamodules.recipes.options import RecipeOptions
from lipsync_bench.datamodules.weights.options import WeightOptions
from lipsync_bench.inference import dub as dubbing
from lipsync_bench.inference import pasting
from lipsync_bench.inference.dub import dub, dub_frames
from lipsync_bench.inference.find_face import find_face
from lipsync_bench.inference.options import DubOptions
from lipsync_bench.models import Wav2Lip
from lipsync_bench.models.core.checkpoints import save_module
from lipsync_bench.models.core.session import Session, Video
from tests.commands import run_bench
from tests.datamodules.tracks import track_faces
from tests.sessions import StandIn, recipe_of, session_of, video_of

MESH = FaceMeshBox()
ROOT = Path(__file__).parents[3]


NEGATIVE = StandIn(lambda inputs: 1 - inputs.faces)
"""A method that inverts the colours of the faces it is given."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "wav2lip.ckpt"
    torch.manual_seed(0)
    save_module(Wav2Lip(width=0.125, recipe={"crop": "mesh", "paste": "feather"}), path)
    return path


@pytest.fixture(scope="module")
def talk(corpus: Path) -> Path:
    """40 frames at 25 fps."""
    return sorted((corpus / "videos").rglob("*.mp4"))[0]


@pytest.fixture(scope="module")
def talk_frames(talk: Path) -> list[np.ndarray]:
    return list(read_frames(talk))


def write_wav(path: Path, seconds: float, rate: int = 16000, channels: int = 1) -> Path:
    samples = np.random.default_rng(0).integers(-3000, 3000, (round(seconds * rate), channels), dtype=np.int16)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return path


def write_video(path: Path, frames: list[np.ndarray], fps: float = 25.0) -> Path:
    with VideoWriter(path, fps, frames[0].shape[:2], preset="ultrafast", crf=12) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def tags(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return dict(container.metadata)


def audio_facts(path: Path) -> tuple[int, int, float]:
    """Rate, channels and seconds."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        return stream.rate, stream.channels, float(stream.duration * stream.time_base)


def dubbed(frames: list[np.ndarray], hidden: tuple[int, ...] = (), paste: str = "feather") -> Session:
    """The session of a video with a face in the same place in each frame."""
    boxes = np.tile(np.array([4, 4, 44, 44]), (len(frames), 1))
    return session_of(NEGATIVE, video_of(frames, boxes, MEL, hidden=hidden), recipe_of(paste=paste))


def noise(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(1).integers(0, 256, (count, 50, 60, 3), dtype=np.uint8))


MEL = np.random.default_rng(2).uniform(-4, 4, (80, 60)).astype(np.float32)


# Length, rate, size


def test_rate_and_odd_size_are_kept(checkpoint, talk_frames, tmp_path):
    height, width = talk_frames[0].shape[:2]
    odd = [frame[: height - 1 + height % 2, : width - 1 + width % 2] for frame in talk_frames[:20]]
    video = write_video(tmp_path / "in.mp4", odd, 30.0)
    report = dub(checkpoint, video, write_wav(tmp_path / "a.wav", 0.5), tmp_path / "out.mp4", progress=False)
    info = probe(tmp_path / "out.mp4")
    assert (info.height, info.width) == odd[0].shape[:2]
    assert info.fps == report.fps == 30
    assert info.frames == report.frames == 15
    assert report.without_face == 0


@pytest.mark.parametrize(
    ("fit", "seconds", "frames", "used", "audio_s"),
    [
        ("loop", 2.2, 55, 40, 2.2),
        ("cut", 2.2, 40, 40, 1.6),
        ("loop", 0.8, 20, 20, 0.8),
        ("cut", 0.8, 20, 20, 0.8),
        ("loop", 1.78, 40, 40, 1.78),  # no jump back for a moment
    ],
)
def test_the_video_is_looped_or_cut_to_the_speech(checkpoint, talk, tmp_path, fit, seconds, frames, used, audio_s):
    out = tmp_path / "out.mp4"
    report = dub(checkpoint, talk, write_wav(tmp_path / "a.wav", seconds), out, DubOptions(fit=fit), progress=False)
    assert (report.frames, report.source_frames) == (frames, used)
    assert probe(out).frames == frames
    assert audio_facts(out)[2] == pytest.approx(audio_s, abs=0.07)  # whole AAC frames
    assert f"{frames} frames at 25 fps" in report.summary()
    assert ("ones looped" in report.summary()) == (frames > used)


def test_a_looped_video_starts_again_from_its_beginning():
    frames = noise(5)
    out = list(dub_frames(dubbed(frames, (3,), "box"), [*frames, *frames, *frames[:2]], batch_frames=4))
    assert len(out) == 12
    for k in range(5, 12):
        np.testing.assert_array_equal(out[k], out[k % 5])  # this method does not listen
    assert out[8] is frames[3]


def test_frames_to_and_fro_turn_at_both_ends_and_leave_nothing(tmp_path):
    video = write_video(tmp_path / "talk.mp4", [np.full((32, 48, 3), 40 * k, np.uint8) for k in range(6)])
    frames = dubbing._to_and_fro(video, 25.0, tmp_path / "out.mp4")
    shown = [round(next(frames).mean() / 40) for _ in range(20)]
    frames.close()
    assert shown == [*range(6), *reversed(range(6)), *range(6), 5, 4]
    assert [path.name for path in tmp_path.iterdir()] == ["talk.mp4"]


# The face


def test_frames_in_a_long_gap_pass_through_and_are_counted(checkpoint, talk_frames, tmp_path):
    frames = list(talk_frames)
    for k in [*range(10, 22), 30, 31]:
        frames[k] = np.zeros_like(frames[k])
    geometry = find_face(frames, MESH, FollowOptions(max_gap_frames=3))
    hidden = np.flatnonzero(~geometry.visible)
    assert len(geometry) == 40
    assert set(range(10, 22)) <= set(hidden)
    assert not {30, 31} & set(hidden)  # two frames between two with a face are bridged
    assert len(hidden) <= 15  # the tracker may need a frame to find the face again
    video = Video(geometry, lambda first, count: frame_mels(MEL, count, 25.0, first), lambda: iter(frames))
    out = list(dub_frames(session_of(NEGATIVE, video, recipe_of(paste="feather")), frames))
    for k in range(40):
        assert (out[k] is frames[k]) == (k in hidden)
        assert np.array_equal(out[k], frames[k]) == (k in hidden)

    video = write_video(tmp_path / "in.mp4", frames)
    target = tmp_path / "out.mp4"
    audio = write_wav(tmp_path / "a.wav", 2.4)
    report = dub(checkpoint, video, audio, target, follow=FollowOptions(max_gap_frames=3), progress=False)
    written = find_face(read_frames(video), MESH, FollowOptions(max_gap_frames=3)).visible
    assert report.without_face == (~written).sum() + (~written[:20]).sum()  # 60 frames: once and a half
    assert f"{report.without_face} without a face" in report.summary()
    black = list(read_frames(target))[15]
    assert black.max() <= 8


def test_nothing_is_bridged_before_the_first_and_after_the_last_face(talk_frames):
    black = np.zeros_like(talk_frames[0])
    frames = [black, black, *talk_frames[:8], black, black]
    visible = find_face(frames, MESH, FollowOptions(max_gap_frames=12)).visible
    assert not visible[[0, 1, 10, 11]].any()
    assert visible[4:10].all()


def test_no_face_is_an_error_and_leaves_nothing(checkpoint, tmp_path):
    video = write_video(tmp_path / "in.mp4", [np.full((96, 96, 3), 90, np.uint8)] * 10)
    with pytest.raises(FaceError, match=r"in\.mp4: no face in any of 10 frames"):
        dub(checkpoint, video, write_wav(tmp_path / "a.wav", 1), tmp_path / "out.mp4", progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.wav", "in.mp4"]


def test_boxes_are_those_of_preparation(talk_frames):
    track, size_hw = track_faces(talk_frames), talk_frames[0].shape[:2]
    np.testing.assert_array_equal(MESH.boxes(find_face(talk_frames, MESH)), crop_boxes(track, "mesh", size_hw))


@pytest.mark.parametrize("detector", ["mediapipe", "dlib"])
def test_the_68_points_are_not_computed(talk_frames, detector, monkeypatch):
    monkeypatch.setattr(detectors, "_predictor", lambda: pytest.fail("dlib's predictor was asked for"))
    assert find_face(talk_frames[:3], DetectorBox(detector)).visible.all()


def test_published_padding_and_smoothing(talk_frames):
    track, (height, width) = track_faces(talk_frames), talk_frames[0].shape[:2]
    raw = np.trunc(track.boxes)
    raw[:, 3] = np.minimum(raw[:, 3] + 10, height)
    raw[:, 0] = np.maximum(raw[:, 0] - 4, 0)
    rule = DetectorBox("mediapipe", pads=(0, 10, 4, 0))
    geometry = find_face(talk_frames, rule)
    np.testing.assert_array_equal(rule.boxes(geometry), raw)
    smooth = smooth_boxes_ahead(raw.astype(np.int64))
    np.testing.assert_array_equal(replace(rule, smoothing=5).boxes(geometry), smooth)
    assert (smooth[:, 2] <= width).all()
    with pytest.raises(ValueError, match=r"leave boxes below 16 px.*--recipe.pads"):
        DetectorBox("mediapipe", (-500, 0, 0, 0)).boxes(geometry)


def test_without_the_detector_of_a_recipe_the_error_says_what_to_do(talk, tmp_path):
    save_module(Wav2Lip(width=0.125), tmp_path / "published.ckpt")
    given = (tmp_path / "published.ckpt", talk, write_wav(tmp_path / "a.wav", 1), tmp_path / "out.mp4")
    weights = WeightOptions((str(tmp_path),))
    with pytest.raises(FileNotFoundError, match=r"bench weights fetch s3fd.*--recipe.crop mesh"):
        dub(*given, weights=weights, progress=False)
    dub(*given, DubOptions(fit="cut"), RecipeOptions(crop="mesh"), weights=weights, progress=False)
    assert "mesh 96x96 / same / reflect / box" in tags(tmp_path / "out.mp4")["lipsync_bench"]


# The speech


@pytest.mark.parametrize("padding", ["reflect", "constant"])
def test_mel_made_in_pieces_is_the_whole_mel(tmp_path, monkeypatch, padding):
    path = write_wav(tmp_path / "a.wav", 2.013)
    whole = mel_spectrogram(load_audio(path), padding)
    for piece in (40, 53, 79, 160):
        monkeypatch.setattr(dubbing, "_MEL_PIECE", piece)
        mel, samples = dubbing._speech(path, padding)
        assert samples == 32208
        np.testing.assert_allclose(mel, whole, atol=1e-5)


@pytest.mark.parametrize(
    ("rate", "channels", "written"), [(8000, 1, (8000, 1)), (48000, 6, (48000, 2)), (44100, 2, (44100, 2))]
)
def test_audio_keeps_its_rate_and_up_to_two_channels(checkpoint, talk, tmp_path, rate, channels, written):
    audio = write_wav(tmp_path / "a.wav", 0.6, rate, channels)
    dub(checkpoint, talk, audio, tmp_path / "out.mp4", progress=False)
    assert audio_facts(tmp_path / "out.mp4")[:2] == written
    assert np.abs(load_audio(tmp_path / "out.mp4")).max() > 0.01


def test_speech_that_cannot_be_used(checkpoint, talk, tmp_path):
    mute = write_video(tmp_path / "mute.mp4", noise(3))
    for audio, message in (
        (write_wav(tmp_path / "zero.wav", 0), "zero.wav"),
        (write_wav(tmp_path / "short.wav", 0.1), r"short\.wav: 0\.10 s of audio\. Expected at least 0\.19 s"),
        (mute, r"mute\.mp4: no audio track"),
    ):
        with pytest.raises(MediaError, match=message):
            dub(checkpoint, talk, audio, tmp_path / "out.mp4", progress=False)
    assert not (tmp_path / "out.mp4").exists()


# The mark


def test_the_file_is_marked_synthetic_unless_switched_off(checkpoint, talk, tmp_path):
    audio = write_wav(tmp_path / "a.wav", 0.4)
    arguments = ["dub", f"--checkpoint={checkpoint}", "--video", talk, "--audio", audio, "--out"]
    for extra in ([], ["--no-mark"]):
        assert run_bench(*arguments, tmp_path / f"out{len(extra)}.mp4", *extra) == 0
    marked, unmarked = tags(tmp_path / "out0.mp4"), tags(tmp_path / "out1.mp4")
    assert marked["synthetic"] == "true"
    for name in ("comment", "description"):
        assert marked[name].startswith("synthetic: lips re-generated by lipsync_bench")
        assert f"(wav2lip, sha256 {sha256(checkpoint)})" in marked[name]
    record = json.loads(marked["lipsync_bench"])
    assert (record["method"], record["weights_sha256"]) == ("wav2lip", sha256(checkpoint))
    assert not {"synthetic", "comment", "description", "lipsync_bench", "title"} & set(unmarked)


# Arguments


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"out": "talk"}, ValueError, r"is the file given as --video\. Expected another name"),
        ({"out": "checkpoint"}, ValueError, r"ends in '.ckpt'\. Expected a name ending in \.mp4"),
        ({"video": Path("none.mp4")}, FileNotFoundError, r"none\.mp4: no such file.*--video"),
        ({"recipe": RecipeOptions(smooth=False)}, ValueError, r"smooth is False with the crop rule mesh.*recipe.crop"),
        (
            {"options": DubOptions(device="cuda:99")},
            ValueError,
            r"device 'cuda:99': not there\. Expected .*Set --device",
        ),
    ],
)
def test_meaningless_arguments_are_refused(checkpoint, talk, tmp_path, change, error, message):
    given = {"checkpoint": checkpoint, "video": talk, "audio": write_wav(tmp_path / "a.wav", 1)}
    options = {"out": tmp_path / "out.mp4"} | change
    if isinstance(options["out"], str):
        options["out"] = given["video" if options["out"] == "talk" else "checkpoint"]
    before = sha256(talk)
    with pytest.raises(error, match=message):
        dub(**(given | options), progress=False)
    assert sha256(talk) == before


def test_choices_that_there_are_not():
    with pytest.raises(ValueError, match=r"fit 'bounce'\. Expected \w+ or \w+.*--fit"):
        DubOptions(fit="bounce")


# Memory and interruption


def test_only_a_batch_of_frames_is_alive_at_a_time():
    alive, most = set(), 0

    def stream():
        for k in range(300):
            frame = noise(1)[0]
            alive.add(k)
            weakref.finalize(frame, alive.discard, k)
            yield frame

    count = 0
    for _ in dub_frames(dubbed(noise(7), (2,)), stream(), batch_frames=4):
        most, count = max(most, len(alive)), count + 1
    assert count == 300
    assert 2 <= most <= 6


def test_an_interrupted_run_leaves_no_file_and_an_older_one_as_it_was(checkpoint, talk, tmp_path, monkeypatch):
    class Stop:
        count = 0

        def __call__(self, *_):
            self.count += 1
            if self.count > 5:
                raise KeyboardInterrupt
            return talk_frame

    talk_frame = next(read_frames(talk))
    audio, out = write_wav(tmp_path / "a.wav", 1), tmp_path / "out.mp4"
    out.write_bytes(b"old")
    monkeypatch.setattr(pasting, "blend", Stop())
    with pytest.raises(KeyboardInterrupt):
        dub(checkpoint, talk, audio, out, progress=False)
    assert out.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.wav", "out.mp4"]


@pytest.mark.slow
def test_a_killed_run_leaves_no_result_and_the_next_one_gives_the_same_file(checkpoint, talk, tmp_path):
    audio = write_wav(tmp_path / "a.wav", 300)
    folder = tmp_path / "out"
    command = [sys.executable, "-m", "lipsync_bench.bench", "dub", "--checkpoint", str(checkpoint), "--video"]
    command += [str(talk), "--audio", str(audio), "--out", str(folder / "out.mp4")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (folder.is_dir() and any(p.stat().st_size for p in folder.iterdir())):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    (left,) = folder.iterdir()
    assert left.name.startswith(".out.")  # hidden and not under the name asked for
    audio = write_wav(tmp_path / "a.wav", 1)
    dub(checkpoint, talk, audio, folder / "out.mp4", progress=False)
    dub(checkpoint, talk, audio, tmp_path / "again.mp4", progress=False)
    assert [p.name for p in folder.iterdir()] == ["out.mp4"]
    assert sha256(folder / "out.mp4") == sha256(tmp_path / "again.mp4")


# Real people


@pytest.mark.slow
def test_a_real_video_keeps_everything_but_the_lower_face(checkpoint, real_clips, tmp_path):
    out = tmp_path / "out.mp4"
    report = dub(checkpoint, real_clips / "talk1.mp4", real_clips / "audio1.wav", out, progress=False)
    info = probe(out)
    assert (info.width, info.height) == (700, 700)
    assert info.fps == pytest.approx(22.13, abs=0.01)
    assert report.frames == int(np.ceil(len(load_audio(real_clips / "audio1.wav")) / 16000 * report.fps))
    assert report.without_face == 0
    before = next(read_frames(real_clips / "talk1.mp4", None)).astype(int)
    difference = np.abs(next(read_frames(out, None)) - before).mean(axis=-1)
    x1, y1, x2, y2 = MESH.boxes(find_face([before.astype(np.uint8)], MESH))[0].astype(int)
    lower = difference[(y1 + y2) // 2 + 20 : y2 - 20, x1 + 40 : x2 - 40].mean()
    difference[y1 - 10 : y2 + 30, x1 - 10 : x2 + 10] = 0
    assert difference.mean() < 2  # encoding
    assert lower > 10
