# SPDX-License-Identifier: Apache-2.0
"""VideoReTalking: L-Net, which draws the mouth for given speech."""

from lipsync_bench.models.videoretalking.lnet.module import VideoReTalkingLNet

__all__ = ["VideoReTalkingLNet"]
