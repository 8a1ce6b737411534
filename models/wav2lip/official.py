# SPDX-License-Identifier: Apache-2.0
"""Wav2Lip's official weight files."""

from lipsync_bench.datamodules.weights.official_weights import OfficialWeights
from lipsync_bench.models.wav2lip.module import Wav2Lip
from lipsync_bench.models.wav2lip.network import QualityDiscriminator, Wav2LipGenerator
from lipsync_bench.models.wav2lip.sync_expert import SyncExpert, SyncExpertModule


def _wav2lip(generator: Wav2LipGenerator, discriminator: QualityDiscriminator | None) -> Wav2Lip:
    module = Wav2Lip(gan=discriminator is not None)
    module.generator, module.discriminator = generator, discriminator
    return module


OFFICIAL = (
    OfficialWeights(
        name="wav2lip",
        use="bench evaluate --methods.wav2lip {out}",
        build=lambda _: Wav2LipGenerator(),
        module=_wav2lip,
        partner="wav2lip_disc",
    ),
    OfficialWeights(
        name="wav2lip_disc",
        use="bench import wav2lip FILE --disc {out}, which joins it with a generator",
        build=lambda _: QualityDiscriminator(),
    ),
    OfficialWeights(
        name="sync_expert",
        use="lightning fit -c experiments/wav2lip.yaml --model.init_args.sync_expert {out}",
        build=lambda _: SyncExpert(),
        module=lambda network, _: SyncExpertModule.of_network(network),
    ),
)
