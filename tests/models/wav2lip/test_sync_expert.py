# SPDX-License-Identifier: Apache-2.0
"""The lip-sync expert against stored outputs of the official one; its training module on random batches."""

import logging
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from lipsync_bench.models.core.checkpoints import load_module, save_module
from lipsync_bench.models.core.training import Terms
from lipsync_bench.models.parts.losses import CosineBCE
from lipsync_bench.models.wav2lip.module import Wav2Lip
from lipsync_bench.models.wav2lip.sync_expert import CHANCE, SyncExpert, SyncExpertModule
from tests import golden

REFERENCE = golden.arrays("sync_expert")


def tensor(name: str) -> torch.Tensor:
    return torch.from_numpy(REFERENCE[name])


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return golden.filled(golden.names_and_shapes("sync_expert"))


def expert(weights: dict[str, torch.Tensor]) -> SyncExpert:
    network = SyncExpert()
    network.load_state_dict(weights, strict=True)
    return network


def test_names_and_shapes_are_the_official_ones_in_order() -> None:
    own = {name: list(value.shape) for name, value in SyncExpert().state_dict().items()}
    assert list(own.items()) == list(golden.names_and_shapes("sync_expert").items())
    assert sum(p.numel() for p in SyncExpert().parameters()) == 16_435_072


def test_evaluation_mode_equals_the_official_output(weights: dict[str, torch.Tensor]) -> None:
    audio = torch.from_numpy(golden.uniform("sync_expert/audio", (2, 1, 80, 16), -4, 4))
    face = torch.from_numpy(golden.uniform("sync_expert/face", (2, 15, 48, 96)))
    with torch.no_grad():
        audio_embedding, face_embedding = expert(weights).eval()(audio, face)
    for own, name in ((audio_embedding, "audio_embedding"), (face_embedding, "face_embedding")):
        assert (own - tensor(name)).abs().max() <= 1e-5 * tensor(name).std()
    loss = CosineBCE()
    torch.testing.assert_close(loss.cosine(audio_embedding, face_embedding), tensor("cosine"), atol=1e-5, rtol=0)
    for name, label in (("loss_pos", 1.0), ("loss_neg", 0.0), ("loss_10", torch.tensor([1.0, 0.0]))):
        assert float(loss(audio_embedding, face_embedding, label)) == pytest.approx(float(REFERENCE[name]), rel=1e-5)


def test_training_mode_equals_the_official_output(weights: dict[str, torch.Tensor]) -> None:
    audio = torch.from_numpy(golden.uniform("sync_expert/audio_train", (8, 1, 80, 16), -4, 4))
    face = torch.from_numpy(golden.uniform("sync_expert/face_train", (8, 15, 48, 96)))
    network = expert(weights).train()
    with torch.no_grad():
        audio_embedding, face_embedding = network(audio, face)
    # Batch statistics of 1 x 1 maps over 8 samples amplify round-off: absolute tolerances.
    torch.testing.assert_close(audio_embedding[:, ::4], tensor("train_audio_embedding_s4"), atol=2e-5, rtol=0)
    torch.testing.assert_close(face_embedding[:, ::4], tensor("train_face_embedding_s4"), atol=2e-5, rtol=0)
    loss = CosineBCE()
    torch.testing.assert_close(loss.cosine(audio_embedding, face_embedding), tensor("train_cosine"), atol=2e-5, rtol=0)
    label = torch.tensor([1.0, 0.0] * 4)
    assert float(loss(audio_embedding, face_embedding, label)) == pytest.approx(
        float(REFERENCE["train_loss"]), rel=1e-4
    )
    norm = network.face_encoder[0].conv_block[1]
    torch.testing.assert_close(norm.running_mean, tensor("train_running_mean_face0"), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(norm.running_var, tensor("train_running_var_face0"), atol=1e-6, rtol=1e-5)


def test_module_feeds_lower_halves_frame_by_frame_in_bgr() -> None:
    module = SyncExpertModule(width=0.125).eval()
    batch = module.example_batch(2)
    faces = batch["faces"]
    by_hand = torch.cat([faces[:, frame, [2, 1, 0], 48:] for frame in range(5)], dim=1)
    with torch.no_grad():
        expected = CosineBCE.cosine(*module.network(batch["mel"], by_hand))
        torch.testing.assert_close(module(batch["mel"], faces), expected)
        upper_changed = torch.cat([torch.zeros_like(faces[..., :48, :]), faces[..., 48:, :]], dim=-2)
        torch.testing.assert_close(module(batch["mel"], upper_changed), expected)


def test_untrained_expert_learns_to_tell_two_pairs_apart(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = SyncExpertModule(width=0.125, lr=1e-3)
    batch = module.example_batch(8)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=30, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, num_sanity_val_steps=0, check_val_every_n_epoch=None,
    )  # fmt: skip
    trainer.fit(module, DataLoader([batch], batch_size=None))
    assert float(trainer.callback_metrics["train/loss"]) < 0.35 < CHANCE
    (result,) = trainer.validate(module.train(), DataLoader([batch], batch_size=None), verbose=False)
    assert set(result) == {"val/loss", "val/accuracy"}
    assert 0 <= result["val/accuracy"] <= 1


def test_announces_itself_and_names_the_causes_of_chance_level(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = SyncExpertModule(width=0.125)
    loader = DataLoader([module.example_batch(2)], batch_size=None)
    weight = module.network.audio_encoder[0].conv_block[0].weight
    monkeypatch.setattr(module, "loss_terms", lambda batch, stage: Terms({"loss": CHANCE + 0 * weight.sum()}))
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=4, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    with caplog.at_level(logging.INFO, logger="lipsync_bench.models.wav2lip.sync_expert"):
        trainer.fit(module, loader, loader)
    messages = [
        (record.levelno, record.getMessage())
        for record in caplog.records
        if record.name == "lipsync_bench.models.wav2lip.sync_expert"
    ]
    assert messages[0][0] == logging.INFO
    assert "0.693" in messages[0][1]
    warnings = [text for level, text in messages if level == logging.WARNING]
    assert len(warnings) == 1  # once, and not in the sanity check
    for cause in ("not aligned", "25 fps", "mel of another clip", "learning rate", "batch_size"):
        assert cause in warnings[0]


def test_loading_gives_the_saved_weights_and_refuses_other_files(tmp_path: Path) -> None:
    module = SyncExpertModule(width=0.125)
    save_module(module, tmp_path / "expert.ckpt")
    network = load_module(tmp_path / "expert.ckpt", [SyncExpertModule]).network
    assert not network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, module.network.state_dict()[name])
    save_module(Wav2Lip(width=0.125), tmp_path / "wav2lip.ckpt")
    with pytest.raises(ValueError, match=r"holds a lipsync_bench\.models\.Wav2Lip.*SyncExpertModule"):
        load_module(tmp_path / "wav2lip.ckpt", [SyncExpertModule])
