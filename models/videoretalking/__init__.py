# SPDX-License-Identifier: Apache-2.0
"""VideoReTalking: L-Net, which draws a mouth that fits the given audio."""

from lipsync_bench.models.videoretalking.lnet.module import VideoReTalkingLNet

__all__ = ["VideoReTalkingLNet"]
