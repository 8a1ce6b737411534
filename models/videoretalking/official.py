# SPDX-License-Identifier: Apache-2.0
"""VideoReTalking's official weight files."""

from lipsync_bench.datamodules.weights.official_weights import OfficialWeights
from lipsync_bench.models.videoretalking.dnet.module import VideoReTalkingDNet
from lipsync_bench.models.videoretalking.dnet.network import DNet
from lipsync_bench.models.videoretalking.enet.module import VideoReTalkingENet
from lipsync_bench.models.videoretalking.enet.network import ENet
from lipsync_bench.models.videoretalking.lnet.module import VideoReTalkingLNet
from lipsync_bench.models.videoretalking.lnet.network import LNet


def _lnet(generator: LNet, _: None) -> VideoReTalkingLNet:
    module = VideoReTalkingLNet()
    module.generator = generator
    return module


def _enet(generator: ENet, _: None) -> VideoReTalkingENet:
    module = VideoReTalkingENet(adversarial_weight=0.0)
    module.generator = generator
    module.generator.low_res.requires_grad_(False)
    return module


def _dnet(network: DNet, _: None) -> VideoReTalkingDNet:
    module = VideoReTalkingDNet()
    module.network = network
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
        use="bench evaluate --methods.videoretalking_enet {out}",
        build=lambda _: ENet(LNet()),
        module=_enet,
        first_stage=VideoReTalkingLNet,
        optional="low_res",
    ),
    OfficialWeights(
        name="videoretalking_dnet",
        use="lipsync_bench.models.core.checkpoints.load_module({out}, [VideoReTalkingDNet]).network",
        build=lambda _: DNet(),
        module=_dnet,
        outer=("net_G_ema",),
        dead="conv1 and norm1 of the six blocks editing_net.decoder.resN.resM",
    ),
)
