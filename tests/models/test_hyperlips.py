# SPDX-License-Identifier: Apache-2.0
"""HyperLips' modules against stored training steps and inference of the official code; what the modules add to that.

Keys of hyperlips_losses.golden.npz: `base.sync_loss_train_bn`, `base.sync_loss_eval_bn`, the sync loss with the expert in
either mode; `base.step_*` (2, 5) and `hr1.step_*` (2, 6), the losses of two training steps on the same batch, columns as
the names say; `base.weights_sync_disc_l1`. Of hyperlips_pipeline.golden.npz: `hrR.landmarks`, what stands in for Face
Mesh; `hr_in_img_u8` and `hr_in_sketch`, every fourth and every R-th pixel of what the decoder is given;
`hr_in_sketch_sum`; `out`, every 4R-th pixel of what comes out, `out_mean`, `out_std` of all of it.
"""

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datamodules.files import sha256
from datamodules.sketch import draw_sketch, inference_sketch, smooth_landmarks, training_sketch
from models import load_method
from models.checkpoints import RECORD, save_module
from models.hyperlips import HyperLipsBase, HyperLipsHR, HyperLipsSyncExpertModule
from models.hyperlips.base_network import HyperLipsBaseGenerator
from models.hyperlips.guide import guide
from models.hyperlips.sync_expert import HyperLipsSyncExpert
from models.losses import SyncLoss
from models.sync_expert import SyncExpertModule
from tests import golden

LOSSES = golden.arrays("hyperlips_losses")
PIPELINE = golden.arrays("hyperlips_pipeline")
ALONE: dict[str, Any] = {"adversarial_weight": 0.0, "vgg_weight": 0.0, "lip_lpips_weight": 0.0}  # HR without ImageNet


def uniform(name: str, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Tensor:
    return torch.from_numpy(golden.uniform(name, shape, low, high))


def fill(network: nn.Module | None, name: str) -> None:
    assert network is not None
    network.load_state_dict(golden.filled(golden.names_and_shapes(name)), strict=True)


def trainer_for(folder: Path, **changes: Any) -> pl.Trainer:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    settings = {"accelerator": "cpu", "max_epochs": 1, "num_sanity_val_steps": 0, "default_root_dir": folder, **quiet}
    return pl.Trainer(**(settings | changes))


def loader(*batches: dict[str, Tensor]) -> DataLoader:  # type: ignore[type-arg]
    return DataLoader(list(batches), batch_size=None)  # type: ignore[arg-type]


class Rows(pl.Callback):
    """The logged terms of every training step, and the networks before the first."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.before: dict[str, Tensor] = {}

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if not self.before:
            self.before = copy.deepcopy(pl_module.state_dict())

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.rows.append({name.removeprefix("train/"): float(v) for name, v in trainer.callback_metrics.items()})


@pytest.fixture(scope="module")
def official_expert(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("expert") / "filled.ckpt"
    module = HyperLipsSyncExpertModule()
    fill(module.network, "hyperlips_sync_expert")
    save_module(module, path)
    return str(path)


@pytest.fixture(scope="module")
def small_expert(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("expert") / "small.ckpt"
    save_module(HyperLipsSyncExpertModule(width=0.125), path)
    return str(path)


@pytest.fixture
def small_base(tmp_path: Path) -> Path:
    torch.manual_seed(2)
    save_module(HyperLipsBase(width=0.125), tmp_path / "base.ckpt")
    return tmp_path / "base.ckpt"


# Training steps of the official code


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_sync_loss_equals_the_official_one(mode: str, official_expert: str) -> None:
    expert = HyperLipsSyncExpertModule.load_network(Path(official_expert)).train(mode == "train")
    generated, mel = (
        uniform("hyperlips.loss.base.g", (4, 3, 5, 128, 128)),
        uniform("hyperlips.loss.base.mel", (4, 1, 80, 16), -4, 4),
    )
    with torch.no_grad():
        loss = SyncLoss()(expert, mel, generated.transpose(1, 2))
    assert float(loss) == pytest.approx(float(LOSSES[f"base.sync_loss_{mode}_bn"]), rel=1e-5)


def assert_steps(rows: list[dict[str, float]], stored: np.ndarray, names: str, chaotic: str = "") -> None:
    """Step 0 to float32 rounding. Step 1 to what Adam, whose first step is sign-like, makes of it."""
    assert len(rows) == len(stored) == 2
    for own, expected, tolerance in zip(rows, stored, (1e-5, 2e-3), strict=True):
        assert set(own) == {*names.split(), "loss"}
        for name, value in zip(names.split(), expected, strict=True):
            loose = 0.2 if name == chaotic and tolerance > 1e-5 else tolerance
            assert own[name] == pytest.approx(float(value), rel=loose), name


@pytest.mark.slow
def test_training_steps_of_the_base_equal_the_official_ones(official_expert: str, tmp_path: Path) -> None:
    name = "hyperlips.loss.base"
    module = HyperLipsBase(variant="released", sync_expert=official_expert)
    fill(module.generator, "hyperlips_base")
    fill(module.discriminator, "hyperlips_base_disc")
    x = uniform(f"{name}.x", (4, 6, 5, 128, 128))
    x[:, :3, :, 64:] = 0
    # The stored step masks another frame than its target, which no real batch does: the input is put in by hand.
    module.input_faces = lambda target, reference: x  # type: ignore[method-assign]
    target = uniform(f"{name}.gt", (4, 3, 5, 128, 128)).flip(1).transpose(1, 2)
    batch = {
        "target": target,
        "reference": target,
        "mel": uniform(f"{name}.mel", (4, 1, 80, 16), -4, 4),
        "frame_mels": uniform(f"{name}.indiv_mels", (4, 5, 1, 80, 16), -4, 4),
    }
    trainer = trainer_for(tmp_path, callbacks=[record := Rows()])
    trainer.fit(module, loader(batch, batch))
    assert trainer.global_step == 4
    stored = LOSSES["base.step_l1_sync_percep_fake_real"]
    # An input changed by 1e-6 moves the second sync loss of the official code by 15 %.
    assert_steps(record.rows, stored, "l1 sync adversarial disc_fake disc_real", chaotic="sync")
    sync, adversarial, l1 = LOSSES["base.weights_sync_disc_l1"]
    for row in record.rows:
        total = sync * row["sync"] + adversarial * row["adversarial"] + l1 * row["l1"]
        assert row["loss"] == pytest.approx(float(total), rel=1e-5)


@pytest.mark.slow
def test_training_steps_of_the_decoder_equal_the_official_ones(
    imagenet_weights: Path, small_base: Path, tmp_path: Path
) -> None:
    name, window = "hyperlips.loss.hr", (2, 3, 5, 128, 128)
    module = HyperLipsHR(variant="released", base=str(small_base), perceptual_weights=str(imagenet_weights))
    fill(module.generator, "hyperlips_hr1")
    fill(module.discriminator, "hyperlips_hr_disc")
    boxes = [[[70 + t, 100 + t + b, 30 + 2 * t, 90 - t] for t in range(5)] for b in range(2)]
    batch = {
        "target": uniform(f"{name}.gt", window).flip(1).transpose(1, 2),
        "base": uniform(f"{name}.hyper", window).flip(1).transpose(1, 2),
        # Ours have one channel; the stored ones have three that differ, and go in as they are.
        "sketch": (uniform(f"{name}.sketch", window) > 0.5).float().transpose(1, 2),
        "lip_mask": torch.zeros(2, 5, 1, 128, 128),  # which the released loss does not read
        "lip_box": torch.tensor(boxes),
    }
    trainer = trainer_for(tmp_path, callbacks=[record := Rows()])
    trainer.fit(module, loader(batch, batch))
    assert trainer.global_step == 4
    stored = LOSSES["hr1.step_adv_perc_l1_lipl1_liplpips_disc"]
    assert_steps(record.rows, stored, "adversarial vgg l1 lip_l1 lip_lpips disc")
    for row in record.rows:
        assert row["loss"] == pytest.approx(sum(row.values()) - row["loss"] - row["disc"], rel=1e-5)


# Inference of the official code


@pytest.mark.parametrize(("scale", "smooth_frames"), [(1, 1), (2, None)])
def test_released_inference_equals_the_official_one(
    scale: Any, smooth_frames: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = {key.partition(".")[2]: value for key, value in PIPELINE.items() if key.startswith(f"hr{scale}.")}
    count, size = len(stored["landmarks"]), 128 * scale
    module = HyperLipsHR(scale, inference="released", smooth_frames=smooth_frames)
    fill(module.generator, f"hyperlips_hr{scale}")
    fill(module.attach_base(HyperLipsBaseGenerator(), "filled"), "hyperlips_base")
    shown: list[np.ndarray] = []

    def meshes(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shown.append(images)
        return stored["landmarks"], np.ones(count, bool)

    monkeypatch.setattr("models.hyperlips.guide.find_meshes", meshes)
    # The stored inputs are noise in both halves: the mask is left out.
    monkeypatch.setattr("models.hyperlips.hr.mask_lower_half", lambda faces: faces)
    given: list[Tensor] = []
    module.eval().generator.register_forward_pre_hook(lambda network, inputs: given.append(inputs[0]))
    faces = uniform(f"hyperlips.hrinf{scale}.face", (count, 6, size, size))
    mels = uniform(f"hyperlips.hrinf{scale}.mel", (count, 1, 80, 16), -4, 4)
    with torch.no_grad():
        out = module.generate_chunk(mels, faces[:, :3], faces[:, 3:])
    (decoder_input,) = given
    images = (decoder_input[:, :3] * 255).round().to(torch.uint8).numpy()
    np.testing.assert_array_equal(shown[0], images.transpose(0, 2, 3, 1))  # Face Mesh is shown BGR, enlarged
    difference = np.abs(images[:, :, ::4, ::4].astype(int) - stored["hr_in_img_u8"])
    assert difference.max() <= 1
    assert np.count_nonzero(difference) <= 3  # the truncation of values next to a whole number
    sketches = (decoder_input[:, 3:] * 255).round().to(torch.uint8).numpy()
    assert (sketches == sketches[:, :1]).all()
    np.testing.assert_array_equal(sketches[:, 0, ::scale, ::scale], stored["hr_in_sketch"])
    np.testing.assert_array_equal(sketches[:, 0].sum((1, 2), dtype=np.int64), stored["hr_in_sketch_sum"])
    assert out.shape == (count, 3, scale * size, scale * size)
    # A flipped grey level moves it by up to 1e-3 nearby.
    tolerance = 1e-3 if np.count_nonzero(difference) else 1e-5
    assert np.abs(out[:, :, :: 4 * scale, :: 4 * scale].numpy() - stored["out"]).max() < tolerance
    assert float(out.double().mean()) == pytest.approx(float(stored["out_mean"]), abs=1e-6)
    assert float(out.double().std(correction=0)) == pytest.approx(float(stored["out_std"]), rel=1e-5)
    assert module.fallback_frames == 0
