# SPDX-License-Identifier: Apache-2.0
"""VideoReTalking's official weight files."""

from lipsync_bench.datamodules.weights.official_weights import OfficialWeights
from lipsync_bench.models.videoretalking.lnet.module import VideoReTalkingLNet
from lipsync_bench.models.videoretalking.lnet.network import LNet


def _lnet(generator: LNet, _: None) -> VideoReTalkingLNet:
    module = VideoReTalkingLNet()
    module.generator = generator
    return module


OFFICIAL = (
    OfficialWeights(
        name="videoretalking_lnet",
        use="bench evaluate --methods.videoretalking_lnet {out}",
        build=lambda _: LNet(),
        module=_lnet,
    ),
)
