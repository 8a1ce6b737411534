# SPDX-License-Identifier: Apache-2.0
"""Base of the torchmetrics classes of this package: a mean over frames, in float64, that counts the frames left out.

Kept out of metric.py, which must not import torchmetrics.
"""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["FrameMean"]


class FrameMean(Metric):
    """Mean of one value a frame, over the frames that have one.

    Its states are named after its protocol. A `MetricCollection` merges metrics whose states have the same names and,
    after the first update, the same values: under common names MSE and LPIPS would be merged by a first batch of
    identical images, where both are 0, and only the first would be updated from then on.

    Args:
        protocol: A unique name of what is computed.
        **kwargs: Arguments of `torchmetrics.Metric`, such as `sync_on_compute`.
    """

    full_state_update = False

    def __init__(self, protocol: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.protocol = protocol
        for state in ("sum", "count", "skipped"):
            self.add_state(f"{protocol}_{state}", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def _state(self, name: str) -> Tensor:
        state: Tensor = getattr(self, f"{self.protocol}_{name}")
        return state

    def add(self, values: Tensor, usable: Tensor | None = None) -> None:
        """Add the values (N,) of some frames. Frames that are not `usable`, bool (N,), are counted and left out."""
        usable = torch.ones_like(values, dtype=torch.bool) if usable is None else usable
        total = self._state("sum")
        total += values[usable].sum().to(total.device)
        for name, frames in (("count", usable), ("skipped", ~usable)):
            count = self._state(name)
            count += int(frames.sum())

    def compute(self) -> Tensor:
        """Mean over the frames that were not left out, float64; nan without any."""
        return self._state("sum") / self._state("count")

    @property
    def skipped_frames(self) -> int:
        """Frames left out of the mean (of this process, unless states are synchronised)."""
        return int(self._state("skipped"))

    @property
    def frames(self) -> int:
        """All frames seen (of this process, unless states are synchronised)."""
        return int(self._state("count") + self._state("skipped"))
