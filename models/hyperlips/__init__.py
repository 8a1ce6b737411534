# SPDX-License-Identifier: Apache-2.0
"""HyperLips: audio determines the weights of convolutions (stage 1, Base), and a decoder adds detail (stage 2, HR)."""

from lipsync_bench.models.hyperlips.base.module import HyperLipsBase
from lipsync_bench.models.hyperlips.hr.module import HyperLipsHR
from lipsync_bench.models.hyperlips.sync_expert import HyperLipsSyncExpertModule

__all__ = ["HyperLipsBase", "HyperLipsHR", "HyperLipsSyncExpertModule"]
