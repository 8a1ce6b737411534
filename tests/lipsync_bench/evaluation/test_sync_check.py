# SPDX-License-Identifier: Apache-2.0
"""`bench sync` on a real video of the corpus, with SyncNet at its full width and filled weights."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.datamodules.media.audio import load_audio, to_int16
from lipsync_bench.datamodules.media.video import VideoWriter, read_frames
from lipsync_bench.evaluation import sync_check
from lipsync_bench.metrics.sync.distances import SyncScore
from lipsync_bench.metrics.sync.lse import score_clip
from lipsync_bench.models.pretrained.syncnet import load_syncnet
from tests import golden
from tests.commands import run_bench
from tests.weight_files import make_official


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("syncnet") / "syncnet_v2.model"
    torch.save(golden.filled(golden.names_and_shapes("syncnet_v2")), path)
    return path


def run(*arguments):
    return run_bench("sync", *arguments)


@pytest.mark.slow
def test_it_prints_the_metrics_values_and_the_weights(corpus, weights, tmp_path, capsys):
    source = sorted((corpus / "videos" / "main").glob("*/*.mp4"))[0]
    frames = list(read_frames(source))[:12]
    video = tmp_path / "short.mp4"
    with VideoWriter(video, 25.0, frames[0].shape[:2], audio=load_audio(source)[: 16000 * 12 // 25], crf=1) as writer:
        for frame in frames:
            writer.write(frame)
    assert run(video, "--weights", f"syncnet_v2={weights}") == 0
    expected = score_clip(load_syncnet(weights), read_frames(video), to_int16(load_audio(video)))
    printed = capsys.readouterr().out
    assert f"AV offset {expected.offset_frames}, min distance {expected.lse_d:.3f}" in printed
    assert f"confidence {expected.lse_c:.3f}" in printed
    assert printed.endswith(f"protocol lse_wav2lip_lrs, SyncNet {sha256(weights)} (unofficial)\n")


def test_a_silent_video_and_missing_weights_are_errors(weights, tmp_path, caplog):
    video = tmp_path / "silent.mp4"
    with VideoWriter(video, 25.0, (64, 64)) as writer:
        for _ in range(10):
            writer.write(np.zeros((64, 64, 3), np.uint8))
    assert run(video) == 1
    assert "weights syncnet_v2: not in" in caplog.messages[-1]
    assert "Run: bench weights fetch syncnet_v2" in caplog.messages[-1]
    assert run(video, "--weights", f"syncnet_v2={tmp_path / 'none.model'}") == 1
    assert "none.model: no such file" in caplog.messages[-1]
    assert run(video, "--weights", f"syncnet_v2={weights}") == 1
    assert "has no audio" in caplog.messages[-1]
    assert run(tmp_path / "none.mp4", "--weights", f"syncnet_v2={weights}") == 1
    assert "none.mp4" in caplog.messages[-1]
    assert [message for message in caplog.messages if "\n" in message] == []


# The authors' example and their detector, with stand-ins for the networks


def score(offset: int, distance: float, confidence: float) -> SyncScore:
    return SyncScore(confidence, distance, offset, 100, torch.zeros(100, 31))


@pytest.fixture
def stand_ins(corpus, tmp_path, monkeypatch):
    """`example.avi` and `other.avi`, both weight files in a folder; what a score is, a test may change."""
    source = sorted((corpus / "videos" / "main").glob("*/*.mp4"))[0]
    for name in ("example.avi", "other.avi"):
        shutil.copy(source, tmp_path / name)
    (tmp_path / "weights").mkdir()
    for id in ("syncnet_v2", "sfd_face"):
        (tmp_path / "weights" / f"renamed {id}").write_bytes(id.encode())
        make_official(monkeypatch, id, tmp_path / "weights" / f"renamed {id}")
    scores = [score(3, 5.353, 10.021)]
    network = torch.nn.Identity()
    network.detect = None
    monkeypatch.setattr(sync_check, "load_syncnet", lambda path: network)
    monkeypatch.setattr(sync_check, "load_syncnet_s3fd", lambda path: network)
    monkeypatch.setattr(sync_check, "score_clip", lambda *_: scores[0])
    monkeypatch.setattr(sync_check, "score_real_video", lambda *_: scores)
    monkeypatch.chdir(tmp_path)
    return scores


def test_the_authors_numbers_are_met_for_their_example(stand_ins, capsys):
    assert run("example.avi") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("AV offset 3, min distance 5.353 (LSE-D), confidence 10.021 (LSE-C)")
    assert re.fullmatch(r"protocol lse_wav2lip_lrs, SyncNet [0-9a-f]{64} \(official\)", printed[1])
    assert printed[2:] == ["the authors' numbers (3 / 5.353 / 10.021) were met"]


@pytest.mark.parametrize("found", [(2, 5.353, 10.021), (3, 5.354, 10.021), (3, 5.353, 10.02)])
def test_other_numbers_for_the_example_are_told(stand_ins, capsys, found):
    stand_ins[0] = score(*found)
    assert run("example.avi") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "the authors' numbers (3 / 5.353 / 10.021) were NOT met"


def test_another_video_is_scored_by_face_tracks_where_the_detector_is_here(stand_ins, capsys):
    stand_ins.append(score(0, 9.0, 1.0))
    assert run("other.avi") == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in printed[:2]] == ["track 1", "track 2"]
    assert printed[2].startswith("protocol lse_wav2lip_real, ")
    assert len(printed) == 3  # nobody printed numbers for it
    assert run("other.avi", "--whole-frames") == 0
    whole = capsys.readouterr().out.splitlines()
    assert whole[0].startswith("AV offset 3")
    assert whole[1].startswith("protocol lse_wav2lip_lrs, ")
    Path("weights/renamed sfd_face").unlink()
    assert run("other.avi") == 0
    assert capsys.readouterr().out.splitlines() == whole
