# SPDX-License-Identifier: Apache-2.0
"""One metric's case for the tests over all metrics: its test file may define `CASES = {"name": Case(...)}`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torchmetrics


@dataclass(frozen=True)
class Case:
    """One class of metric: how it is made (with `Metric`'s own arguments), fed, and computed without the class.

    Args:
        columns: Registered column of its value, or of each of its values by name; none for one that no row holds.
        joined: Whether batches may be concatenated; else an update is a clip.
    """

    make: Callable[..., torchmetrics.Metric]
    batch: Callable[[int], tuple[Any, ...]]
    function: Callable[[list[tuple[Any, ...]]], Any]
    columns: str | Mapping[str, str]
    joined: bool = True


def by_function(function: Callable[..., torch.Tensor]) -> Callable[[list[tuple[Any, ...]]], float]:
    """Mean over frames of what the function gives, NaN left out."""
    return lambda batches: float(torch.cat([function(*batch) for batch in batches]).nanmean())
