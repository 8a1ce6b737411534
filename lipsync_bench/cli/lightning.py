# SPDX-License-Identifier: Apache-2.0
"""The `lightning` command: fit, validate, test and predict over the methods and data sets of this suite."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytorch_lightning as pl
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI

from lipsync_bench.cli.config_files import bound_configs, config_files
from lipsync_bench.cli.endings import errors_in_a_line
from lipsync_bench.cli.logs import show_logs
from lipsync_bench.datamodules.files.weights import read_torch
from lipsync_bench.old_names import renamed_words

__all__ = ["BenchCLI", "main"]


def _arguments(path: Path) -> dict[str, Any]:
    """The constructor's arguments that a checkpoint holds; none of one that is not read without running its code."""
    try:
        checkpoint = read_torch(path, "a checkpoint", "Name another --ckpt_path", mapped=True)
        stored = checkpoint.get(pl.LightningModule.CHECKPOINT_HYPER_PARAMS_KEY, {})
    except (ValueError, AttributeError):
        return {}  # what reads it next says what is wrong with it
    return {name: list(x) if isinstance(x, tuple) else x for name, x in stored.items() if not name.startswith("_")}


class BenchCLI(LightningCLI):
    """LightningCLI in which model and data are named by `class_path`, so that one YAML holds a whole run.

    `--print_config` writes the complete configuration; the printed file loads again and prints the same.

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
            save_config_kwargs={"overwrite": True},
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

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        super().parse_arguments(parser, args)
        command = self.config.get("subcommand")
        path = self.config[command].get("ckpt_path") if command else None
        if not path or not Path(path).is_file():
            return
        model = self.config[command].model
        known = model.get("init_args") or {}
        stored = {name: value for name, value in _arguments(Path(path)).items() if name in known}
        words = list(sys.argv[1:] if args is None else args)
        if stored and command in words:  # as the first of the files, which all that follows overrides
            place = words.index(command) + 1
            first = json.dumps({"model": {"class_path": model.class_path, "init_args": stored}})
            self.config = parser.parse_args([*words[:place], "-c", first, *words[place:]])

    def _parse_ckpt_path(self) -> None: ...  # done in parse_arguments, the other way round

    def before_instantiate_classes(self) -> None:
        # Our checkpoints hold plain values; Lightning's default would run the code that a foreign one may hold.
        command = self.config.get(self.subcommand) if self.subcommand else None
        if command is not None and command.get("weights_only", True) is None:
            command.weights_only = True


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of the console script `lightning` and of `python -m lipsync_bench`. Ends with 1 on an error."""
    show_logs()
    with errors_in_a_line():
        words = renamed_words(sys.argv[1:] if args is None else list(args))
        bound_configs(words)
        if args is None:
            sys.argv[1:] = words
        BenchCLI(None if args is None else words)


if __name__ == "__main__":
    main()
