# SPDX-License-Identifier: Apache-2.0
"""`lightning ... --ckpt_path`: which arguments count, and what is said about a checkpoint that does not fit."""

import json
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from torch.utils.data import DataLoader

from lipsync_bench.cli.lightning import BenchCLI, main
from lipsync_bench.models.core.checkpoints import BenchModule, save_module

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*args parameter is intended.*"
)


class Tiny(BenchModule):
    """A line with a few arguments."""

    def __init__(
        self, width: int = 2, lr: float = 0.1, betas: tuple[float, float] = (0.9, 0.999), power: float = 2.0
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(width, width)
        self.width, self.lr, self.betas, self.power = width, lr, betas, power

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self.layer(batch["x"].expand(-1, self.width)).abs().pow(self.power).mean()

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        self.log_terms("val", {"loss": self.training_step(batch, batch_idx)}, batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), self.lr, self.betas)


class TinyData(pl.LightningDataModule):
    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader([{"x": torch.ones(1)}] * 4, batch_size=2)  # type: ignore[arg-type]

    val_dataloader = train_dataloader


DATA, CLASS = f"{__name__}.TinyData", f"{__name__}.Tiny"


def write(folder: Path, name: str, steps: int, arguments: dict[str, Any], ckpt: bool = True) -> str:
    save = {
        "class_path": "pytorch_lightning.callbacks.ModelCheckpoint",
        "init_args": {"dirpath": str(folder / "ckpt"), "save_last": True},
    }
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    trainer = {
        **quiet,
        "accelerator": "cpu",
        "max_epochs": -1,
        "max_steps": steps,
        "default_root_dir": str(folder),
        "num_sanity_val_steps": 0,
    }
    run = {"model": {"class_path": CLASS, "init_args": arguments}, "data": {"class_path": DATA}}
    (folder / name).write_text(yaml.safe_dump({**run, "trainer": {**trainer, "callbacks": [save] if ckpt else []}}))
    return str(folder / name)


@pytest.fixture
def trained(tmp_path: Path) -> tuple[str, str]:
    """A YAML, and a checkpoint of its run with other flags."""
    first = write(tmp_path, "first.yaml", 2, {"lr": 0.25})
    BenchCLI(["fit", "-c", first, "--model.init_args.power", "3", "--model.init_args.betas", "[0.5, 0.75]"])
    return first, str((tmp_path / "ckpt" / "last.ckpt").rename(tmp_path / "made.ckpt"))


def fit(yaml_file: str, ckpt: str, *flags: str) -> BenchCLI:
    return BenchCLI(["fit", "-c", yaml_file, "--trainer.max_steps", "3", *flags, "--ckpt_path", ckpt])


def test_flags_and_files_count_more_than_the_checkpoint(trained: tuple[str, str], tmp_path: Path) -> None:
    first, ckpt = trained
    cli = fit(first, ckpt)  # neither says a power or betas
    assert (cli.model.power, cli.model.lr, tuple(cli.model.betas)) == (3, 0.25, (0.5, 0.75))
    assert cli.trainer.global_step == 3
    cli = fit(first, ckpt, "--model.init_args.power", "4", "--model.init_args.lr", "0.5")
    assert (cli.model.power, cli.model.lr, tuple(cli.model.betas)) == (4, 0.5, (0.5, 0.75))
    group = cli.trainer.optimizers[0].param_groups[0]
    assert (group["lr"], tuple(group["betas"])) == (0.5, (0.5, 0.75))  # the optimiser's were the checkpoint's
    cli = fit(write(tmp_path, "other.yaml", 3, {"lr": 0.125, "power": 2.0}), ckpt)
    assert (cli.model.power, cli.model.lr) == (2, 0.125)
    assert cli.trainer.optimizers[0].param_groups[0]["lr"] == 0.125


def test_the_saved_configuration_holds_what_counted(trained: tuple[str, str], tmp_path: Path) -> None:
    first, ckpt = trained
    logger = json.dumps({"class_path": "pytorch_lightning.loggers.CSVLogger", "init_args": {"save_dir": str(tmp_path)}})
    cli = fit(first, ckpt, "--trainer.logger", logger, "--model.init_args.lr", "0.5")
    saved = yaml.safe_load((Path(cli.trainer.default_root_dir) / "config.yaml").read_text())
    assert saved["model"]["init_args"] == {"width": 2, "lr": 0.5, "betas": [0.5, 0.75], "power": 3.0}


def test_a_network_of_another_shape_is_refused_in_one_line(
    trained: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    first, ckpt = trained
    with pytest.raises(SystemExit) as ended:
        main(["fit", "-c", first, "--model.init_args.width", "4", "--ckpt_path", ckpt])
    assert ended.value.code == 1
    message = caplog.records[-1].getMessage()
    assert message.startswith(f"error: {ckpt}: ")
    assert "width 4 (checkpoint: 2)" in message
    assert "\n" not in message


def test_weights_alone_are_validated_and_not_gone_on_with(trained: tuple[str, str], tmp_path: Path) -> None:
    first, path = trained[0], tmp_path / "imported.ckpt"
    save_module(Tiny(width=4, power=5.0), path)
    with torch.inference_mode():
        cli = BenchCLI(["validate", "-c", first, "--ckpt_path", str(path)])
    assert (cli.model.width, cli.model.power, cli.model.lr) == (4, 5, 0.25)
    with pytest.raises(ValueError, match=r"imported\.ckpt: holds weights without the state of a training.*init_from"):
        fit(first, str(path))
