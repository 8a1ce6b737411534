# SPDX-License-Identifier: Apache-2.0
"""The `lightning` command: fit, validate, test and predict over the methods and data sets of this suite."""

from collections.abc import Sequence

import pytorch_lightning as pl
from pytorch_lightning.cli import LightningCLI

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


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of the console script `lightning` and of `python -m lipsync_bench`."""
    show_logs()
    BenchCLI(args)


if __name__ == "__main__":
    main()
