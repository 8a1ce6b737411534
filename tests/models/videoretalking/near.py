# SPDX-License-Identifier: Apache-2.0
"""How near the networks of VideoReTalking must come to stored outputs."""

import torch
from torch import Tensor

__all__ = ["assert_mean_and_deviation", "assert_near"]


def assert_near(own: Tensor, stored: Tensor, tolerance: float) -> None:
    assert own.shape == stored.shape
    assert own.dtype == stored.dtype
    assert (own - stored).abs().max() <= tolerance


def assert_mean_and_deviation(own: Tensor, stored: Tensor) -> None:
    own = torch.stack([own.double().mean(), own.double().std(correction=0)])
    torch.testing.assert_close(own, stored, rtol=1e-5, atol=0)
