# SPDX-License-Identifier: Apache-2.0
"""`bench sync` on a real video of the corpus, with SyncNet at its full width and filled weights."""

import numpy as np
import pytest
import torch

from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.datamodules.media.audio import load_audio, to_int16
from lipsync_bench.datamodules.media.video import VideoWriter, read_frames
from lipsync_bench.metrics.sync.lse import score_clip
from lipsync_bench.models.pretrained.syncnet import load_syncnet
from tests import golden
from tests.commands import run_bench


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
    assert run(video, "--syncnet", weights) == 0
    expected = score_clip(load_syncnet(weights), read_frames(video), to_int16(load_audio(video)))
    printed = capsys.readouterr().out
    assert f"AV offset {expected.offset_frames}, min distance {expected.lse_d:.3f}" in printed
    assert f"confidence {expected.lse_c:.3f}" in printed
    assert f"protocol lse_wav2lip_lrs, SyncNet {sha256(weights)}" in printed


def test_a_silent_video_and_missing_weights_are_errors(weights, tmp_path, caplog):
    video = tmp_path / "silent.mp4"
    with VideoWriter(video, 25.0, (64, 64)) as writer:
        for _ in range(10):
            writer.write(np.zeros((64, 64, 3), np.uint8))
    assert run(video, "--syncnet", tmp_path / "none.model") == 1
    assert "none.model" in caplog.text
    assert run(video, "--syncnet", weights) == 1
    assert "has no audio" in caplog.text
    assert run(tmp_path / "none.mp4", "--syncnet", weights) == 1
    assert "none.mp4" in caplog.text
