# SPDX-License-Identifier: Apache-2.0
"""VideoReTalking: D-Net steadies the expression, L-Net draws a mouth that fits the audio, E-Net enlarges the face."""

from lipsync_bench.models.videoretalking.dnet.module import VideoReTalkingDNet
from lipsync_bench.models.videoretalking.enet.module import VideoReTalkingENet
from lipsync_bench.models.videoretalking.lnet.module import VideoReTalkingLNet

__all__ = ["VideoReTalkingDNet", "VideoReTalkingENet", "VideoReTalkingLNet"]
