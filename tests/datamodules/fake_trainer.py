# SPDX-License-Identifier: Apache-2.0
"""What a data module asks its trainer for, of any process of many."""

import pytorch_lightning as pl

__all__ = ["FakeTrainer"]


class FakeTrainer:
    """At the beginning of a new training."""

    overfit_batches = 0
    lightning_module = None

    def __init__(self, rank: int, world_size: int) -> None:
        self.global_rank, self.world_size = rank, world_size
        self.fit_loop = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False).fit_loop
