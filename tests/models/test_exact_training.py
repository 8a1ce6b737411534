# SPDX-License-Identifier: Apache-2.0
"""Every module's training: resumed inside an epoch it ends bit for bit where an unbroken one ends; numbers that are not
finite stop it; two processes draw differently and validate alike.
"""

import errno
import logging
import os
import resource
import signal
import socket
import tempfile
from multiprocessing import set_forkserver_preload
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.multiprocessing as mp
from torch import Tensor
from torch.utils.data import DataLoader

from lipsync_bench.models import (
    LipFormerCodebook,
    SyncExpertModule,
    Wav2Lip,
    load_method,
)
from lipsync_bench.models.core.checkpoint_files import AtomicCheckpointIO, write_checkpoint
from lipsync_bench.models.core.checkpoints import RECORD, BenchModule, save_module
from lipsync_bench.models.lipformer.codebook.quantiser import Quantiser
from lipsync_bench.models.parts.losses import SyncLoss
from tests.leftovers import left_by_the_dead
from tests.models.training import (
    EPOCH,
    MODULES,
    ExampleData,
    Examples,
    SaveAfter,
    fit,
    trainer_for,
    without_perceptual,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*in eval mode.*", "ignore:.*no `val_dataloader`.*"
)


class DrawBefore(pl.Callback):
    """Leaves torch's generator elsewhere than a training that has come so far."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        torch.manual_seed(2)


# A system is not trained itself, its parts are.
@pytest.mark.parametrize("name", sorted(name for name, kind in MODULES.items() if not getattr(kind, "parts", {})))
def test_a_training_resumed_inside_an_epoch_ends_like_an_unbroken_one(name: str, tmp_path: Path) -> None:
    kind = MODULES[name]
    torch.manual_seed(1)
    arguments = without_perceptual(kind, kind.smoke_arguments(tmp_path))  # they have no state
    if kind is LipFormerCodebook:
        arguments["reseed_after"] = 2  # so that entries are re-seeded after the checkpoint too
    whole = kind(**arguments)
    end = fit(whole, tmp_path, SaveAfter(tmp_path / "mid.ckpt", 3), data=ExampleData(whole, 2, 4))
    part = kind(**arguments)
    resumed = fit(part, tmp_path, DrawBefore(), ckpt=tmp_path / "mid.ckpt", data=ExampleData(part, 2, 4))
    assert (resumed.global_step, resumed.current_epoch) == (end.global_step, end.current_epoch)
    assert resumed.fit_loop.total_batch_idx == 3
    for key, value in whole.state_dict().items():
        assert torch.equal(part.state_dict()[key], value), key
    for own, other in zip(resumed.optimizers, end.optimizers, strict=True):
        for index, state in other.state_dict()["state"].items():
            assert all(torch.equal(own.state_dict()["state"][index][key], value) for key, value in state.items())


# What is not finite


class Diverging(Wav2Lip):
    """Wav2Lip whose loss is what it is told to be at one batch."""

    at, factor = 4, float("nan")

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        loss = super().training_step(batch, batch_index)
        assert loss is not None
        return loss * (self.factor if self.trainer.global_step == self.at else 1)


def diverging(factor: float) -> Diverging:
    module = Diverging(width=0.125, sync_weight=0.0)
    module.factor = factor
    return module


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_and_names_the_batch(factor: float, tmp_path: Path) -> None:
    module = diverging(factor)
    save = pl.callbacks.ModelCheckpoint(tmp_path / "ckpt", save_top_k=-1, every_n_train_steps=1, save_last=True)
    with pytest.raises(FloatingPointError) as raised:
        fit(module, tmp_path, save, enable_checkpointing=True)
    message = str(raised.value)
    assert f"the loss is {factor:g} in epoch 1, batch 1, step 4, process 0" in message
    assert "from clip1_2.safetensors, clip1_3.safetensors." in message
    assert "\n" not in message
    assert all(value.isfinite().all() for value in module.state_dict().values())
    steps = sorted(torch.load(path, weights_only=True)["global_step"] for path in (tmp_path / "ckpt").iterdir())
    assert steps == [1, 2, 3, 4, 4]  # last.ckpt too


def test_a_gradient_that_is_not_finite_stops_where_the_loss_is_finite(tmp_path: Path) -> None:
    module = diverging(1.0)
    module.generator.output_block[1].weight.register_hook(lambda gradient: gradient / 0)
    with pytest.raises(
        FloatingPointError, match=r"gradient of generator\.output_block\.1\.weight is not finite \(the loss is 0"
    ):
        fit(module, tmp_path)
    assert all(value.isfinite().all() for value in module.state_dict().values())


def test_a_window_that_is_not_finite_is_the_one_that_is_named(tmp_path: Path) -> None:
    class Spoilt(Examples):
        def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
            window = super().__getitem__(key)
            return {**window, "frame_mels": window["frame_mels"] * (float("nan") if key == (0, 3) else 1)}

    class SpoiltData(ExampleData):
        def train_dataloader(self) -> DataLoader[Any]:
            return self._training_loader(Spoilt(self.module, self.length), self.length)

    module = Wav2Lip(width=0.125, sync_weight=0.0)
    with pytest.raises(FloatingPointError, match=r"whose windows are from clip0_3\.safetensors\. Expected"):
        fit(module, tmp_path, data=SpoiltData(module))


def test_weights_that_are_not_finite_are_neither_written_nor_read(tmp_path: Path) -> None:
    module = Wav2Lip(width=0.125)
    save_module(module, tmp_path / "good.ckpt")
    checkpoint = torch.load(tmp_path / "good.ckpt", weights_only=True)
    name = "generator.output_block.0.conv_block.1.running_var"
    checkpoint["state_dict"][name][2] = float("nan")
    torch.save(checkpoint, tmp_path / "bad.ckpt")
    with pytest.raises(ValueError, match=rf"bad\.ckpt: {name} has values that are not finite"):
        load_method(tmp_path / "bad.ckpt")
    with pytest.raises(ValueError, match=rf"bad\.ckpt: {name} has values that are not finite"):
        fit(Wav2Lip(width=0.125, sync_weight=0.0), tmp_path, ckpt=tmp_path / "bad.ckpt")
    module.generator.output_block[1].bias.data[0] = float("inf")
    with pytest.raises(FloatingPointError, match=r"Wav2Lip: generator\.output_block\.1\.bias is not finite"):
        save_module(module, tmp_path / "good.ckpt")
    load_method(tmp_path / "good.ckpt")  # the older one is still there


# Files


def test_the_half_checkpoint_of_a_killed_training_is_removed_by_the_next(tmp_path: Path) -> None:
    left, others = (left_by_the_dead(tmp_path / name) for name in ("last.ckpt", "step=5.ckpt"))
    left.write_bytes(b"half")
    others.write_bytes(b"half")
    write_checkpoint({"state_dict": {}}, tmp_path / "last.ckpt")
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", others.name}


def test_a_checkpoint_is_written_beside_its_place_and_not_in_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "another file system"))
    trainer = fit(
        Wav2Lip(width=0.125, sync_weight=0.0), tmp_path, SaveAfter(tmp_path / "a" / "b.ckpt", 1), max_epochs=1
    )
    assert type(trainer.strategy.checkpoint_io) is AtomicCheckpointIO
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.ckpt"]


def test_the_older_checkpoint_stays_where_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    write_checkpoint({"state_dict": {"x": torch.zeros(10)}}, path)
    before, soft = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, soft[1]))  # a write beyond it fails as on a full disk
        with pytest.raises(OSError, match=r"last\.ckpt: the checkpoint could not be written .*resume") as raised:
            write_checkpoint({"state_dict": {"x": torch.zeros(100_000)}}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, soft)
        signal.signal(signal.SIGXFSZ, handler)
    assert raised.value.errno == errno.EFBIG
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_way_of_saving_that_the_trainer_was_given_stays(tmp_path: Path) -> None:
    class Own(pl.plugins.io.TorchCheckpointIO): ...

    trainer = fit(Wav2Lip(width=0.125, sync_weight=0.0), tmp_path, max_epochs=1, plugins=[Own()])
    assert type(trainer.strategy.checkpoint_io) is Own


# Batches of one window


@pytest.mark.parametrize(
    ("batch_size", "val_length", "sizes"), [(4, 5, [3, 2]), (2, 3, [3]), (3, 7, [4, 3]), (2, 4, [2, 2])]
)
def test_an_expert_in_training_mode_never_validates_a_single_window(
    batch_size: int, val_length: int, sizes: list[int], tmp_path: Path
) -> None:
    module = Wav2Lip(**Wav2Lip.smoke_arguments(tmp_path))
    seen: list[int] = []

    class Sizes(pl.Callback):
        def on_validation_batch_start(self, trainer: Any, module: Any, batch: dict[str, Tensor], *_: Any) -> None:
            seen.append(len(batch["mel"]))

    fit(module, tmp_path, Sizes(), data=ExampleData(module, batch_size, batch_size, val_length), max_epochs=1)
    assert seen == sizes


@pytest.mark.parametrize(
    ("batch_size", "val_length", "where"),
    [(1, 0, "training batches of 1 window"), (1, 4, "training"), (4, 1, "validation")],
)
def test_a_batch_of_one_is_refused_before_the_first_step(
    batch_size: int, val_length: int, where: str, tmp_path: Path
) -> None:
    module = Wav2Lip(**Wav2Lip.smoke_arguments(tmp_path))
    data = ExampleData(module, batch_size, 4, val_length)
    with pytest.raises(ValueError, match=rf"{where}.*Expected 2 or more.*--data\.init_args\.batch_size"):
        fit(module, tmp_path, data=data)
    assert module.trainer.global_step == 0
    with pytest.raises(ValueError, match="training batches of 1 window"):
        fit(SyncExpertModule(width=0.125), tmp_path, data=ExampleData(SyncExpertModule(width=0.125), 1))
    quiet = Wav2Lip(**{**Wav2Lip.smoke_arguments(tmp_path), "expert_mode": "eval"})
    fit(quiet, tmp_path, data=ExampleData(quiet, 1, 2, 1), max_epochs=1)


def test_a_loader_of_ones_own_is_told_as_well(tmp_path: Path) -> None:
    module = Wav2Lip(**Wav2Lip.smoke_arguments(tmp_path))
    with pytest.raises(ValueError, match="expert is in training mode and got a batch of one window"):
        trainer_for(tmp_path).fit(module, DataLoader([module.example_batch(1)], batch_size=None))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch of one window"):
        SyncLoss()(torch.nn.Identity(), torch.zeros(1, 1, 80, 16), torch.zeros(1, 5, 3, 96, 96))


# Two processes


class Noisy(BenchModule):
    """Draws noise and re-seeds a codebook, and notes the noise."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)
        self.book = Quantiser(entries=8, channels=4, reseed_after=2)
        self.noise: list[float] = []

    def example_batch(self, batch_size: int, seed: int) -> dict[str, Tensor]:
        return {"x": torch.rand(batch_size, 4, generator=torch.Generator().manual_seed(seed))}

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        noise = torch.randn_like(batch["x"])
        self.noise.append(float(noise.sum()))
        features = self.layer(batch["x"] + noise)[:, :, None, None]
        found = self.book(features)
        self.book.record(found.indices, features)
        return self.book.loss(features, found) + found.codes.square().mean()

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        self.log_terms("val", {"mean": batch["x"].mean()}, batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def two_processes_fit(folder: Path, ckpt: Path | None, name: str) -> dict[str, Any]:
    torch.manual_seed(3)
    module = Noisy()
    data = ExampleData(module, 2, 4 * EPOCH, val_length=9)
    trainer = fit(
        module, folder, SaveAfter(folder / name, EPOCH + 1), ckpt=ckpt, data=data, devices=2, strategy="ddp",
        max_steps=6, check_val_every_n_epoch=None, val_check_interval=2,
    )  # fmt: skip
    state = {key: value.clone() for key, value in module.state_dict().items()}
    return {"noise": module.noise, "state": state, "val": float(trainer.callback_metrics["val/mean"])}


def _rank(rank: int, folder: str, port: int) -> None:
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), LOCAL_RANK=str(rank), NODE_RANK="0", WORLD_SIZE="2"
    )
    whole = two_processes_fit(Path(folder), None, "mid.ckpt")
    part = two_processes_fit(Path(folder), Path(folder, "mid.ckpt"), "unused.ckpt")
    torch.save([whole, part], f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_draw_differently_resume_exactly_and_validate_all_windows_alike(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    set_forkserver_preload([__name__])
    mp.start_processes(_rank, args=(str(tmp_path), port), nprocs=2, start_method="forkserver")
    (whole, part), (other, _) = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    assert len(set(whole["noise"] + other["noise"])) == 2 * 6
    assert part["noise"] == whole["noise"][EPOCH + 1 :]
    for name, value in whole["state"].items():
        assert torch.equal(other["state"][name], value), name  # entries were re-seeded alike
        assert torch.equal(part["state"][name], value), name
    assert not torch.equal(whole["state"]["book.embedding"], torch.zeros(8, 4))
    windows = torch.stack([Examples(Noisy(), 9)[0, index]["x"] for index in range(9)])
    assert whole["val"] == other["val"] == pytest.approx(float(windows.mean()), rel=1e-6)


def test_the_seed_of_the_first_training_stays_in_the_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(7)
    fit(Noisy(), tmp_path, SaveAfter(tmp_path / "mid.ckpt", 2))
    assert torch.load(tmp_path / "mid.ckpt", weights_only=True)[RECORD]["seed"] == 7
