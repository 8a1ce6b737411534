# SPDX-License-Identifier: Apache-2.0
"""The `lightning` command: fit, validate, test and predict over the methods and data sets of this suite."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from jsonargparse import get_loader, set_loader
from pytorch_lightning.cli import LightningCLI
from yaml import YAMLError

from datamodules.texts import check_yaml, read_yaml
from lipsync_bench.endings import errors_in_a_line
from lipsync_bench.logs import show_logs

__all__ = ["BenchCLI", "main"]


class BenchCLI(LightningCLI):
    """LightningCLI in which model and data are named by `class_path`, so that one YAML holds a whole run.

    `--print_config` writes the complete configuration; the printed file loads again and prints the same.
    """

    def __init__(self, args: Sequence[str] | None = None, run: bool = True) -> None:
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

    def before_instantiate_classes(self) -> None:
        # Our checkpoints hold plain values; Lightning's default would run the code that a foreign one may hold.
        command = self.config.get(self.subcommand) if self.subcommand else None
        if command is not None and command.get("weights_only", True) is None:
            command.weights_only = True


def _bound_configs(words: Sequence[str]) -> None:
    """Refuse files of arguments that are no text, too large or a bomb: jsonargparse reads without bounds.

    Those that are named here end with a line of their own; those that they name in turn, as wrong arguments.
    """
    for option, word in zip(["", *words], words, strict=False):
        path = word.partition("=")[2] if word.startswith("-") else word
        named = option in ("-c", "--config") or path.endswith((".yaml", ".yml"))
        if named and os.path.isfile(path):  # noqa: PTH113 (which raises for long words)
            read_yaml(Path(path), "arguments of a run, as in experiments/", "Correct the file")
    load = get_loader("yaml")

    def bounded(text: str) -> Any:
        check_yaml(text)
        return load(text)

    set_loader("yaml", bounded, (YAMLError,))


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of the console script `lightning` and of `python -m lipsync_bench`."""
    show_logs()
    with errors_in_a_line():
        _bound_configs(sys.argv[1:] if args is None else args)
        BenchCLI(args)


if __name__ == "__main__":
    main()
