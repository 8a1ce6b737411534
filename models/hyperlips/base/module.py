# SPDX-License-Identifier: Apache-2.0
"""HyperLips-Base: the first stage, which gives a face of 128 x 128 the lips that fit the given audio."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from lipsync_bench.datamodules.faces.crop_rules.boxes import DetectorBox
from lipsync_bench.datamodules.recipes.recipe import Recipe, References
from lipsync_bench.models.core.frozen import frozen
from lipsync_bench.models.core.module import TalkingFaceModule
from lipsync_bench.models.core.training import Stage, Terms
from lipsync_bench.models.hyperlips.base.network import HyperLipsBaseGenerator
from lipsync_bench.models.hyperlips.discriminators import BaseDiscriminator
from lipsync_bench.models.hyperlips.losses import AdversarialName, make_adversarial
from lipsync_bench.models.hyperlips.sync_expert import HyperLipsSyncExpertModule
from lipsync_bench.models.parts.layers import to_time_major
from lipsync_bench.models.parts.losses import ReconstructionLoss, SyncLoss, check_weights
from lipsync_bench.models.parts.perceptual import RANDOM, TORCHVISION, LPIPSLoss

Variant = Literal["paper", "released"]
_WEIGHTS: dict[Variant, dict[str, float]] = {
    "paper": {"adversarial": 0.2, "l1": 0.5, "lpips": 0.5, "sync": 0.3},  # Eq. 9
    "released": {"adversarial": 0.2, "l1": 0.77, "lpips": 0.0, "sync": 0.03},
}
_ADVERSARIAL: dict[Variant, AdversarialName] = {"paper": "non_saturating", "released": "non_saturating"}

__all__ = ["HyperLipsBase", "Variant", "adam_of"]


def adam_of(
    variant: Variant, betas: tuple[float, float] | None, discriminator_lr: float | None
) -> tuple[tuple[float, float], float]:
    """Betas and the discriminator's learning rate: those of the variant where they are None."""
    released = variant == "released"
    rate = (5e-4 if released else 1e-4) if discriminator_lr is None else discriminator_lr
    return betas or ((0.5, 0.999) if released else (0.9, 0.999)), rate


def recipe_of(variant: Variant, size_hw: tuple[int, int]) -> Recipe:
    """How both stages are fed: S3FD's boxes, zeros around the audio.

    The released code shows the first frame as the reference, the paper the source frame itself (III-A, VI-C).
    """
    released = variant == "released"
    return Recipe(
        DetectorBox("s3fd", pads=(0, 10, 0, 0), smoothing=5),
        size_hw,
        DetectorBox("s3fd"),
        references=References("first" if released else "same"),
        mel_padding="constant",
        paste="parser_released" if released else "parser",
    )


class HyperLipsBase(TalkingFaceModule):
    """HyperLips-Base: audio determines the weights of convolutions that act on the face's features.

    Yaosen Chen, Yu Yao, Zhiqiang Li, Wei Wang, Yanru Zhang, Han Yang, Xuming Wen: HyperLips: Hyper Control Lips with
    High Resolution Decoder for Talking Face Generation. 2023. https://arxiv.org/abs/2310.05720
    Official code: github.com/semchan/HyperLips; it has no licence.

    ```
    target (B,5,3,128,128), lower half zeroed +
    reference (B,5,3,128,128) ----------------+- (B,6,5,128,128) - face encoder - HyperConvs - decoder - I_B
    frame_mels (B,5,1,80,16) ---- audio encoder - hypernetworks - weights of the HyperConvs     (B,3,5,128,128)
    I_B - L1, LPIPS with target; lower halves - discriminator; lower halves and mel (B,1,80,16) - frozen expert
    ```
    Loss (Eq. 9): 0.2 adversarial + 0.5 L1 + 0.5 LPIPS + 0.3 sync. The released code trains without LPIPS and with other
    weights, -log D as the adversarial term, other Adam settings and the expert in training mode: `variant`.

    There are two optimisers, and `trainer.global_step` counts the steps of both: `max_steps` and the step in a
    checkpoint's name are twice the number of batches (val_check_interval counts batches). On several GPUs use
    `--trainer.strategy ddp_find_unused_parameters_true`.

    Args:
        width: factor on the channels; 1.0 is published.
        variant: "paper" or "released": where the values below that are None come from.
        sync_expert: path of a checkpoint of HyperLipsSyncExpertModule. Needed to train and validate unless sync_weight
            is 0.
        adversarial_weight, l1_weight, lpips_weight, sync_weight: lambdas of Eq. 9. Without an adversarial term there
            is no discriminator and one optimiser.
        adversarial: its kind: "non_saturating" (the default of both variants), "as_printed" in Eq. 3 and 4, which does
            not train, "relativistic".
        lr: learning rate of Adam for the generator.
        discriminator_lr: the same for the discriminator (paper: 1e-4, released: 5e-4).
        betas: of Adam (paper: not stated, 0.9 and 0.999 here; released: 0.5 and 0.999).
        expert_mode: "train": the expert's batch norms use the statistics of the batch, as in the released code;
            "eval" fixes them, the reading of the paper here.
        perceptual_weights: ImageNet weights of the LPIPS network: "torchvision", a folder, or "random" for smoke runs
            (the term is then called `lpips_random_weights`).
        init_from: checkpoint of this class to start from (fine-tuning on one speaker, Table V).

    Differs: Eq. 3 and 4, taken literally, let the discriminator run away until the generator's term has no gradient;
    the default reads them as the paper's reference [8] trains, BCE for D and -log D for the generator. LPIPS gets RGB
    in [-1, 1], as its package asks for; Eq. 6 does not name its network, VGG-16 is chosen here. The masked face is the
    target's, as released; the paper (III-A1) hides the lower half of the reference. The input is masked face, then
    reference, as released; Eq. 2 has them the other way round. In training the reference is another window of the clip,
    as released.
    """

    channel_order: ClassVar[Literal["rgb", "bgr"]] = "bgr"
    experiment = "experiments/hyperlips_base.yaml"
    sync_expert_module = HyperLipsSyncExpertModule
    perceptual_terms = ("lpips",)
    generator: HyperLipsBaseGenerator

    def __init__(
        self,
        width: float = 1.0,
        variant: Variant = "paper",
        sync_expert: str | None = None,
        adversarial_weight: float | None = None,
        l1_weight: float | None = None,
        lpips_weight: float | None = None,
        sync_weight: float | None = None,
        adversarial: AdversarialName | None = None,
        lr: float = 1e-4,
        discriminator_lr: float | None = None,
        betas: tuple[float, float] | None = None,
        expert_mode: Literal["train", "eval"] | None = None,
        perceptual_weights: str = TORCHVISION,
        init_from: str | None = None,
        **steps: Any,
    ) -> None:
        released = variant == "released"
        super().__init__(image_size=128, **steps)
        self.save_hyperparameters()
        self.set_adam(lr, *adam_of(variant, betas, discriminator_lr))
        self.expert_mode = expert_mode or ("train" if released else "eval")
        if variant not in _WEIGHTS:
            raise ValueError(f"variant is {variant!r}. Expected paper or released. Set --model.init_args.variant.")
        given = {"adversarial": adversarial_weight, "l1": l1_weight, "lpips": lpips_weight, "sync": sync_weight}
        self.weights = {
            name: published if given[name] is None else float(given[name] or 0)
            for name, published in _WEIGHTS[variant].items()
        }
        check_weights(self.weights)
        self.generator = HyperLipsBaseGenerator(width)
        self.discriminator = BaseDiscriminator(width) if self.weights["adversarial"] > 0 else None
        self.perceptual_weights = perceptual_weights
        self.l1_loss, self.sync_loss = ReconstructionLoss(), SyncLoss()
        self.adversarial_loss = make_adversarial(adversarial or _ADVERSARIAL[variant])

    def published(self) -> Recipe:
        return recipe_of(self.hparams["variant"], self.size_hw)

    @classmethod
    def smoke_arguments(cls, folder: Path) -> dict[str, Any]:
        return {**super().smoke_arguments(folder), "width": 0.125, "perceptual_weights": RANDOM}

    @frozen("lpips_vgg16")
    def lpips_loss(self) -> LPIPSLoss | None:
        return LPIPSLoss(self.perceptual_weights) if self.weights["lpips"] > 0 else None

    def forward(self, audio: Tensor, faces: Tensor) -> Tensor:
        """The generator's forward, BGR: audio (B,T,1,80,16), faces (B,6,T,128,128) -> (B,3,T,128,128), or without T."""
        return self.generator(audio, faces)

    def loss_terms(self, batch: Mapping[str, Tensor], stage: Stage) -> Terms:
        generated, target = self.windows(batch)
        terms = {"l1": self.l1_loss(generated, target)}
        if self.sync_expert is not None:
            terms["sync"] = self.sync_loss(self.sync_expert, batch["mel"], generated.transpose(1, 2))
        if self.lpips_loss is not None:
            images = (self.from_network(to_time_major(x, 2)) for x in (generated, target))
            terms["lpips"] = self.lpips_loss(*images).mean()
        if self.discriminator is not None:
            terms["adversarial"] = self.adversarial_loss.of_generator(self.discriminator, target, generated)
        return Terms(terms, real=target, fake=generated)

    def discriminator_terms(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        return self.adversarial_loss.of_discriminator(discriminator, real, fake)
