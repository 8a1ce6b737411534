# SPDX-License-Identifier: Apache-2.0
"""HyperLips: speech that writes the weights of convolutions (stage 1, Base), and a decoder for detail (stage 2, HR)."""

from lipsync_bench.models.hyperlips.base import HyperLipsBase
from lipsync_bench.models.hyperlips.hr import HyperLipsHR
from lipsync_bench.models.hyperlips.sync_expert import HyperLipsSyncExpertModule

__all__ = ["HyperLipsBase", "HyperLipsHR", "HyperLipsSyncExpertModule"]
