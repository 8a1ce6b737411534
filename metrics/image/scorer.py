# SPDX-License-Identifier: Apache-2.0
"""Base of the scorers of image metrics, which compare one image at a time, on one thread."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor

from lipsync_bench.metrics.metric import FrameScorer, Value, View

__all__ = ["PairScorer", "image", "one_thread"]


def image(crop: np.ndarray) -> Tensor:
    """uint8 (H, W, 3) -> (1, 3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1)[None]


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: on images this small several gain next to nothing.

    On a busy machine they wait for each other and a clip takes three times as long (docs/performance.md), and the last
    digits of a sum depend on their number.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class PairScorer(FrameScorer):
    """Compares each crop with the target's.

    One image at a time: as float64 a whole chunk exceeds the processor's cache and takes 80 MB. The target against
    itself is not computed. (SSIM would be 1 but for rounding of 1e-15 in small or very even mouth regions.)

    Args:
        column: Name of the column.
        compare: (1, 3, H, W) of both, uint8 -> (1,).
        identical: Value of identical images.
        mouth: Whether to fill `<column>_mouth`, the same value of the mouth region.
        infinite: Field for the number of crops with an infinite value; empty for none.
        all_threads: Use all threads; networks profit from them.
    """

    def __init__(
        self,
        column: str,
        compare: Callable[[Tensor, Tensor], Tensor],
        identical: float,
        mouth: bool = False,
        infinite: str = "",
        all_threads: bool = False,
    ) -> None:
        super().__init__()
        self._compare, self._identical = compare, identical
        self._columns = (column, f"{column}_mouth") if mouth else (column,)
        self._infinite = infinite
        self._threads = nullcontext if all_threads else one_thread

    def update(self, view: View) -> None:
        """Compare the next crops."""
        if view.is_target:
            for column in self._columns:
                self.add(column, np.full(len(view.crops), self._identical))
            return
        with self._threads():
            for column in self._columns:
                crops = zip(view.crops, view.target_crops, strict=True)
                for pair in view.mouths if column.endswith("_mouth") else crops:
                    self.add(column, self._compare(*map(image, pair)).numpy())

    def result(self) -> dict[str, Value]:
        """Mean over crops with a finite value; without any, infinite if all are identical."""
        out = super().result()
        if self._infinite:
            out[self._infinite] = int(np.isinf(self.values(self._columns[0])).sum())
        return out
