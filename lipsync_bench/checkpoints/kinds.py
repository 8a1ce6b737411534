# SPDX-License-Identifier: Apache-2.0
"""The official weight files that can be imported: one record each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, nn

from datamodules.s3fd import S3FD
from models.checkpoints import BenchModule
from models.sync_expert import SyncExpert, SyncExpertModule
from models.syncnet import SyncNetV2
from models.wav2lip import QualityDiscriminator, Wav2Lip, Wav2LipGenerator

_NON_COMMERCIAL = "no licence file; its README allows personal, research and non-commercial use only"
_Network = TypeVar("_Network", bound=nn.Module)

__all__ = ["KINDS", "Kind"]


def _without_parallel(name: str) -> str:
    return name.replace("module.", "")  # of DataParallel; every occurrence, as the official loaders do


@dataclass(frozen=True)
class Kind:
    """What `bench import` knows about one kind of official file.

    Args:
        name: As the user types it.
        files: File names under which it is known.
        documented: Where its author tells about it.
        licence: Of the weights, in a few words.
        use: What the imported checkpoint is for, with the flag that names it.
        build: The network at full width, told from the file's tensors where there are several.
        module: The LightningModule to store, given the network and (for a generator) its discriminator or None; kinds
            without are stored as a plain state dict.
        partner: Kind of that discriminator, "" if there is none.
        outer: Keys of outer dictionaries, the first that is there counts; without any of them the file is flat.
        rename: State-dict name of a name in the file; None drops the entry.
    """

    name: str
    files: str
    documented: str
    licence: str
    use: str
    build: Callable[[Mapping[str, Tensor]], nn.Module]
    module: Callable[[nn.Module, nn.Module | None], BenchModule] | None = None
    partner: str = ""
    outer: tuple[str, ...] = ("state_dict",)
    rename: Callable[[str], str | None] = _without_parallel

    @property
    def expected(self) -> str:
        """The file in one phrase, for messages."""
        return f"{self.files}, documented at {self.documented}"


def _cast(network: nn.Module | None, kind: type[_Network]) -> _Network:
    if not isinstance(network, kind):
        raise TypeError(f"{type(network).__name__}, expected {kind.__name__}")
    return network


def _wav2lip(generator: nn.Module, discriminator: nn.Module | None) -> BenchModule:
    module = Wav2Lip(gan=discriminator is not None)
    module.generator = _cast(generator, Wav2LipGenerator)
    module.discriminator = discriminator
    return module


def _sync_expert(network: nn.Module, _: nn.Module | None) -> BenchModule:
    module = SyncExpertModule()
    module.network = _cast(network, SyncExpert)
    return module


_RECORDS = (
    Kind(
        name="wav2lip",
        files="wav2lip.pth, wav2lip_gan.pth, Wav2Lip-SD-NOGAN.pt or Wav2Lip-SD-GAN.pt",
        documented="github.com/Rudrabha/Wav2Lip (README)",
        licence=_NON_COMMERCIAL,
        use="bench evaluate --methods.wav2lip {out}",
        build=lambda _: Wav2LipGenerator(),
        module=_wav2lip,
        partner="wav2lip_disc",
    ),
    Kind(
        name="wav2lip_disc",
        files="visual_quality_disc.pth",
        documented="github.com/Rudrabha/Wav2Lip (README)",
        licence=_NON_COMMERCIAL,
        use="bench import wav2lip FILE --disc {out}, which joins it with a generator",
        build=lambda _: QualityDiscriminator(),
    ),
    Kind(
        name="sync_expert",
        files="lipsync_expert.pth",
        documented="github.com/Rudrabha/Wav2Lip (README)",
        licence=_NON_COMMERCIAL,
        use="lightning fit -c experiments/wav2lip.yaml --model.init_args.sync_expert {out}",
        build=lambda _: SyncExpert(),
        module=_sync_expert,
    ),
    Kind(
        name="syncnet_v2",
        files="syncnet_v2.model",
        documented="www.robots.ox.ac.uk/~vgg/software/lipsync",
        licence="no licence file; the evaluation code beside it is MIT",
        use="bench evaluate --syncnet {out}",
        build=lambda _: SyncNetV2(),
    ),
    Kind(
        name="s3fd",
        files="s3fd-619a316812.pth (Wav2Lip's README calls it s3fd.pth)",
        documented="github.com/1adrianb/face-alignment",
        licence="the repository is BSD 3-clause",
        use="bench prepare --detector s3fd --detector_weights {out}",
        build=lambda _: S3FD(),
    ),
)
KINDS: dict[str, Kind] = {record.name: record for record in _RECORDS}
