# SPDX-License-Identifier: Apache-2.0
"""HyperLips' official weight files."""

from collections.abc import Mapping

from torch import Tensor

from lipsync_bench.datamodules.weights.official_weights import OfficialWeights
from lipsync_bench.models.hyperlips.base.module import HyperLipsBase
from lipsync_bench.models.hyperlips.base.network import HyperLipsBaseGenerator
from lipsync_bench.models.hyperlips.discriminators import BaseDiscriminator, HRDiscriminator
from lipsync_bench.models.hyperlips.hr.module import HyperLipsHR
from lipsync_bench.models.hyperlips.hr.network import HRDecoder
from lipsync_bench.models.hyperlips.sync_expert import HyperLipsSyncExpert, HyperLipsSyncExpertModule


def _base(generator: HyperLipsBaseGenerator, discriminator: BaseDiscriminator | None) -> HyperLipsBase:
    module = HyperLipsBase(variant="released", adversarial_weight=None if discriminator is not None else 0.0)
    module.generator, module.discriminator = generator, discriminator
    return module


def _hr_decoder(state: Mapping[str, Tensor]) -> HRDecoder:
    blocks = {name.split(".")[1] for name in state if name.startswith("up_conv.")}
    return HRDecoder(scale=4 if len(blocks) > 3 else 2 if len(blocks) > 2 else 1)


def _hr(generator: HRDecoder, discriminator: HRDiscriminator | None) -> HyperLipsHR:
    weight = 0.0 if discriminator is None else 1.0
    module = HyperLipsHR(generator.scale, variant="released", inference="released", adversarial_weight=weight)
    module.generator, module.discriminator = generator, discriminator
    return module


OFFICIAL = (
    OfficialWeights(
        name="hyperlips_base",
        use="bench evaluate --methods.hyperlips_base {out}",
        build=lambda _: HyperLipsBaseGenerator(),
        module=_base,
        partner="hyperlips_base_disc",
        dead="in every decoder.decodeN.gru of C channels: rows 0..C-1 of ih.0.weight and ih.0.bias (the reset gate), "
        "input columns C..2C-1 of ih.0.weight and hh.0.weight (the hidden state, which is always zero)",
    ),
    OfficialWeights(
        name="hyperlips_base_disc",
        use="bench import hyperlips_base FILE --disc {out}, which joins it with a generator",
        build=lambda _: BaseDiscriminator(),
    ),
    OfficialWeights(
        name="hyperlips_hr",
        use="bench evaluate --methods.hyperlips_hr {out}",
        build=_hr_decoder,
        module=_hr,
        partner="hyperlips_hr_disc",
        first_stage=HyperLipsBase,
    ),
    OfficialWeights(
        name="hyperlips_hr_disc",
        use="bench import hyperlips_hr FILE --disc {out}, which joins it with a generator",
        build=lambda _: HRDiscriminator(),
    ),
    OfficialWeights(
        name="hyperlips_sync_expert",
        use="lightning fit -c experiments/hyperlips_base.yaml --model.init_args.sync_expert {out}",
        build=lambda _: HyperLipsSyncExpert(),
        module=lambda network, _: HyperLipsSyncExpertModule.of_network(network),
    ),
)
