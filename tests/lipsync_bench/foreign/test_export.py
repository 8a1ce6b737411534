# SPDX-License-Identifier: Apache-2.0
"""Exported pairs come back: copied to the names that they state, they are scored as the originals."""

import csv
import hashlib
import json
import shutil
from pathlib import Path

import av
import pytest

from lipsync_bench.datamodules.media.audio import load_audio
from lipsync_bench.datamodules.media.video import read_frames
from lipsync_bench.datamodules.prepare.options import PrepareOptions
from lipsync_bench.datamodules.prepare.prepare import prepare
from lipsync_bench.results.rows import read_rows
from tests.commands import run_bench
from tests.lipsync_bench.killing import digests, kill_when


def pairs(folder: Path) -> list[dict[str, str]]:
    with (folder / "pairs.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["paired_face_box", "videoretalking"])
def test_what_is_exported_comes_back(corpus: Path, tmp_path: Path, protocol: str) -> None:
    data = ("--dataset", "synthetic", "--root", corpus / "clips", "--protocol", protocol)
    assert run_bench("export", *data, "--out", tmp_path / "out") == 0
    lines = pairs(tmp_path / "out")
    assert len(lines) == 2
    for line in lines:
        video, audio = (tmp_path / "out" / line[name] for name in ("video", "audio"))
        assert (sha256(video), sha256(audio)) == (line["video_sha256"], line["audio_sha256"])
        assert (line["frames"], line["seconds"]) == ("40", "1.6")
        assert (line["clip"] == line["audio_clip"]) is (protocol == "paired_face_box")
        with av.open(str(video)) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.average_rate, container.streams.audio) == ("h264", 25, ())
        assert len(list(read_frames(video))) == 40
        assert len(load_audio(audio)) == 40 * 640
        copy = tmp_path / "copies" / line["expected"]
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, copy)
    assert "--pred METHOD=FOLDER" in (tmp_path / "out" / "README.txt").read_text()
    assert (tmp_path / "out" / "failures.csv").read_text() == "clip,audio_clip,reason\n"
    results = tmp_path / "results"
    assert (
        run_bench("evaluate", *data, "--pred", f"copy={tmp_path / 'copies'}", "--out", results, "--device", "cpu") == 0
    )
    rows = read_rows(results)
    ours = rows[rows["method"] == "copy"]
    assert ours["status"].tolist() == ["ok"] * 2
    assert ours["frames"].tolist() == [40] * 2
    if protocol == "paired_face_box":
        assert ours["psnr"].min() > 42


@pytest.mark.slow
def test_an_export_is_killed_and_resumed(corpus: Path, tmp_path: Path) -> None:
    data = ("export", "--dataset", "synthetic", "--root", corpus / "clips", "--split", "train")
    out, whole = tmp_path / "out", tmp_path / "whole"
    kill_when(lambda: any((out / ".records").rglob("*.json")), *data, "--out", out)
    first = {path: path.stat().st_mtime_ns for path in (out / "video").rglob("*.mp4")}
    for folder in (out, whole):
        assert run_bench(*data, "--out", folder) == 0
    assert digests(out) == digests(whole)
    assert all(path.stat().st_mtime_ns == time for path, time in first.items())


def test_parts_join_and_other_rules_are_refused(corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = ("export", "--dataset", "synthetic", "--root", corpus / "clips", "--out", tmp_path)
    assert run_bench(*data, "--clips", "s01/*") == 0
    assert [line["clip"] for line in pairs(tmp_path)] == ["s01/00003"]
    assert run_bench(*data) == 0
    assert "1 pairs exported, 1 already there, 0 failed" in caplog.text
    assert [line["clip"] for line in pairs(tmp_path)] == ["s01/00003", "s02/00003"]
    made = tmp_path / pairs(tmp_path)[0]["video"]
    made.write_bytes(made.read_bytes()[:-1])  # what somebody has touched is made again
    assert run_bench(*data, "--limit", 1) == 0
    assert sha256(made) == pairs(tmp_path)[0]["video_sha256"]
    before = digests(tmp_path)
    assert run_bench(*data, "--protocol", "videoretalking") == 1
    assert "holds the pairs of" in caplog.text
    assert run_bench(*data, "--only", "wav2lip") == 1
    assert digests(tmp_path) == before


def test_what_cannot_be_exported_is_listed(corpus: Path, tmp_path: Path) -> None:
    """One video is gone, two have one name; the others are exported."""
    source = next((corpus / "videos").rglob("00001.mp4"))
    videos = tmp_path / "vidéos"
    for name in ("a/gone.mp4", "a/twin.mp4", "a/twin.mov", "b/good one.mp4"):
        (videos / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, videos / name)
    prepare(videos, tmp_path / "clips", PrepareOptions("folder", workers=1), progress=False)
    (videos / "a" / "gone.mp4").unlink()
    path = tmp_path / "mine.yaml"
    (tmp_path / "splits").mkdir()
    clips = sorted(
        p.relative_to(tmp_path / "clips").with_suffix("") for p in (tmp_path / "clips").rglob("*.safetensors")
    )
    (tmp_path / "splits" / "test.txt").write_text("".join(f"{clip}\n" for clip in clips))
    for name in ("train", "val"):
        (tmp_path / "splits" / f"{name}.txt").write_text("")
    data = {"class_path": "lipsync_bench.datamodules.ClipFolder"}
    data |= {"init_args": {"root": "X", "splits": str(tmp_path / "splits")}}
    path.write_text(json.dumps({"data": data, "split": "test"}))
    out = tmp_path / "out"
    assert run_bench("export", "--dataset", path, "--root", tmp_path / "clips", "--out", out) == 0
    assert [line["expected"] for line in pairs(out)] == ["b/good one.mp4"]
    with (out / "failures.csv").open(newline="") as file:
        reasons = {row["clip"]: row["reason"] for row in csv.DictReader(file)}
    assert len(reasons) == 3
    assert sum("several videos have this name" in reason for reason in reasons.values()) == 2
    assert "no such file" in reasons["a/gone"]
