# SPDX-License-Identifier: Apache-2.0
"""Wav2Lip against stored outputs and training steps of the official code; what its module adds to that."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from lipsync_bench.models import load_method
from lipsync_bench.models.core.checkpoints import RECORD, save_module
from lipsync_bench.models.core.inputs import FaceInputs
from lipsync_bench.models.wav2lip.module import Wav2Lip
from lipsync_bench.models.wav2lip.network import QualityDiscriminator, Wav2LipGenerator
from lipsync_bench.models.wav2lip.sync_expert import SyncExpertModule
from tests import golden
from tests.models.training import loader, trainer_for

REFERENCE = golden.arrays("wav2lip")
TRAINING = golden.FOLDER / "wav2lip_training.json"
OFFICIAL = {"adversarial": "perceptual"}  # what the official code calls it, and with it the stored arrays


def reference(name: str) -> torch.Tensor:
    return torch.from_numpy(REFERENCE[name])


def uniform(name: str, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    return torch.from_numpy(golden.uniform(name, shape, low, high))


def assert_near(own: torch.Tensor, stored: torch.Tensor) -> None:
    """1e-5 of the stored standard deviation: what float32 sums in another order may differ by."""
    assert own.shape == stored.shape
    assert (own - stored).abs().max() <= 1e-5 * stored.std()


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return golden.filled(golden.names_and_shapes("wav2lip"))


@pytest.fixture(scope="module")
def small_expert(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("expert") / "small.ckpt"
    save_module(SyncExpertModule(width=0.125), path)
    return str(path)


# Networks


@pytest.mark.parametrize(
    ("network", "name", "parameters"),
    [(Wav2LipGenerator, "wav2lip", 36_298_035), (QualityDiscriminator, "wav2lip_disc", 14_113_793)],
)
def test_names_and_shapes_are_the_official_ones_in_order(network: Any, name: str, parameters: int) -> None:
    own = network()
    shapes = {name: list(value.shape) for name, value in own.state_dict().items()}
    assert list(shapes.items()) == list(golden.names_and_shapes(name).items())
    assert sum(parameter.numel() for parameter in own.parameters()) == parameters


def test_generator_equals_the_official_output(weights: dict[str, torch.Tensor]) -> None:
    generator = Wav2LipGenerator().eval()
    generator.load_state_dict(weights, strict=True)
    audio, face = uniform("wav2lip/audio4", (2, 1, 80, 16), -4, 4), uniform("wav2lip/face4", (2, 6, 96, 96))
    with torch.no_grad():
        assert_near(generator.audio_encoder(audio), reference("audio_embedding4"))
        x, statistics = face, []
        for block in generator.face_encoder_blocks:
            x = block(x)
            statistics.append([float(x.double().mean()), float(x.double().std(correction=0))])
        assert_near(x, reference("face_bottleneck4"))
        torch.testing.assert_close(
            torch.tensor(statistics).double(), reference("face_encoder_mean_std4"), rtol=1e-5, atol=1e-7
        )
        out = generator(audio, face)
        assert_near(out[:, :, ::2, ::2], reference("out4_s2"))
        mean_std = torch.stack([out.double().mean(), out.double().std(correction=0)])
        torch.testing.assert_close(mean_std, reference("out4_mean_std"), rtol=1e-6, atol=0)

        windows = generator(
            uniform("wav2lip/audio5", (2, 5, 1, 80, 16), -4, 4), uniform("wav2lip/face5", (2, 6, 5, 96, 96))
        )
    assert_near(windows[..., ::4, ::4], reference("out5_s4"))
    mean_std = torch.stack([windows.double().mean(), windows.double().std(correction=0)])
    torch.testing.assert_close(mean_std, reference("out5_mean_std"), rtol=1e-6, atol=0)


def test_discriminator_equals_the_official_output() -> None:
    stored = golden.arrays("wav2lip_disc")
    discriminator = QualityDiscriminator()
    discriminator.load_state_dict(golden.filled(golden.names_and_shapes("wav2lip_disc")), strict=True)
    face = uniform("wav2lip_disc/face", (2, 3, 5, 96, 96))
    with torch.no_grad():
        features = discriminator.features(face)
        logit = discriminator.binary_pred[0](features).flatten(1)
        out = discriminator(face)
    assert_near(features.flatten(1), torch.from_numpy(stored["features"]))
    # The ten values are nearly equal, so their deviation is no measure: absolute.
    torch.testing.assert_close(logit, torch.from_numpy(stored["logit"]), atol=1e-6, rtol=0)
    torch.testing.assert_close(out, torch.from_numpy(stored["out"]), atol=1e-6, rtol=0)
    bce = torch.nn.functional.binary_cross_entropy
    assert float(bce(out, torch.ones_like(out))) == pytest.approx(float(stored["bce_real"]), rel=1e-6)
    assert float(bce(out, torch.zeros_like(out))) == pytest.approx(float(stored["bce_fake"]), rel=1e-6)
    assert float(stored["perceptual"]) == float(stored["bce_real"])


def test_width_scales_channels_and_windows_are_independent_frames() -> None:
    torch.manual_seed(0)
    generator = Wav2LipGenerator(width=0.125).eval()
    assert generator.output_block[0].conv_block[0].in_channels == 8 + 8  # 64 and 16 channels, both at the minimum
    assert generator.audio_encoder[-1].conv_block[0].out_channels == 64
    audio, faces = torch.randn(2, 3, 1, 80, 16), torch.rand(2, 6, 3, 96, 96)
    with torch.no_grad():
        window = generator(audio, faces)
        for frame in range(3):
            torch.testing.assert_close(window[:, :, frame], generator(audio[:, frame], faces[:, :, frame]))
    with pytest.raises(ValueError, match="width is 0"):
        Wav2LipGenerator(width=0)


# Training steps of the official code


class Recorder(pl.Callback):
    """Norms of the gradients each optimiser steps with, by part of the network."""

    def __init__(self) -> None:
        self.norms: dict[str, float] = {}

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        number = next(
            i for i, own in enumerate(trainer.optimizers) if own is getattr(optimizer, "optimizer", optimizer)
        )
        parts = pl_module.generator.named_children() if number == 0 else [("disc", pl_module.discriminator)]
        for name, part in parts:
            gradients = [p.grad.norm() for p in part.parameters() if p.grad is not None]
            self.norms[name] = float(torch.stack(gradients).norm())


@pytest.fixture(scope="module")
def official_expert(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("expert") / "filled.ckpt"
    module = SyncExpertModule()
    module.network.load_state_dict(golden.filled(golden.names_and_shapes("sync_expert")))
    save_module(module, path)
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("gan", [False, True], ids=["nogan", "gan"])
def test_training_step_equals_the_official_one(
    gan: bool, weights: dict[str, torch.Tensor], official_expert: str, tmp_path: Path
) -> None:
    module = Wav2Lip(gan=gan, sync_expert=official_expert, sync_start="always")
    module.generator.load_state_dict(weights)
    if module.discriminator is not None:
        module.discriminator.load_state_dict(golden.filled(golden.names_and_shapes("wav2lip_disc")))
    x = uniform("wav2lip/step/x", (4, 6, 5, 96, 96))
    x[:, :3, :, 48:] = 0
    # The stored step masks another frame than its target, which no real batch does: the input is put in by hand.
    module.input_faces = lambda target, reference: x  # type: ignore[method-assign]
    target = uniform("wav2lip/step/gt", (4, 3, 5, 96, 96)).flip(1).transpose(1, 2)
    batch = {
        "target": target,
        "reference": target,
        "mel": uniform("wav2lip/step/mel", (4, 1, 80, 16), -4, 4),
        "frame_mels": uniform("wav2lip/step/indiv_mels", (4, 5, 1, 80, 16), -4, 4),
    }
    recorder = Recorder()
    trainer = trainer_for(tmp_path, callbacks=[recorder])
    trainer.fit(module, loader(batch))
    assert trainer.global_step == (2 if gan else 1)
    prefix = "step_gan" if gan else "step_nogan"
    losses = {"l1", "sync", "adversarial", "disc_real", "disc_fake"} if gan else {"l1", "sync"}
    logged = {name.removeprefix("train/"): float(value) for name, value in trainer.callback_metrics.items()}
    assert set(logged) == losses | {"loss"}
    for name in losses:
        stored = float(REFERENCE[f"{prefix}_{OFFICIAL.get(name, name)}"])
        assert logged[name] == pytest.approx(stored, rel=1e-4), name
    s, g = (0.03, 0.07) if gan else (0.01, 0.0)
    total = (1 - s - g) * logged["l1"] + s * logged["sync"] + g * logged.get("adversarial", 0)
    assert logged["loss"] == pytest.approx(total, rel=1e-6)
    norms = {
        name.rpartition("gradnorm_")[2]: v for name, v in REFERENCE.items() if name.startswith(f"{prefix}_gradnorm")
    }
    assert set(recorder.norms) == set(norms)
    for name, norm in recorder.norms.items():
        assert norm == pytest.approx(float(norms[name]), rel=1e-2), name
    mean = module.generator.output_block[0].conv_block[1].running_mean
    torch.testing.assert_close(mean, reference(f"{prefix}_bn_mean"), rtol=1e-4, atol=1e-6)


# Five steps of our own


@pytest.mark.slow
@pytest.mark.parametrize("gan", [False, True], ids=["nogan", "gan"])
def test_five_training_steps_give_the_recorded_losses(gan: bool, small_expert: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Wav2Lip(width=0.125, gan=gan, sync_expert=small_expert, sync_start="always", lr=1e-3)
    rows: list[dict[str, float]] = []

    class Losses(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            metrics = {name.removeprefix("train/"): float(value) for name, value in trainer.callback_metrics.items()}
            rows.append({f"train/{OFFICIAL.get(name, name)}": metrics[name] for name in sorted(metrics)})

    batches = [module.example_batch(4, seed) for seed in range(5)]
    # In float64: Adam's first steps are sign-like and the expert's batch statistics chaotic, so that in float32 another
    # number of threads changes the sync loss by 5%. In float64 another processor still changes it by 3e-5.
    trainer = trainer_for(tmp_path, callbacks=[Losses()], log_every_n_steps=1, precision="64-true")
    trainer.fit(module, loader(*batches))
    assert len(rows) == 5
    stored = json.loads(TRAINING.read_text()) if TRAINING.is_file() else {}
    name = "gan" if gan else "nogan"
    if os.environ.get("LIPSYNC_GOLDEN") == "write":
        TRAINING.write_text(json.dumps(stored | {name: rows}, indent=1, sort_keys=True) + "\n")
        pytest.skip(f"wrote {TRAINING}")
    assert name in stored, f"{TRAINING} has no '{name}': write it with LIPSYNC_GOLDEN=write and look at the difference"
    for step, (own, expected) in enumerate(zip(rows, stored[name], strict=True)):
        assert own == pytest.approx(expected, rel=1e-5 if step == 0 else 1e-3), f"step {step}"
    assert rows[4]["train/l1"] < rows[0]["train/l1"]


# When the sync weight comes on


def test_sync_weight_comes_on_after_a_good_validation_and_survives_a_resume(
    small_expert: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = Wav2Lip(width=0.125, sync_expert=small_expert, sync_threshold=50.0)
    batch = loader(module.example_batch(2))
    assert module.current_sync_weight == 0
    trainer = trainer_for(tmp_path, num_sanity_val_steps=1)
    with caplog.at_level(logging.INFO, logger="lipsync_bench.models.wav2lip.module"):
        trainer.fit(module, batch, batch)
    assert "train/sync" not in trainer.callback_metrics  # not computed while its weight is 0
    assert {"val/l1", "val/sync", "val/loss"} <= set(trainer.callback_metrics)
    assert module.current_sync_weight == 0.01
    assert any("sync weight is 0.01" in record.getMessage() for record in caplog.records)
    trainer.save_checkpoint(tmp_path / "on.ckpt")

    resumed = Wav2Lip(width=0.125, sync_expert=small_expert, sync_threshold=0.0)
    trainer = trainer_for(tmp_path, max_epochs=2)
    trainer.fit(resumed, batch, batch, ckpt_path=tmp_path / "on.ckpt", weights_only=True)
    assert trainer.global_step == 2
    assert "train/sync" in trainer.callback_metrics
    assert resumed.current_sync_weight == 0.01


def test_sync_weight_stays_off_above_the_threshold_and_outside_a_fit(small_expert: str, tmp_path: Path) -> None:
    module = Wav2Lip(width=0.125, sync_expert=small_expert, sync_threshold=0.0)
    batch = loader(module.example_batch(2))
    trainer_for(tmp_path).fit(module, batch, batch)
    assert not module.sync_on
    module.sync_threshold = 50.0
    (result,) = trainer_for(tmp_path).validate(module, batch, verbose=False)
    assert result["val/sync"] < 50
    assert not module.sync_on


def test_checkpoint_written_after_validation_holds_the_switch(small_expert: str, tmp_path: Path) -> None:
    """ModelCheckpoint as in experiments/wav2lip.yaml saves when a validation has ended, not before it."""
    module = Wav2Lip(width=0.125, sync_expert=small_expert, sync_threshold=50.0)
    batch = loader(module.example_batch(2))
    keep = pl.callbacks.ModelCheckpoint(
        dirpath=tmp_path, save_top_k=-1, save_last=True, save_on_train_epoch_end=False, filename="{step}"
    )
    settings = {"val_check_interval": 1, "check_val_every_n_epoch": None, "enable_checkpointing": True}
    trainer_for(tmp_path, callbacks=[keep], max_steps=2, max_epochs=-1, **settings).fit(module, batch, batch)
    assert {path.name for path in tmp_path.glob("*.ckpt")} == {"step=1.ckpt", "step=2.ckpt", "last.ckpt"}
    assert torch.load(tmp_path / "step=1.ckpt", weights_only=True)[RECORD]["sync_on"] is True


# The frozen expert


def test_expert_keeps_its_weights_and_mode(small_expert: str, tmp_path: Path) -> None:
    modes: dict[str, set[bool]] = {"train": set(), "eval": set()}
    for mode in ("train", "eval"):
        module = Wav2Lip(width=0.125, sync_expert=small_expert, sync_start="always", expert_mode=mode)  # type: ignore[arg-type]
        module.setup("fit")
        assert module.sync_expert is not None
        module.sync_expert.register_forward_pre_hook(lambda net, _, mode=mode: modes[mode].add(net.training))  # type: ignore[misc]
        before = {name: value.clone() for name, value in module.sync_expert.state_dict().items()}
        batch = loader(module.example_batch(2))
        trainer_for(tmp_path).fit(module, batch, batch)
        after = module.sync_expert.state_dict()
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert all("running" in name or "num_batches" in name for name in changed)
        assert bool(changed) == (mode == "train")
        assert not any(p.requires_grad or p.grad is not None for p in module.sync_expert.parameters())
    assert modes == {"train": {True}, "eval": {False}}  # in training and in validation


def test_missing_expert_says_how_to_make_one(tmp_path: Path) -> None:
    batch = loader(Wav2Lip(width=0.125).example_batch(2))
    with pytest.raises(
        ValueError, match=r"sync_expert is None.*lightning fit -c experiments/sync_expert\.yaml.*--model"
    ):
        trainer_for(tmp_path).fit(Wav2Lip(width=0.125), batch)
    path = tmp_path / "none.ckpt"
    with pytest.raises(FileNotFoundError, match=r"none\.ckpt.*lightning fit -c experiments/sync_expert\.yaml.*--model"):
        trainer_for(tmp_path).fit(Wav2Lip(width=0.125, sync_expert=str(path)), batch)
    without = Wav2Lip(width=0.125, sync_weight=0.0)
    trainer = trainer_for(tmp_path)
    trainer.fit(without, batch, batch)
    assert "val/l1" in trainer.callback_metrics
    assert "val/sync" not in trainer.callback_metrics


def test_checkpoint_is_safe_and_has_no_expert_but_its_hash(
    small_expert: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moved = tmp_path / "moved.ckpt"
    moved.write_bytes(Path(small_expert).read_bytes())
    module = Wav2Lip(width=0.125, gan=True, sync_expert=str(moved), sync_start="always")
    trainer = trainer_for(tmp_path)
    with caplog.at_level(logging.INFO, logger="lipsync_bench.models.core.frozen"):
        trainer.fit(module, loader(module.example_batch(2)))
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    checkpoint = torch.load(tmp_path / "run.ckpt", weights_only=True)
    assert not any(name.startswith("sync_expert.") for name in checkpoint["state_dict"])
    assert {name.split(".")[0] for name in checkpoint["state_dict"]} == {"generator", "discriminator"}
    record = checkpoint[RECORD]
    assert record["class_path"] == "lipsync_bench.models.Wav2Lip"
    assert record["version"]
    assert len(record["sync_expert_sha256"]) == 64
    assert record["sync_expert_sha256"] in caplog.text
    moved.unlink()
    assert isinstance(load_method(tmp_path / "run.ckpt"), Wav2Lip)


def test_loading_is_strict_for_everything_else(small_expert: str) -> None:
    module = Wav2Lip(width=0.125, sync_expert=small_expert)
    state = module.state_dict()
    module.setup("fit")
    assert set(module.state_dict()) == set(state)
    module.load_state_dict(state, strict=True)
    del state["generator.output_block.1.bias"]
    with pytest.raises(RuntimeError, match=r"Missing key.*output_block\.1\.bias"):
        module.load_state_dict(state, strict=True)


# Generation and arguments


def test_generate_masks_faces_and_speaks_bgr_to_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Wav2Lip(width=0.125).eval()
    seen: list[torch.Tensor] = []

    def network(audio: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
        seen.append(faces)
        return faces[:, 3:]  # the reference, as a network that copies it would

    monkeypatch.setattr(module.generator, "forward", network)
    monkeypatch.setattr(Wav2Lip, "generate_batch", 2)
    faces, references = torch.rand(5, 3, 96, 96), torch.rand(5, 3, 96, 96)
    before = faces.clone()
    out = module.generate(FaceInputs.of(torch.zeros(5, 1, 80, 16), faces, references)).frames
    torch.testing.assert_close(out, references)  # RGB again
    assert torch.equal(faces, before)
    assert [len(x) for x in seen] == [2, 2, 1]
    entered = torch.cat(seen)
    assert torch.equal(entered[:, :3, :48], faces[:, [2, 1, 0], :48])
    assert entered[:, :3, 48:].abs().max() == 0
    assert torch.equal(entered[:, 3:], references[:, [2, 1, 0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"faces": torch.rand(2, 3, 128, 128)},
            r"faces is torch\.float32 \(2, 3, 128, 128\).*\(2, 3, 96, 96\).*96 x 96",
        ),
        ({"references": torch.rand(1, 3, 96, 96)}, r"references is .*\(1, 1, 3, 96, 96\).*\(2, 1, 3, 96, 96\)"),
        ({"frame_mels": torch.rand(2, 80, 16)}, r"frame_mels is .*\(2, 80, 16\).*\(2, 1, 80, 16\)"),
        ({"faces": torch.zeros(2, 3, 96, 96, dtype=torch.uint8)}, r"faces is torch\.uint8"),
        ({"faces": 255 * torch.ones(2, 3, 96, 96)}, r"faces lie in \[255, 255\].*\[0, 1\]"),
        ({"references": torch.full((2, 3, 96, 96), float("nan"))}, r"references lie in \[nan, nan\]"),
    ],
)
def test_generate_refuses_other_inputs(change: dict[str, torch.Tensor], message: str) -> None:
    inputs = {
        "frame_mels": torch.zeros(2, 1, 80, 16),
        "faces": torch.rand(2, 3, 96, 96),
        "references": torch.rand(2, 3, 96, 96),
    }
    with pytest.raises(ValueError, match=message):
        Wav2Lip(width=0.125).eval().generate(FaceInputs.of(*(inputs | change).values()))


def test_published_defaults() -> None:
    plain, gan = Wav2Lip(width=0.125), Wav2Lip(width=0.125, gan=True)
    assert (plain.sync_weight, plain.betas, plain.sync_threshold, plain.lr) == (0.01, (0.9, 0.999), 0.75, 1e-4)
    assert (gan.sync_weight, gan.betas, gan.gan_weight, gan.lr) == (0.03, (0.5, 0.999), 0.07, 1e-4)
    assert plain.discriminator is None
    assert plain.automatic_optimization
    assert not gan.automatic_optimization
    with pytest.raises(ValueError, match=r"sync_weight 0\.95 and gan_weight 0\.07"):
        Wav2Lip(width=0.125, gan=True, sync_weight=0.95)


def test_load_method_says_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file\. Expected a \.ckpt file"):
        load_method(tmp_path / "none.ckpt")
    (tmp_path / "damaged.ckpt").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"damaged\.ckpt: cannot be read"):
        load_method(tmp_path / "damaged.ckpt")
    torch.save({"state_dict": {}, "global_step": 1}, tmp_path / "official.pth")
    with pytest.raises(ValueError, match=r"official\.pth: has no entry 'lipsync_bench'.*bench import"):
        load_method(tmp_path / "official.pth")
    save_module(SyncExpertModule(width=0.125), tmp_path / "expert.ckpt")
    with pytest.raises(ValueError, match=r"holds a lipsync_bench\.models\.SyncExpertModule.*\.models\.Wav2Lip"):
        load_method(tmp_path / "expert.ckpt")
