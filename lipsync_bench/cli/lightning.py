# SPDX-License-Identifier: Apache-2.0
"""The `lightning` command: fit, validate, test and predict over the methods and data sets of this suite."""

import importlib.util
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytorch_lightning as pl
import yaml
from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeInt
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from lipsync_bench.callbacks import (
    AverageWeights,
    ChannelsLast,
    CompileNetworks,
    LastCheckpoint,
    NetworkSizes,
    SampleClips,
    WaitsForData,
)
from lipsync_bench.cli.config_files import bound_configs, config_files, with_paths
from lipsync_bench.cli.endings import errors_in_a_line
from lipsync_bench.cli.logs import show_logs
from lipsync_bench.datamodules.files.disk import write_atomic
from lipsync_bench.datamodules.files.weights import read_torch
from lipsync_bench.old_names import renamed_words
from lipsync_bench.runs import (
    CONFIG,
    RUNS,
    STAGE,
    check_name,
    dataset_of,
    delete_run,
    refuse_other,
    run_name,
    stage_checkpoint,
)

_CHECKPOINT = "pytorch_lightning.callbacks.ModelCheckpoint"
_PACKAGES = {"TensorBoardLogger": "tensorboard", "WandbLogger": "wandb", "MLFlowLogger": "mlflow"}
"""What loggers import, and the extra of this package that brings it."""
_MLFLOW = "mlruns"  # folder in the run's
_RUN_NAMES = {"WandbLogger": "name", "MLFlowLogger": "run_name"}

_log = logging.getLogger(__name__)

__all__ = ["BenchCLI", "main"]


def _arguments(path: Path) -> dict[str, Any]:
    """The constructor's arguments that a checkpoint holds; none of one that is not read without running its code."""
    try:
        checkpoint = read_torch(path, "a checkpoint", "Name another --ckpt_path", mapped=True)
        stored = checkpoint.get(pl.LightningModule.CHECKPOINT_HYPER_PARAMS_KEY, {})
    except (ValueError, AttributeError):
        return {}  # what reads it next says what is wrong with it
    return {name: list(x) if isinstance(x, tuple) else x for name, x in stored.items() if not name.startswith("_")}


class _SavedConfig(SaveConfigCallback):
    """Writes the complete configuration of a training into the folder of its run."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None: ...  # Lightning's moment

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write it, whole or not at all; nothing where nothing of the run is kept."""
        if trainer.is_global_zero and _is_kept(self.config):
            text = self.parser.dump(self.config, skip_unset=False)
            write_atomic(Path(self.config.trainer.default_root_dir) / CONFIG, text.encode())


def _is_kept(config: Namespace) -> bool:
    """Whether a training leaves anything behind."""
    trainer = config.trainer
    return not trainer.fast_dev_run and (trainer.logger is not False or trainer.enable_checkpointing is not False)


def _loggers(config: Namespace) -> list[Namespace]:
    found = config.trainer.logger
    return [logger for logger in (found if isinstance(found, list) else [found]) if isinstance(logger, Namespace)]


def _callbacks(config: Namespace) -> list[Namespace]:
    found = config.trainer.callbacks
    return list(found) if isinstance(found, list) else [found] * bool(found)


def _has(config: Namespace, kind: str) -> bool:
    return any(str(callback.get("class_path")).endswith(kind) for callback in _callbacks(config))


def _check_loggers(config: Namespace) -> None:
    for logger in _loggers(config):
        package = _PACKAGES.get(logger.class_path.rpartition(".")[2])
        if package and importlib.util.find_spec(package) is None:
            raise ValueError(
                f"{logger.class_path} needs the package {package}, which is not installed. Expected it beside this "
                f"one. Install it with: pip install 'lipsync_bench[{package}]'"
            )


def _make_folders(config: Namespace) -> None:
    """Those of data bases, which do not make them."""
    for logger in _loggers(config):
        path = str(logger.get("init_args.tracking_uri")).partition("sqlite:///")[2]
        if path:
            Path(path).parent.mkdir(parents=True, exist_ok=True)


def _fill_run(config: Namespace, folder: Path) -> None:
    """Give logs and checkpoints of a run their place, wherever its configuration gives them none."""
    trainer = config.trainer
    if trainer.logger in (None, True):
        trainer.logger = Namespace(class_path="pytorch_lightning.loggers.CSVLogger", init_args=Namespace())
    for logger in _loggers(config):
        kind = logger.class_path.rpartition(".")[2]
        own = {"save_dir": str(folder), _RUN_NAMES.get(kind): config.run}
        if kind == "MLFlowLogger" and not logger.get("init_args.tracking_uri"):  # by default MLFLOW_TRACKING_URI
            place = folder / _MLFLOW  # a data base, because MLflow 3 refuses its own folders of files
            own |= {"tracking_uri": f"sqlite:///{place}/mlflow.db", "artifact_location": place.resolve().as_uri()}
        for name, value in own.items():
            if name and logger.get(f"init_args.{name}") in (None, STAGE):
                logger[f"init_args.{name}"] = value
    callbacks = _callbacks(config)
    savers = [callback for callback in callbacks if str(callback.get("class_path")).endswith("ModelCheckpoint")]
    if not savers and trainer.enable_checkpointing is not False and not trainer.fast_dev_run:
        every = {"filename": config.run.partition("+")[0] + "_{step:09d}", "auto_insert_metric_name": False}
        kept = {"save_top_k": -1, "save_on_train_epoch_end": False}
        savers = [Namespace(class_path=_CHECKPOINT, init_args=Namespace(**every, **kept))]
        callbacks = [*callbacks, *savers]
    for callback in savers:
        if callback.get("init_args.dirpath") is None:
            callback["init_args.dirpath"] = str(folder)
    trainer.callbacks = callbacks or None


def _find_stages(config: Namespace, runs: Path) -> None:
    """Replace `run:NAME/FILE` in the model's arguments by the path of that run's checkpoint."""
    arguments = config.model.get("init_args") or {}
    for name, value in vars(arguments).items() if isinstance(arguments, Namespace) else ():
        if isinstance(value, str | Path) and str(value).startswith(STAGE):
            dataset, argument = dataset_of(config.as_dict()), f"model.init_args.{name}"
            arguments[name] = str(stage_checkpoint(str(value), config.run, runs, dataset, argument))


class BenchCLI(LightningCLI):
    """LightningCLI in which model and data are named by `class_path`, so that one YAML holds a whole run.

    `--print_config` writes the complete configuration; the printed file loads again and prints the same.

    A training has a folder, `runs/NAME`, for its checkpoints, logs and configuration (`lipsync_bench.runs`). The same
    command resumes it from its `last.ckpt`.

    With `--ckpt_path` the model's arguments are those of the checkpoint where neither a file of `-c` nor a flag says
    otherwise. (LightningCLI has the checkpoint's win over both.)
    """

    def __init__(self, args: Sequence[str] | None = None, run: bool = True) -> None:
        self._files = config_files(sys.argv[1:] if args is None else args)
        super().__init__(
            model_class=pl.LightningModule,
            datamodule_class=pl.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            save_config_callback=_SavedConfig,
            args=list(args) if args is not None else None,
            run=run,
        )

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        parser = super().init_parser(**kwargs)
        tell = parser.error

        def error(message: str, ex: Exception | None = None) -> NoReturn:
            names = ", ".join(self._files)  # wrong arguments may stand in any of them
            tell(f"{names}: {message}" if names else message, ex)

        parser.error = error  # type: ignore[method-assign]
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The options of runs."""
        parser.add_argument("--run", type=str, default=None, help="Name of the run, whose folder is runs/NAME.")
        parser.add_argument("--resume", action="store_true", help="Train the run further, with these arguments.")
        parser.add_argument("--overwrite", action="store_true", help="Delete what the run's folder holds of a run.")
        parser.add_argument(
            "--sample_clips", type=NonNegativeInt, default=4, help="Clips shown at each validation; 0: none."
        )
        parser.add_argument("--ema", type=float | None, default=None, help="Average the weights; its decay, as 0.999.")
        parser.add_argument(
            "--compile", action="store_true", default=None, help="Have torch.compile translate networks."
        )
        parser.add_argument(
            "--channels_last", action="store_true", default=None, help="Channels-last order of weights."
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        super().parse_arguments(parser, args)
        command = self.config.get("subcommand")
        if not command:
            return
        words = list(sys.argv[1:] if args is None else args)
        folder = self._place(command)
        config = self.config[command]
        path = config.get("ckpt_path")
        if command == "fit" and _is_kept(config):
            path = self._resumed(folder, config)
            words += [f"--ckpt_path={path}"] if path and not config.get("ckpt_path") else []
        if not path or not Path(path).is_file():
            return
        known = config.model.get("init_args") or {}
        stored = {name: value for name, value in _arguments(Path(path)).items() if name in known}
        if command in words:  # as the first of the files, which all that follows overrides
            place = words.index(command) + 1
            first = json.dumps({"model": {"class_path": config.model.class_path, "init_args": stored}})
            self.config = parser.parse_args([*words[:place], "-c", first, *words[place:]])
            self._place(command)

    def _place(self, command: str) -> Path:
        """Name the run, and fill in what follows from its name; returns its folder."""
        config = self.config[command]
        files = [Path(str(file)) for file in config.get("config") or [] if file is not None]  # None: given as text
        if config.run is None:
            config.run = run_name(files) or config.model.class_path.rpartition(".")[2]
        check_name(config.run)
        if config.trainer.default_root_dir is None:
            config.trainer.default_root_dir = str(RUNS / config.run)
        folder = Path(config.trainer.default_root_dir)
        _fill_run(config, folder)
        _find_stages(config, folder.parent)
        return folder

    def _resumed(self, folder: Path, config: Namespace) -> str | None:
        """The checkpoint with which the training is resumed, None for a new one; refuses the folder of another run."""
        if config.resume and config.overwrite:
            raise ValueError("--resume and --overwrite. Expected one of them. Leave out the other")
        given, last = config.get("ckpt_path"), folder / "last.ckpt"
        own = given is not None and Path(given).resolve().parent == folder.resolve()
        if config.overwrite:
            if given and (not Path(given).is_file() or Path(given).resolve().is_relative_to(folder.resolve())):
                raise ValueError(
                    f"--overwrite deletes what {folder} holds, and --ckpt_path {given} is there or nowhere. Expected a "
                    "checkpoint of another folder. Correct --ckpt_path, or leave out --overwrite"
                )
            if getattr(rank_zero_only, "rank", 0) == 0:
                delete_run(folder)
            return str(given) if given else None
        if not (config.resume or own):
            refuse_other(folder, yaml.safe_load(self._parser("fit").dump(config, skip_unset=False)))
        if given:
            return str(given)
        if config.resume and not last.is_file():
            raise FileNotFoundError(
                f"--resume: no {last}. Expected the checkpoint of an earlier training. Leave it out"
            )
        if last.is_file():
            _log.info("%s is resumed from %s", folder, last)
            return str(last)
        return None

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        trainer = super().instantiate_trainer(**kwargs)
        config = self.config[self.subcommand] if self.subcommand else self.config
        callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        if not _has(config, "Summary"):  # Lightning's own has a column of FLOPs, which nothing here states
            callbacks[:] = [NetworkSizes() if isinstance(x, pl.callbacks.ModelSummary) else x for x in callbacks]
        if trainer.checkpoint_callbacks and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            callbacks.append(LastCheckpoint())
            if config.sample_clips and not _has(config, "SampleClips"):
                callbacks.insert(0, SampleClips(config.sample_clips))  # before an average is taken out again
        if config.ema is not None:
            callbacks.insert(0, AverageWeights(config.ema))
        callbacks += [ChannelsLast()] * bool(config.channels_last) + [CompileNetworks()] * bool(config.compile)
        callbacks.append(WaitsForData())  # the last, so that the others' time is not taken for waiting
        return trainer

    def _parse_ckpt_path(self) -> None: ...  # done in parse_arguments, the other way round

    def before_instantiate_classes(self) -> None:
        # Our checkpoints hold plain values; Lightning's default would run the code that a foreign one may hold.
        command = self.config.get(self.subcommand) if self.subcommand else None
        if command is None:
            return
        if command.get("weights_only", True) is None:
            command.weights_only = True
        _check_loggers(command)
        _make_folders(command)


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of the console script `lightning` and of `python -m lipsync_bench`. Ends with 1 on an error."""
    show_logs()
    with errors_in_a_line():
        words = with_paths(renamed_words(sys.argv[1:] if args is None else list(args)))
        bound_configs(words)
        if args is None:
            sys.argv[1:] = words  # Lightning starts other processes with these
        BenchCLI(None if args is None else words)


if __name__ == "__main__":
    main()
