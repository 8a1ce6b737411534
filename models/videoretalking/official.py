# SPDX-License-Identifier: Apache-2.0
"""VideoReTalking's official weight files."""

from lipsync_bench.datamodules.weights.official_weights import OfficialWeights
from lipsync_bench.models.videoretalking.dnet.network import DNet
from lipsync_bench.models.videoretalking.enet.network import ENet
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
    OfficialWeights(
        name="videoretalking_enet",
        use="nothing here yet",
        build=lambda _: ENet(LNet()),
        optional="low_res",
    ),
    OfficialWeights(
        name="videoretalking_dnet",
        use="nothing here yet",
        build=lambda _: DNet(),
        outer=("net_G_ema",),
        dead="conv1 and norm1 of the six blocks editing_net.decoder.resN.resM",
    ),
)
