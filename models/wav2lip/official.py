# SPDX-License-Identifier: Apache-2.0
"""Wav2Lip's official weight files."""

from functools import partial

from lipsync_bench.datamodules.files.official_weights import OfficialWeights
from lipsync_bench.models.wav2lip.module import Wav2Lip
from lipsync_bench.models.wav2lip.network import QualityDiscriminator, Wav2LipGenerator
from lipsync_bench.models.wav2lip.sync_expert import SyncExpert, SyncExpertModule

_weights = partial(
    OfficialWeights,
    documented="github.com/Rudrabha/Wav2Lip (README)",
    licence="no licence file; its README allows personal, research and non-commercial use only",
)


def _wav2lip(generator: Wav2LipGenerator, discriminator: QualityDiscriminator | None) -> Wav2Lip:
    module = Wav2Lip(gan=discriminator is not None)
    module.generator, module.discriminator = generator, discriminator
    return module


OFFICIAL = (
    _weights(
        name="wav2lip",
        files="wav2lip.pth, wav2lip_gan.pth, Wav2Lip-SD-NOGAN.pt or Wav2Lip-SD-GAN.pt",
        use="bench evaluate --methods.wav2lip {out}",
        build=lambda _: Wav2LipGenerator(),
        module=_wav2lip,
        partner="wav2lip_disc",
    ),
    _weights(
        name="wav2lip_disc",
        files="visual_quality_disc.pth",
        use="bench import wav2lip FILE --disc {out}, which joins it with a generator",
        build=lambda _: QualityDiscriminator(),
    ),
    _weights(
        name="sync_expert",
        files="lipsync_expert.pth",
        use="lightning fit -c experiments/wav2lip.yaml --model.init_args.sync_expert {out}",
        build=lambda _: SyncExpert(),
        module=lambda network, _: SyncExpertModule.of_network(network),
    ),
)
