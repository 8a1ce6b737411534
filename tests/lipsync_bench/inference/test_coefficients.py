# SPDX-License-Identifier: Apache-2.0
"""`bench coefficients`, and D-Net's training on what it leaves beside the clips."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.clips.coefficients import Coefficients, coefficients_path
from lipsync_bench.datamodules.clips.track import Track, track_path
from lipsync_bench.datamodules.datasets.folder import ClipFolder
from lipsync_bench.datamodules.weights.store import Store
from lipsync_bench.inference import coefficients
from lipsync_bench.models.pretrained.face_coefficients import HEADS, SIZE, find_face_coefficients
from lipsync_bench.models.videoretalking import VideoReTalkingDNet
from lipsync_bench.models.videoretalking.dnet.coefficients import BEFORE
from lipsync_bench.models.videoretalking.dnet.windows import CoefficientPairs
from tests.commands import run_bench
from tests.models.training import trainer_for

FOR = "videoretalking_dnet+synthetic/videoretalking_dnet"
SMALL = {
    "image_size": 64,
    "width": 0.125,
    "warp_steps": 1,
    "perceptual_weight": 0.0,
    "gram_weight": 0.0,
    "l1_weight": 1.0,
}

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*")


class Brightness(nn.Module):
    """Gives the mean of the face in the place of all coefficients."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, faces: Tensor) -> Tensor:
        assert faces.shape[1:] == (3, SIZE, SIZE)
        return (self.scale * faces.mean(dim=(1, 2, 3)))[:, None].expand(-1, sum(HEADS))


@pytest.fixture(scope="module")
def clips(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus with D-Net's faces beside two of its clips, the others gone."""
    root = tmp_path_factory.mktemp("dnet") / "clips"
    shutil.copytree(corpus / "clips", root)
    prepare = ("prepare", "--dataset", "synthetic", "--source", corpus / "videos", "--out", root, "--workers", 1)
    assert run_bench(*prepare, "--for", FOR) == 0
    return root


@pytest.mark.slow
def test_coefficients_are_made_once_and_train_d_net(clips, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    data = ClipFolder(root=clips, overfit=True, batch_size=2, num_workers=0, epoch_length=4, val_length=2)
    module = VideoReTalkingDNet(**SMALL)
    with pytest.raises(FileNotFoundError, match=r"have no 3DMM coefficients: .*bench coefficients --root"):
        trainer_for(tmp_path).fit(module, datamodule=data)
    monkeypatch.setattr(
        coefficients, "find_face_coefficients", lambda network, store: (Brightness(), f"{network} network")
    )
    command = ("coefficients", "--root", clips, "--for", FOR, "--device", "cpu", "--network", "a")
    assert run_bench(*command) == 0
    count = len(list(clips.glob("*/*.safetensors")))
    assert f"coefficients of {count} clips made, 0 already there, 0 failed" in caplog.text
    path = sorted(clips.glob("*/*.safetensors"))[0]
    with Clip(path) as clip, Coefficients(coefficients_path(path)) as file:
        assert file.header.belongs_to(clip.header)
        rows = file.rows()
        assert rows.shape == (len(clip), 262)
        track = Track(track_path(path, file.header.track))
        assert track.faces(0, 1).shape == (1, 64, 64, 3)
        assert np.ptp(rows[:, :257], axis=1).max() == 0
        assert 0 < rows[:, 0].min() <= rows[:, 0].max() < 1
        np.testing.assert_array_equal(rows[:, 257:259], 64)
        assert (np.abs(rows[:, 260:] - 32) < 24).all()  # the middle of the face lies in the middle of the picture
    assert run_bench(*command) == 0
    assert f"0 clips made, {count} already there" in caplog.text
    assert run_bench(*command[:-1], "b") == 0  # other weights
    assert f"of {count} clips made, 0 already there, 0 failed" in caplog.text

    trainer = trainer_for(tmp_path, max_epochs=1)
    trainer.fit(module, datamodule=data)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert {"train/l1_warp", "train/l1", "val/l1"} <= set(logged)  # the second phase was reached
    assert all(np.isfinite(value) for value in logged.values())

    # A pair has the coefficients of its own frames.
    dataset = CoefficientPairs([path], recipe=module.recipe, length=4)
    for key in range(4):
        pair = dataset[key]
        for name in ("source", "target"):
            assert pair[name].shape == (1, 3, 64, 64)
            assert pair[f"{name}_coefficients"].shape == (73, 27)
            frame = int(np.abs(rows[:, 0] - float(pair[f"{name}_coefficients"][0, BEFORE])).argmin())
            stored = torch.from_numpy(track.faces(frame, 1)).permute(0, 3, 1, 2)
            assert (stored.float() - pair[name].float()).abs().mean() < 4

    # Faces of another recipe are other faces.
    other = VideoReTalkingDNet(**{**SMALL, "image_size": 96}).recipe
    wrong = CoefficientPairs([path], (64, 64), recipe=other)
    wrong.track = other.track_digest
    with pytest.raises(Exception, match=r"of other faces than those of .*bench coefficients"):
        wrong[0]


def test_weights_are_named_or_random_by_name(clips, caplog, monkeypatch):
    command = ("coefficients", "--root", clips, "--for", FOR, "--device", "cpu")
    assert run_bench(*command) == 1
    assert "weights deep3d_face: not in" in caplog.text
    assert "bench weights fetch deep3d_face" in caplog.text
    assert run_bench(*command, "--network", clips / "missing.pth") == 1
    assert "missing.pth: no such file" in caplog.text
    network, name = find_face_coefficients("random", Store())
    again, _ = find_face_coefficients("random", Store())
    assert name == "random"
    assert "RANDOM weights" in caplog.text
    assert torch.equal(network.backbone.conv1.weight, again.backbone.conv1.weight)
    assert run_bench(*command, "--for", "lipformer") == 1
    assert "Expected upright rectangles" in caplog.text
