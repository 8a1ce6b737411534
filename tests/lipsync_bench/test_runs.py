# SPDX-License-Identifier: Apache-2.0
"""The folder of a training: its name, what lies in it, when it is resumed or refused, how stages find each other."""

import logging
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from torch.utils.data import DataLoader

from lipsync_bench.cli.lightning import main
from lipsync_bench.experiment_files import installed_experiments
from lipsync_bench.models.core.checkpoints import BenchModule
from lipsync_bench.runs import check_name, run_name, stage_checkpoint
from tests.commands import run_bench

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*args parameter is intended.*"
)


class Line(BenchModule):
    """A line, which may need the checkpoint of another run."""

    def __init__(self, lr: float = 0.1, base: str | None = None) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(1, 1)
        self.lr, self.base = lr, base

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self.layer(batch["x"]).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), self.lr)


class Worse(Line):
    """What it validates is best at first."""

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        self.log("val/loss", float(self.global_step), batch_size=1)


class Ones(pl.LightningDataModule):
    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader([{"x": torch.ones(1)}] * 4, batch_size=2)  # type: ignore[arg-type]


class Validated(Ones):
    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader([{"x": torch.ones(1)}])  # type: ignore[arg-type]


class Broken(pl.LightningDataModule):
    def train_dataloader(self) -> DataLoader[Any]:
        raise ValueError("no data")


class Others(Ones):
    """Another data set."""


def write(name: str, **parts: Any) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(yaml.safe_dump(parts))


@pytest.fixture(autouse=True)
def experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trainer = {"accelerator": "cpu", "max_steps": 2, "max_epochs": -1, "enable_progress_bar": False}
    model, data = {"class_path": f"{__name__}.Line"}, {"class_path": f"{__name__}.Ones"}
    write("experiments/first.yaml", model=model, data=data, trainer=trainer)
    second = {**model, "init_args": {"base": "run:first/last.ckpt"}}
    write("experiments/second.yaml", model=second, data=data, trainer=trainer)
    write("experiments/overlays/others.yaml", data={"class_path": f"{__name__}.Others"})
    write("experiments/overlays/quick.yaml", model={"init_args": {"lr": 0.5}})


def fit(*words: str) -> None:
    main(["fit", *words])


def steps(run: str, file: str = "last.ckpt") -> int:
    return int(torch.load(f"runs/{run}/{file}", weights_only=True)["global_step"])


def saved(run: str) -> Any:
    return yaml.safe_load(Path(f"runs/{run}/config.yaml").read_text())


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (["experiments/wav2lip.yaml"], "wav2lip"),
        (["hyperlips_hr.yaml", "hyperlips/x2.yaml", "overlays/mead.yaml"], "hyperlips_hr+mead+x2"),
        (["wav2lip.yaml", "synthetic/wav2lip.yaml"], "wav2lip+synthetic"),
        (["runs/hyperlips_hr+mead/config.yaml"], "hyperlips_hr+mead"),
        (["runs/hyperlips_hr+mead/config.yaml", "hyperlips/x2.yaml"], "hyperlips_hr+mead+x2"),
    ],
)
def test_the_name_is_made_from_the_files(files: list[str], name: str) -> None:
    assert run_name([Path(file) for file in files]) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", ".hidden", "a\nb"])
def test_names_that_are_no_folder_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="Set --run"):
        check_name(name)


def test_a_run_keeps_logs_checkpoints_and_configuration_in_its_folder() -> None:
    fit("-c", "first", "-c", "overlays/quick")
    folder = Path("runs/first+quick")
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "last.ckpt", "lightning_logs"}
    assert sorted(path.name for path in Path().iterdir()) == ["experiments", "runs"]
    config = saved("first+quick")
    assert (config["run"], config["model"]["init_args"]["lr"]) == ("first+quick", 0.5)
    callback = config["trainer"]["callbacks"][0]
    assert callback["init_args"]["dirpath"] == str(folder)


def test_the_place_can_be_overridden_as_in_any_lightning_cli(tmp_path: Path) -> None:
    save = {"class_path": "pytorch_lightning.callbacks.ModelCheckpoint", "init_args": {"filename": "mine"}}
    write("mine.yaml", trainer={"callbacks": [save], "logger": False, "default_root_dir": str(tmp_path / "away")})
    fit("-c", "first", "-c", "mine.yaml", "--run", "named")
    assert {path.name for path in (tmp_path / "away").iterdir()} == {"config.yaml", "mine.ckpt", "last.ckpt"}


def test_nothing_is_written_where_nothing_is_to_be_kept() -> None:
    fit("-c", "first", "--trainer.logger", "false", "--trainer.enable_checkpointing", "false")
    assert not Path("runs").exists()


def test_the_same_command_resumes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    fit("-c", "first")
    first = Path("runs/first/last.ckpt").read_bytes()
    fit("-c", "first", "--trainer.enable_model_summary", "false")  # which trains nothing otherwise
    assert "runs/first is resumed from runs/first/last.ckpt" in caplog.text
    assert Path("runs/first/last.ckpt").read_bytes() == first
    fit("-c", "first", "--trainer.max_steps", "5", "--resume")
    assert steps("first") == 5


def checkpoints(run: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path("runs", run).glob("*.ckpt")}


@pytest.mark.parametrize("steps_in_all", [6, 7])  # with the last of which there is a validation, and none
@pytest.mark.parametrize("saver", [{"save_top_k": 1}, {"save_top_k": 1, "save_last": True}, None])
def test_the_last_checkpoint_is_that_of_the_last_step_and_the_best_that_of_the_best_validation(
    steps_in_all: int, saver: dict[str, Any] | None
) -> None:
    init = {
        "filename": "best",
        "monitor": "val/loss",
        "enable_version_counter": False,
        "save_on_train_epoch_end": False,
    }
    callback = {"class_path": "pytorch_lightning.callbacks.ModelCheckpoint", "init_args": {**init, **(saver or {})}}
    trainer = {"max_steps": steps_in_all, "val_check_interval": 2, "check_val_every_n_epoch": None}
    write(
        "experiments/worse.yaml",
        model={"class_path": f"{__name__}.Worse"},
        data={"class_path": f"{__name__}.Validated"},
        trainer={
            **{"accelerator": "cpu", "max_epochs": -1, "enable_progress_bar": False, "num_sanity_val_steps": 0},
            **trainer,
            **({"callbacks": [callback]} if saver else {}),
        },
    )
    fit("-c", "worse")
    kept = {"best.ckpt"} if saver else {f"worse_{step:09d}.ckpt" for step in (2, 4, 6)}
    assert set(checkpoints("worse")) == {"last.ckpt", *kept}
    assert steps("worse") == steps_in_all
    if saver:
        assert steps("worse", "best.ckpt") == 2
    before = checkpoints("worse")
    fit("-c", "worse")  # and finds it finished
    assert checkpoints("worse") == before
    fit("-c", "worse", "--trainer.max_steps", "9", "--resume")
    assert steps("worse") == 9
    if saver:
        assert checkpoints("worse")["best.ckpt"] == before["best.ckpt"]


def test_without_validation_the_last_checkpoint_is_written_alone() -> None:
    init = {"filename": "best", "monitor": "val/loss", "save_on_train_epoch_end": False}
    callback = {"class_path": "pytorch_lightning.callbacks.ModelCheckpoint", "init_args": init}
    write("best.yaml", trainer={"callbacks": [callback]})
    fit("-c", "first", "-c", "best.yaml", "--run", "alone", "--trainer.max_steps", "5")
    before = checkpoints("alone")
    assert set(before) == {"last.ckpt"}
    fit("-c", "first", "-c", "best.yaml", "--run", "alone", "--trainer.max_steps", "5")
    assert checkpoints("alone") == before
    fit("-c", "second", "--model.init_args.base", "run:alone")  # which its folder stands for
    assert saved("second")["model"]["init_args"]["base"] == "runs/alone/last.ckpt"
    Path("runs/alone/best.ckpt").write_bytes(before["last.ckpt"])
    fit("-c", "second", "--model.init_args.base", "run:alone", "--run", "chosen")
    assert saved("chosen")["model"]["init_args"]["base"] == "runs/alone/best.ckpt"


def test_a_run_is_overwritten_beside_a_checkpoint_of_another(caplog: pytest.LogCaptureFixture) -> None:
    fit("-c", "first")
    fit("-c", "first", "--run", "other", "--model.init_args.lr", "0.25")
    command = ("-c", "first", "--trainer.max_steps", "5", "--ckpt_path", "runs/first/last.ckpt", "--run", "other")
    with pytest.raises(SystemExit):
        fit(*command)
    assert "delete it with --overwrite" in caplog.text
    fit(*command, "--overwrite")
    assert (steps("other"), saved("other")["model"]["init_args"]["lr"]) == (5, 0.1)
    before = checkpoints("other")
    for path in ("runs/other/last.ckpt", "runs/nowhere.ckpt"):  # which would be deleted, or would leave nothing
        caplog.clear()
        with pytest.raises(SystemExit):
            fit("-c", "first", "--run", "other", "--overwrite", "--ckpt_path", path)
        assert "Expected a checkpoint of another folder" in caplog.text
    assert checkpoints("other") == before


def test_a_folder_of_another_configuration_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    fit("-c", "first")
    before = {path: path.read_bytes() for path in Path("runs/first").rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as ended:
        fit("-c", "first", "--model.init_args.lr", "0.25")
    assert ended.value.code == 1
    assert "model.init_args.lr (0.25, was 0.1)" in caplog.text
    assert "--run NAME" in caplog.text
    assert "--resume" in caplog.text
    assert "--overwrite" in caplog.text
    assert {path: path.read_bytes() for path in Path("runs/first").rglob("*") if path.is_file()} == before
    fit("-c", "first", "--model.init_args.lr", "0.25", "--run", "first_quicker")
    assert saved("first_quicker")["model"]["init_args"]["lr"] == 0.25
    Path("runs/first/notes.txt").write_text("mine")
    fit("-c", "first", "--model.init_args.lr", "0.25", "--overwrite", "--trainer.max_steps", "1")
    assert (steps("first"), saved("first")["model"]["init_args"]["lr"]) == (1, 0.25)
    assert Path("runs/first/notes.txt").read_text() == "mine"


def test_checkpoints_of_nobody_are_not_written_over(caplog: pytest.LogCaptureFixture) -> None:
    Path("runs/first").mkdir(parents=True)
    Path("runs/first/last.ckpt").write_bytes(b"of the first edition")
    with pytest.raises(SystemExit):
        fit("-c", "first")
    assert "holds another run: checkpoints without a config.yaml" in caplog.text
    assert Path("runs/first/last.ckpt").read_bytes() == b"of the first edition"


def test_a_run_that_failed_at_once_can_be_corrected() -> None:
    with pytest.raises(SystemExit):
        fit("-c", "first", "--data.class_path", f"{__name__}.Broken")
    assert saved("first")["data"]["class_path"].endswith("Broken")
    fit("-c", "first")
    assert saved("first")["data"]["class_path"].endswith("Ones")


def test_there_must_be_something_to_resume(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SystemExit):
        fit("-c", "first", "--resume")
    assert "no runs/first/last.ckpt" in caplog.text
    with pytest.raises(SystemExit):
        fit("-c", "first", "--resume", "--overwrite")
    assert "Expected one of them" in caplog.text


def test_a_checkpoint_of_the_run_may_be_named() -> None:
    fit("-c", "first")
    fit("-c", "first", "--trainer.max_steps", "4", "--ckpt_path", "runs/first/last.ckpt")
    assert steps("first") == 4


def test_a_stage_finds_the_one_before_with_the_same_overlays(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SystemExit):
        fit("-c", "second", "-c", "overlays/others")
    assert "there is no runs/first+others/last.ckpt nor runs/first/last.ckpt" in caplog.text
    fit("-c", "first")
    caplog.clear()
    with pytest.raises(SystemExit):
        fit("-c", "second", "-c", "overlays/others")  # of which only the other data set's is there
    assert "runs/first/last.ckpt was trained on" in caplog.text
    assert "Others" in caplog.text
    assert not Path("runs/second+others").exists()
    fit("-c", "first", "-c", "overlays/others")
    fit("-c", "second", "-c", "overlays/others")
    fit("-c", "second", "-c", "overlays/others", "-c", "overlays/quick")  # a stage takes what overlays it was given
    fit("-c", "second")
    for run, base in (("second+others", "first+others"), ("second+others+quick", "first+others"), ("second", "first")):
        assert saved(run)["model"]["init_args"]["base"] == f"runs/{base}/last.ckpt"
    assert saved("first")["data"]["class_path"].endswith("Ones")  # untouched by the runs on the other data set


def test_a_stage_of_one_data_set_may_be_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    asked = ("-c", "overlays/asks")
    write("experiments/overlays/asks.yaml", model={"init_args": {"base": "run:first@Ones/last.ckpt"}})
    fit("-c", "first", "-c", "overlays/others")
    with pytest.raises(SystemExit):
        fit("-c", "second", "-c", "overlays/others", *asked)
    assert "runs/first+others/last.ckpt was trained on" in caplog.text
    assert "Expected that stage trained on Ones. Train it: lightning fit -c first on Ones;" in caplog.text
    fit("-c", "first")
    fit("-c", "second", "-c", "overlays/others", *asked)  # passes by the one with its own data set
    assert saved("second+asks+others")["model"]["init_args"]["base"] == "runs/first/last.ckpt"
    fit("-c", "first", "-c", "overlays/quick")
    fit("-c", "second", "-c", "overlays/others", "-c", "overlays/quick", *asked)  # the other overlays still count
    assert saved("second+asks+others+quick")["model"]["init_args"]["base"] == "runs/first+quick/last.ckpt"


def test_hyperlips_on_mead_takes_the_expert_of_lrs2(tmp_path: Path) -> None:
    reference = yaml.safe_load((installed_experiments() / "hyperlips_base.yaml").read_text())["model"]["init_args"][
        "sync_expert"
    ]
    for run, dataset in (("hyperlips_sync_expert+mead", "MEAD"), ("hyperlips_sync_expert", "LRS2")):
        (tmp_path / "runs" / run).mkdir(parents=True)
        (tmp_path / "runs" / run / "last.ckpt").touch()
        config = {"data": {"class_path": f"lipsync_bench.datamodules.{dataset}"}}
        (tmp_path / "runs" / run / "config.yaml").write_text(yaml.safe_dump(config))
    found = stage_checkpoint(reference, "hyperlips_base+mead", tmp_path / "runs", "lipsync_bench.datamodules.MEAD", "x")
    assert found == tmp_path / "runs" / "hyperlips_sync_expert" / "last.ckpt"


def test_a_stage_may_be_named_by_its_path() -> None:
    fit("-c", "first")
    command = ("-c", "second", "-c", "overlays/others", "--model.init_args.base", "runs/first/last.ckpt")
    fit(*command)
    assert saved("second+others")["model"]["init_args"]["base"] == "runs/first/last.ckpt"


def test_a_reference_that_names_no_file_is_refused(tmp_path: Path) -> None:
    for reference in ("run:", "run:/last.ckpt", "run:first/"):
        with pytest.raises(ValueError, match=r"Expected run:NAME or run:NAME/last\.ckpt"):
            stage_checkpoint(reference, "second", tmp_path, "", "model.init_args.base")


def test_an_unknown_name_lists_the_known(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SystemExit):
        fit("-c", "frist")
    assert "-c frist: no such file" in caplog.text
    assert "first" in caplog.text
    assert "wav2lip" in caplog.text


def test_names_of_the_package_are_found_from_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for name in ("wav2lip", "experiments/wav2lip.yaml", "experiments/wav2lip"):
        with pytest.raises(SystemExit) as ended:
            fit("-c", name, "--model.init_args.sync_expert", "x.ckpt", "--print_config")
        assert ended.value.code == 0
        shown.append(capsys.readouterr().out)
    assert "lipsync_bench.models.Wav2Lip" in shown[0]
    assert shown[1:] == shown[:1] * 2


def test_yamls_are_listed_and_copied_to_be_changed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_bench("experiments", "list") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("wav2lip", "overlays/mead", "lrs2", "lipformer-1", "videoretalking"))
    assert max(map(len, shown.splitlines())) <= 120
    assert run_bench("experiments", "copy", "benchmarks/lrs2") == 0
    copy = Path("experiments/benchmarks/lrs2.yaml")
    original = copy.read_text()
    assert "runs/wav2lip/last.ckpt" in original
    copy.write_text("changed")
    assert run_bench("experiments", "copy", "benchmarks/lrs2") == 1
    assert copy.read_text() == "changed"
    assert run_bench("experiments", "copy", "benchmarks/lrs2", "--overwrite") == 0
    assert copy.read_text() == original
    assert run_bench("experiments", "copy", "nothing") == 1
