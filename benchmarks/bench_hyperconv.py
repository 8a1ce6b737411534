# SPDX-License-Identifier: Apache-2.0
"""HyperLips' per-sample convolutions in one grouped call, against a loop over the samples with one call each.

Both get the same kernels from the same codes, at the published width and the four sizes of a 128-pixel face, forward
and backward, a window of five frames for each of four samples.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.tools.comparison import Comparison, Rounds
from lipsync_bench.models.hyperlips.base.hyperconv import HyperConv

SAMPLES = 20
CODE = 64
SCALES = ((16, 64), (24, 32), (40, 16), (128, 8))  # channels, side of the map

__all__: list[str] = []


def _one_by_one(layer: HyperConv, x: Tensor, code: Tensor) -> Tensor:
    kernels = layer.hyperkernel(code).reshape(len(x), layer.channels, layer.channels, 3, 3)
    biases = layer.hyperbias(code)
    return torch.cat([F.conv2d(x[n : n + 1], kernels[n], biases[n], padding=1) for n in range(len(x))])


def _milliseconds(rounds: Rounds) -> Rounds:
    return rounds.each(lambda seconds: seconds * 1000)


@pytest.mark.parametrize(("channels", "side"), SCALES)
def test_hyperconv(comparison: Comparison, channels: int, side: int) -> None:
    torch.manual_seed(0)
    layer = HyperConv(channels, CODE)
    x = torch.randn(SAMPLES, channels, side, side, requires_grad=True)
    code = torch.randn(SAMPLES, CODE)
    expected = _one_by_one(layer, x, code)
    torch.testing.assert_close(layer(x, code), expected, atol=1e-5 * float(expected.abs().max()), rtol=0)
    own, others = comparison.alternate(
        lambda: layer(x, code).sum().backward(),
        {"loop": lambda: _one_by_one(layer, x, code).sum().backward()},
        rounds=15,
    )
    name = f"HyperConv, {channels} channels, {side} x {side}, {SAMPLES} samples"
    comparison.record(name, "ms", _milliseconds(own), "loop over the samples", _milliseconds(others["loop"]))
