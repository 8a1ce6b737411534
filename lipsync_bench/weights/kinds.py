# SPDX-License-Identifier: Apache-2.0
"""The official weight files that can be imported: one record each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, nn

from lipsync_bench.datamodules.faces.s3fd import S3FD
from lipsync_bench.models.core.checkpoints import BenchModule
from lipsync_bench.models.hyperlips import HyperLipsBase, HyperLipsHR, HyperLipsSyncExpertModule
from lipsync_bench.models.hyperlips.base.network import HyperLipsBaseGenerator
from lipsync_bench.models.hyperlips.discriminators import BaseDiscriminator, HRDiscriminator
from lipsync_bench.models.hyperlips.hr.network import HRDecoder
from lipsync_bench.models.hyperlips.sync_expert import HyperLipsSyncExpert
from lipsync_bench.models.pretrained.face_parsing import FaceParser
from lipsync_bench.models.pretrained.syncnet import SyncNetV2
from lipsync_bench.models.videoretalking import VideoReTalkingLNet
from lipsync_bench.models.videoretalking.lnet.network import LNet
from lipsync_bench.models.wav2lip.module import Wav2Lip
from lipsync_bench.models.wav2lip.network import QualityDiscriminator, Wav2LipGenerator
from lipsync_bench.models.wav2lip.sync_expert import SyncExpert, SyncExpertModule

_NON_COMMERCIAL = "no licence file; its README allows personal, research and non-commercial use only"
_HYPERLIPS = "github.com/semchan/HyperLips (README)"
_NO_LICENCE = "no licence file; its README credits Wav2Lip (non-commercial) and IP_LAP"
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
        needs_base: The module contains the network of another stage, to be named with --base.
        dead: Parameters that have no influence on the output, in words; they load all the same.
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
    needs_base: bool = False
    dead: str = ""
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


def _hyperlips_base(generator: nn.Module, discriminator: nn.Module | None) -> BenchModule:
    module = HyperLipsBase(variant="released", adversarial_weight=None if discriminator is not None else 0.0)
    module.generator = _cast(generator, HyperLipsBaseGenerator)
    module.discriminator = None if discriminator is None else _cast(discriminator, BaseDiscriminator)
    return module


def _hr_decoder(state: Mapping[str, Tensor]) -> HRDecoder:
    blocks = {name.split(".")[1] for name in state if name.startswith("up_conv.")}
    return HRDecoder(scale=4 if len(blocks) > 3 else 2 if len(blocks) > 2 else 1)


def _hyperlips_hr(generator: nn.Module, discriminator: nn.Module | None) -> BenchModule:
    decoder = _cast(generator, HRDecoder)
    weight = 0.0 if discriminator is None else 1.0
    module = HyperLipsHR(decoder.scale, variant="released", inference="released", adversarial_weight=weight)
    module.generator = decoder
    module.discriminator = None if discriminator is None else _cast(discriminator, HRDiscriminator)
    return module


def _hyperlips_sync_expert(network: nn.Module, _: nn.Module | None) -> BenchModule:
    module = HyperLipsSyncExpertModule()
    module.network = _cast(network, HyperLipsSyncExpert)
    return module


def _videoretalking_lnet(generator: nn.Module, _: nn.Module | None) -> BenchModule:
    module = VideoReTalkingLNet()
    module.generator = _cast(generator, LNet)
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
    Kind(
        name="hyperlips_base",
        files="hyperlipsbase_lrs2.pth, hyperlipsbase_mead.pth or hyperlipsbase_multi.pth",
        documented=_HYPERLIPS,
        licence=_NO_LICENCE,
        use="bench evaluate --methods.hyperlips_base {out}",
        build=lambda _: HyperLipsBaseGenerator(),
        module=_hyperlips_base,
        partner="hyperlips_base_disc",
        dead="in every decoder.decodeN.gru of C channels: rows 0..C-1 of ih.0.weight and ih.0.bias (the reset gate), "
        "input columns C..2C-1 of ih.0.weight and hh.0.weight (the hidden state, which is always zero)",
    ),
    Kind(
        name="hyperlips_base_disc",
        files="disc_checkpoint_stepNNNNNNNNN.pth of the first stage",
        documented=_HYPERLIPS,
        licence=_NO_LICENCE,
        use="bench import hyperlips_base FILE --disc {out}, which joins it with a generator",
        build=lambda _: BaseDiscriminator(),
    ),
    Kind(
        name="hyperlips_hr",
        files="hyperlipshr_mead_128.pth, or checkpoint_stepNNNNNNNNN.pth of the second stage (x1, x2 or x4)",
        documented=_HYPERLIPS,
        licence=_NO_LICENCE,
        use="bench evaluate --methods.hyperlips_hr {out}",
        build=_hr_decoder,
        module=_hyperlips_hr,
        partner="hyperlips_hr_disc",
        needs_base=True,
    ),
    Kind(
        name="hyperlips_hr_disc",
        files="disc_checkpoint_stepNNNNNNNNN.pth of the second stage",
        documented=_HYPERLIPS,
        licence=_NO_LICENCE,
        use="bench import hyperlips_hr FILE --disc {out}, which joins it with a generator",
        build=lambda _: HRDiscriminator(),
    ),
    Kind(
        name="hyperlips_sync_expert",
        files="pretrain_sync_expert.pth",
        documented=_HYPERLIPS,
        licence=_NO_LICENCE,
        use="lightning fit -c experiments/hyperlips_base.yaml --model.init_args.sync_expert {out}",
        build=lambda _: HyperLipsSyncExpert(),
        module=_hyperlips_sync_expert,
    ),
    Kind(
        name="face_parsing",
        files="face_segmentation.pth (79999_iter.pth of face-parsing.PyTorch)",
        documented=_HYPERLIPS,
        licence="the parser's repository is MIT; CelebAMask-HQ, which it was trained on, is for non-commercial use",
        use="bench evaluate --parsing {out} or bench dub --parsing {out}",
        build=lambda _: FaceParser(),
    ),
    Kind(
        name="videoretalking_lnet",
        files="LNet.pth",
        documented="github.com/OpenTalker/video-retalking (README)",
        licence="the repository is Apache-2.0; for the weights, see its README",
        use="bench evaluate --methods.videoretalking_lnet {out}",
        build=lambda _: LNet(),
        module=_videoretalking_lnet,
    ),
)
KINDS: dict[str, Kind] = {record.name: record for record in _RECORDS}
