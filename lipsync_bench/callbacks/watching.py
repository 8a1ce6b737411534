# SPDX-License-Identifier: Apache-2.0
"""What a run says of its networks."""

import logging
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.model_summary import get_human_readable_count
from torch import Tensor, nn

from lipsync_bench.models.core.frozen import FrozenParts

_log = logging.getLogger(__name__)

__all__ = ["NetworkSizes", "WatchAdversarial"]


def _sizes(networks: Mapping[str, nn.Module]) -> str:
    counts = {name: sum(parameter.numel() for parameter in network.parameters()) for name, network in networks.items()}
    return ", ".join(f"{name} {get_human_readable_count(count).strip()}" for name, count in counts.items() if count)


class NetworkSizes(pl.callbacks.ModelSummary):
    """The networks and their numbers of parameters in a line."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say them."""
        if trainer.is_global_zero:
            frozen = _sizes(pl_module.loaded_parts() if isinstance(pl_module, FrozenParts) else {})
            trained = _sizes(dict(pl_module.named_children()))
            _log.info("%s: parameters of %s%s", type(pl_module).__name__, trained, frozen and f"; frozen: {frozen}")


class WatchAdversarial(pl.Callback):
    """Logs whether an adversarial term lives: the discriminator's logits, and the norm of the term's gradient on the
    generated images of a batch.

    They are those of the batch that has just been trained on, in evaluation mode. Where logits run away and the
    gradient is 0, the term has died.

    Args:
        every: batches from one look to the next; each costs about a generator's step.
    """

    def __init__(self, every: int = 10) -> None:
        self.every = every

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Mapping[str, Tensor], batch_idx: int
    ) -> None:
        """Look at it, if it is time."""
        if (batch_idx + 1) % self.every == 0:
            pl_module.log_dict({f"train/{name}": value for name, value in self.look(pl_module, batch).items()})

    def look(self, module: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean logits of true and of generated images, the largest one's size, and the gradient's norm."""
        module.eval()
        terms = module.loss_terms(batch, "train")
        (gradient,) = torch.autograd.grad(terms.loss["adversarial"], terms.fake)
        logit = getattr(module.discriminator, "logit", module.discriminator)
        with torch.no_grad():
            real, fake = logit(terms.real), logit(terms.fake)
        module.train()
        return {
            "logit_real": real.mean(), "logit_fake": fake.mean(),
            "logit_largest": torch.cat([real, fake]).abs().max(), "adversarial_gradient": gradient.norm(),
        }  # fmt: skip
