# SPDX-License-Identifier: Apache-2.0
"""Which files are videos: content decides, and nothing that this suite has written is a source."""

import logging
import os
import unicodedata
from pathlib import Path

import av
import numpy as np
import pytest

from lipsync_bench.datamodules.media.video_files import REPORT_MARKER, find_videos, is_video
from lipsync_bench.datamodules.prepare.options import PrepareOptions
from lipsync_bench.datamodules.prepare.prepare import prepare
from lipsync_bench.datamodules.prepare.sources import find_sources
from tests.datamodules.preparation import failures, write_video


def film(path: Path, codec: str, pixels: str = "yuv420p", frames: int = 5, form: str | None = None) -> Path:
    with av.open(str(path), "w", format=form) as out:
        stream = out.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        for k in range(frames):
            image = np.random.default_rng(k).integers(0, 256, (48, 64, 3), np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixels)))
        out.mux(stream.encode(None))
    return path


def audio_file(path: Path, codec: str) -> Path:
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=48000, layout="mono")
        form = "s16" if codec.startswith("pcm") else "fltp"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16 if form == "s16" else np.float32), form, "mono")
        frame.sample_rate = 48000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "codec", "form"),
    [
        ("cremad.flv", "flv1", None),
        ("broadcast.ts", "mpeg2video", None),
        ("windows.wmv", "wmv2", None),
        ("studio.mxf", "mpeg2video", None),
        ("no suffix", "mpeg4", "mp4"),
        ("strange.dat", "mpeg4", "avi"),
        ("moving.gif", "gif", None),
    ],
)
def test_a_video_is_found_whatever_its_name(tmp_path: Path, name: str, codec: str, form: str | None) -> None:
    path = film(tmp_path / name, codec, "rgb8" if codec == "gif" else "yuv420p", form=form)
    assert is_video(path)
    assert list(find_videos(tmp_path)) == [path]


def test_other_files_beside_videos_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.txt").write_text("Text:  HELLO\nConf:  4\n" * 400)  # libav shows it as a film
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "a.align").write_text("0 23750 sil\n")
    (tmp_path / "a.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nfile.ts\n#EXT-X-ENDLIST\n")
    (tmp_path / "a.npy").write_bytes(np.random.default_rng(0).bytes(30000))
    (tmp_path / "zero").touch()
    film(tmp_path / "a.png", "png", "rgb24", frames=1, form="image2")
    film(tmp_path / "a.jpg", "mjpeg", "yuvj420p", frames=1, form="image2")
    film(tmp_path / "still.gif", "gif", "rgb8", frames=1)
    audio_file(tmp_path / "a.wav", "pcm_s16le")
    audio_file(tmp_path / "a.m4a", "aac")
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "._a.mp4").write_bytes(b"\0\5\x16\7")  # of a Mac
    with caplog.at_level(logging.INFO):
        assert list(find_videos(tmp_path)) == []
    assert "13 files are not videos and are skipped (3 without suffix, " in caplog.text


def test_a_broken_file_with_a_videos_suffix_is_found(tmp_path: Path) -> None:
    for name in ("cut.MP4", "cut.flv", "cut.3gp"):
        (tmp_path / name).write_bytes(b"nothing")
    audio_file(tmp_path / "only audio.mp4", "aac")
    os.mkfifo(tmp_path / "pipe.mov")
    (tmp_path / "gone.mkv").symlink_to(tmp_path / "nowhere.mkv")
    (tmp_path / "folder.mp4").mkdir()
    report = prepare(tmp_path, tmp_path / "out", PrepareOptions(workers=1), progress=False)
    assert report.clips == ()
    assert [row["source"] for row in failures(tmp_path / "out")] == [
        *("cut.3gp", "cut.flv", "cut.MP4", "gone.mkv", "only audio.mp4", "pipe.mov"),
    ]
    assert all(row["source"] in row["reason"] for row in failures(tmp_path / "out"))


def test_folders_this_suite_has_written_are_not_sources(tmp_path: Path) -> None:
    good = film(tmp_path / "good.mp4", "mpeg4")
    marks = {
        "results": ("clips.csv", "protocol,method,generator_sha256\n"),
        "ranks": ("clips.rank3.csv", "protocol,method,generator_sha256\n"),
        "begun": ("manifest.json", '{"format": 1, "identity": {}}'),
        "clips": ("manifest.json", '{"schema": "1", "complete": true, "source_root": "/x"}'),
        "site": (REPORT_MARKER, ""),
    }
    for folder, (name, text) in marks.items():
        (tmp_path / folder / "videos").mkdir(parents=True)
        (tmp_path / folder / name).write_text(text)
        film(tmp_path / folder / "videos" / "kept.mp4", "mpeg4")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "manifest.json").write_text('{"identity": "of somebody"}')
    own = film(tmp_path / "own" / "a.mp4", "mpeg4")
    (tmp_path / "pred").mkdir()
    fake = film(tmp_path / "pred" / "good.mp4", "mpeg4")
    (tmp_path / "link").symlink_to(tmp_path / "pred")
    (tmp_path / "circle").symlink_to(tmp_path)
    assert list(find_videos(tmp_path, [tmp_path / "pred"])) == [good, own]
    assert list(find_videos(tmp_path / "pred", [tmp_path, tmp_path / "pred"])) == [fake]  # never the folder itself
    kept = tmp_path / "results" / "videos"
    assert list(find_videos(kept)) == [kept / "kept.mp4"]
    assert [item.id for item in find_sources(tmp_path, exclude=[tmp_path / "pred"])] == ["clips/good", "own/a"]


def test_two_videos_of_one_id_are_two_failures_and_the_others_are_prepared(tmp_path: Path, good: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    names = [unicodedata.normalize(form, "é.mp4") for form in ("NFC", "NFD")]
    for name in ("good.mp4", *names, "a b.mp4", "a?b.mp4"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(good.read_bytes())
    report = prepare(source, out, PrepareOptions(workers=1), progress=False)
    assert (report.clips, report.failed) == (("clips/good",), 4)
    assert {row["source"] for row in failures(out)} == {*names, "a b.mp4", "a?b.mp4"}
    assert all("2 videos have the id" in row["reason"] for row in failures(out))


def test_another_video_of_the_same_size_and_time_is_noticed(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    one, two = write_video(source / "a.mp4", 22), write_video(tmp_path / "two.mp4", 23)
    size = max(path.stat().st_size for path in (one, two)) + 64
    for path in (one, two):
        content = path.read_bytes()
        rest = size - len(content)
        path.write_bytes(content + rest.to_bytes(4, "big") + b"free" + bytes(rest - 8))  # an empty box
        os.utime(path, (1, 1))
    assert prepare(source, out, PrepareOptions(workers=1), progress=False).done == 1
    assert prepare(source, out, PrepareOptions(workers=1), progress=False).skipped == 1
    one.write_bytes(two.read_bytes())
    os.utime(one, (1, 1))
    assert one.stat().st_size == size
    assert prepare(source, out, PrepareOptions(workers=1), progress=False).done == 1
