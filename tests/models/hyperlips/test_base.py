# SPDX-License-Identifier: Apache-2.0
"""HyperLips' modules against stored training steps of the official code; what the modules add to that.

Keys of hyperlips_losses.golden.npz: `base.sync_loss_train_bn`, `base.sync_loss_eval_bn`, the sync loss with the expert
in either mode; `base.step_*` (2, 5) and `hr1.step_*` (2, 6), the losses of two training steps on the same batch,
columns as the names say; `base.weights_sync_disc_l1`. Inference of the second stage is in test_hyperlips_hr.py.
"""

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.models.core.checkpoints import load_module, save_module
from lipsync_bench.models.core.inputs import FaceInputs
from lipsync_bench.models.hyperlips import HyperLipsBase, HyperLipsHR, HyperLipsSyncExpertModule
from lipsync_bench.models.hyperlips.sync_expert import HyperLipsSyncExpert
from lipsync_bench.models.parts.losses import SyncLoss
from lipsync_bench.models.wav2lip.sync_expert import SyncExpertModule
from tests import golden
from tests.models.training import loader, trainer_for

LOSSES = golden.arrays("hyperlips_losses")
ALONE: dict[str, Any] = {"adversarial_weight": 0.0, "vgg_weight": 0.0, "lip_lpips_weight": 0.0}  # HR without ImageNet


def uniform(name: str, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Tensor:
    return torch.from_numpy(golden.uniform(name, shape, low, high))


def fill(network: nn.Module | None, name: str) -> None:
    assert network is not None
    network.load_state_dict(golden.filled(golden.names_and_shapes(name)), strict=True)


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


# Training steps of the official code


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_sync_loss_equals_the_official_one(mode: str, official_expert: str) -> None:
    expert = load_module(Path(official_expert), [HyperLipsSyncExpertModule]).network.train(mode == "train")
    generated, mel = (
        uniform("hyperlips.loss.base.g", (4, 3, 5, 128, 128)),
        uniform("hyperlips.loss.base.mel", (4, 1, 80, 16), -4, 4),
    )
    with torch.no_grad():
        loss = SyncLoss()(expert, mel, generated.transpose(1, 2))
    assert float(loss) == pytest.approx(float(LOSSES[f"base.sync_loss_{mode}_bn"]), rel=1e-5)


def assert_steps(rows: list[dict[str, float]], stored: np.ndarray, names: str, later: float, chaotic: str = "") -> None:
    """Step 0 to float32 rounding; step 1 to `later`, what Adam's first step, which is sign-like, makes of it."""
    assert len(rows) == len(stored) == 2
    for own, expected, tolerance in zip(rows, stored, (1e-5, later), strict=True):
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
    assert_steps(record.rows, stored, "l1 sync adversarial disc_fake disc_real", later=2e-3, chaotic="sync")
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
    assert_steps(record.rows, stored, "adversarial vgg l1 lip_l1 lip_lpips disc", later=2e-4)
    for row in record.rows:
        assert row["loss"] == pytest.approx(sum(row.values()) - row["loss"] - row["disc"], rel=1e-5)


# Settings


def adam(module: Any) -> list[tuple[float, tuple[float, float]]]:
    optimizers = module.configure_optimizers()
    groups = [x.param_groups[0] for x in (optimizers if isinstance(optimizers, list) else [optimizers])]
    return [(group["lr"], group["betas"]) for group in groups]


def test_settings_of_the_paper_and_of_the_released_code(small_expert: str) -> None:
    paper, released = (HyperLipsBase(0.125, variant, small_expert) for variant in ("paper", "released"))
    assert paper.weights == {"adversarial": 0.2, "l1": 0.5, "lpips": 0.5, "sync": 0.3}  # Eq. 9
    assert released.weights == {"adversarial": 0.2, "l1": 0.77, "lpips": 0.0, "sync": 0.03}
    hr, released_hr = (HyperLipsHR(width=0.125, variant=variant) for variant in ("paper", "released"))
    assert hr.weights == released_hr.weights
    assert set(hr.weights.values()) == {1.0}  # Eq. 16
    kinds = [type(module.adversarial_loss).__name__ for module in (paper, released, hr, released_hr)]
    assert kinds == ["NonSaturating", "NonSaturating", "NonSaturating", "Relativistic"]
    for module in (paper, hr):
        assert adam(module) == [(1e-4, (0.9, 0.999)), (1e-4, (0.9, 0.999))]
    for module in (released, released_hr):
        assert adam(module) == [(1e-4, (0.5, 0.999)), (5e-4, (0.5, 0.999))]
    for module, in_training in (
        (released, True),
        (HyperLipsBase(0.125, sync_expert=small_expert, lpips_weight=0), False),
    ):
        module.setup("fit")
        assert module.sync_expert is not None
        for mode in (True, False):
            assert module.train(mode).sync_expert.training is in_training  # type: ignore[union-attr]
    own = HyperLipsBase(0.125, adversarial_weight=0.1, sync_weight=0, betas=(0.1, 0.2), lr=1.0, discriminator_lr=2.0)
    assert own.weights == {"adversarial": 0.1, "l1": 0.5, "lpips": 0.5, "sync": 0.0}
    assert adam(own) == [(1.0, (0.1, 0.2)), (2.0, (0.1, 0.2))]
    assert not own.needs_sync_expert


@pytest.mark.parametrize("method", [HyperLipsBase, HyperLipsHR])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"variant": "best"}, r"variant is 'best'\. Expected paper or released\. Set --model\.init_args\.variant\."),
        ({"l1_weight": -1.0}, r"l1_weight is -1\.0\. Expected 0.* or more\. Set --model\.init_args\.l1_weight\."),
        (
            {"adversarial_weight": float("nan")},
            r"adversarial_weight is nan\. .*--model\.init_args\.adversarial_weight\.",
        ),
        (
            {"adversarial": "wgan"},
            r"adversarial is 'wgan'\. Expected one of non_saturating, .*--model\.init_args\.adversarial\.",
        ),
    ],
)
def test_wrong_settings_are_refused(method: Any, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method(width=0.125, **wrong)


@pytest.mark.parametrize("method", [HyperLipsBase, HyperLipsHR])
def test_without_an_adversarial_term_there_is_no_discriminator(method: Any, small_base: Path, tmp_path: Path) -> None:
    arguments = {"variant": "released", "adversarial_weight": 0.0, "sync_weight": 0.0}
    module = method(width=0.125, **(arguments if method is HyperLipsBase else {**ALONE, "base": str(small_base)}))
    assert module.discriminator is None
    assert module.automatic_optimization
    batch = loader(module.example_batch(1))
    trainer = trainer_for(tmp_path)
    trainer.fit(module, batch, batch)
    assert trainer.global_step == 1  # one optimiser
    terms = {name: float(value) for name, value in trainer.callback_metrics.items()}
    own = {"l1"} if method is HyperLipsBase else {"l1", "lip_l1"}
    assert set(terms) == {f"{stage}/{term}" for stage in ("train", "val") for term in own | {"loss"}}
    expected = 0.77 * terms["train/l1"] if method is HyperLipsBase else terms["train/l1"] + terms["train/lip_l1"]
    assert terms["train/loss"] == pytest.approx(expected, rel=1e-6)


def test_base_hides_mouths_and_speaks_bgr_to_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    module = HyperLipsBase(width=0.125).eval()
    monkeypatch.setattr(module.generator, "forward", lambda audio, faces: faces[:, :3] + 0.5 * faces[:, 3:])
    faces, references = torch.rand(2, 3, 128, 128) / 2, torch.rand(2, 3, 128, 128)
    out = module.generate(FaceInputs.of(torch.zeros(2, 1, 80, 16), faces, references)).frames
    faces[:, :, 64:] = 0
    torch.testing.assert_close(out, faces + references / 2)


# Starting from another checkpoint


def arguments_of(method: Any, small_base: Path) -> dict[str, Any]:
    if method is HyperLipsBase:
        return {"width": 0.125, "variant": "released", "sync_weight": 0.0}
    return {"width": 0.125, **ALONE, "adversarial_weight": 1.0, "base": str(small_base)}


@pytest.mark.parametrize("method", [HyperLipsBase, HyperLipsHR])
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "no discriminator"])
def test_training_starts_from_another_checkpoint(
    method: Any, whole: bool, small_base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = arguments_of(method, small_base)
    source = method(**arguments | ({} if whole else {"adversarial_weight": 0.0}))
    save_module(source, tmp_path / "source.ckpt")
    module = method(**arguments, init_from=str(tmp_path / "source.ckpt"))
    expected = {name: value for name, value in module.state_dict().items() if name.startswith("discriminator.")}
    expected = copy.deepcopy(expected) | source.state_dict()  # what the source lacks stays
    assert any(not torch.equal(value, expected[name]) for name, value in module.state_dict().items())
    with caplog.at_level(logging.INFO, logger="lipsync_bench.models.core.checkpoints"):
        trainer_for(tmp_path, callbacks=[record := Rows()]).fit(module, loader(module.example_batch(1)))
    for name, value in record.before.items():
        assert name.startswith("base.") or torch.equal(value, expected[name]), name
    assert any(not torch.equal(value, record.before[name]) for name, value in module.state_dict().items())
    assert f"starts from {tmp_path / 'source.ckpt'}, sha256 {sha256(tmp_path / 'source.ckpt')}" in caplog.text
    assert ("has no discriminator; it starts untrained" in caplog.text) is not whole


@pytest.mark.parametrize("method", [HyperLipsBase, HyperLipsHR])
def test_a_resumed_training_does_not_start_anew(method: Any, small_base: Path, tmp_path: Path) -> None:
    arguments = arguments_of(method, small_base)
    save_module(method(**arguments), tmp_path / "source.ckpt")
    module = method(**arguments, init_from=str(tmp_path / "source.ckpt"))
    batch = loader(module.example_batch(1))
    trainer = trainer_for(tmp_path)
    trainer.fit(module, batch)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    (tmp_path / "source.ckpt").unlink()  # it is not even looked at
    resumed = method(**arguments, init_from=str(tmp_path / "source.ckpt"))
    trainer = trainer_for(tmp_path, max_epochs=2, callbacks=[record := Rows()])
    trainer.fit(resumed, batch, ckpt_path=tmp_path / "run.ckpt", weights_only=True)
    assert trainer.global_step == 4
    for name, value in module.state_dict().items():
        assert torch.equal(record.before[name], value), name


def test_a_checkpoint_of_another_class_is_no_start(small_base: Path, tmp_path: Path) -> None:
    module = HyperLipsHR(width=0.125, base=str(small_base), init_from=str(small_base), **ALONE)
    with pytest.raises(
        ValueError, match=r"holds a lipsync_bench\.models\.HyperLipsBase \(.*\)\. Expected .*HyperLipsHR"
    ):
        trainer_for(tmp_path).fit(module, loader(module.example_batch(1)))


# The expert


def test_expert_trains_and_gives_the_generator_its_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = HyperLipsSyncExpertModule(width=0.125)
    before = copy.deepcopy(module.state_dict())
    batch = loader(module.example_batch(4))
    trainer = trainer_for(tmp_path)
    trainer.fit(module, batch, batch)
    assert set(trainer.callback_metrics) == {"train/loss", "val/loss", "val/accuracy"}
    assert any(not torch.equal(value, before[name]) for name, value in module.state_dict().items())
    trainer.save_checkpoint(tmp_path / "expert.ckpt")
    network = load_module(tmp_path / "expert.ckpt", [HyperLipsSyncExpertModule]).network
    assert isinstance(network, HyperLipsSyncExpert)
    assert not network.training
    assert all(torch.equal(value, module.network.state_dict()[name]) for name, value in network.state_dict().items())
    generator = HyperLipsBase(width=0.125, variant="released", sync_expert=str(tmp_path / "expert.ckpt"))
    generator.setup("fit")
    assert isinstance(generator.sync_expert, HyperLipsSyncExpert)
    save_module(SyncExpertModule(width=0.125), tmp_path / "wav2lip.ckpt")
    with pytest.raises(
        ValueError,
        match=r"holds a lipsync_bench\.models\.SyncExpertModule \(.*\)\. .*HyperLipsSyncExpertModule",
    ):
        HyperLipsBase(width=0.125, sync_expert=str(tmp_path / "wav2lip.ckpt")).setup("fit")


def test_expert_mirrors_faces_when_asked(tmp_path: Path) -> None:
    def loss(mirror: bool, flipped: bool) -> dict[str, float]:
        torch.manual_seed(0)
        module = HyperLipsSyncExpertModule(width=0.125, lr=0.0, mirror=mirror)
        batch = module.example_batch(4)
        if flipped:
            batch["faces"] = batch["faces"].flip(-1)
        trainer = trainer_for(tmp_path)
        trainer.fit(module, loader(batch), loader(batch))
        return {name: float(value) for name, value in trainer.callback_metrics.items()}

    plain, mirrored = loss(mirror=False, flipped=False), loss(mirror=True, flipped=False)
    assert mirrored == loss(mirror=False, flipped=True)
    assert abs(mirrored["train/loss"] - plain["train/loss"]) > 1e-6
    assert HyperLipsSyncExpertModule(width=0.125).mirror is False
