# SPDX-License-Identifier: Apache-2.0
"""VideoReTalking's L-Net and E-Net together as a method: E-Net's training, and generation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from lipsync_bench.datamodules.faces.crop_rules.boxes import DetectorBox
from lipsync_bench.datamodules.recipes.recipe import Recipe, References
from lipsync_bench.models.core.checkpoints import read_stage, save_module
from lipsync_bench.models.core.frozen import frozen
from lipsync_bench.models.core.inputs import FaceInputs
from lipsync_bench.models.core.module import TalkingFaceModule
from lipsync_bench.models.core.training import Stage, Terms
from lipsync_bench.models.parts.layers import from_time_major, mask_lower_half, to_time_major
from lipsync_bench.models.parts.losses import ReconstructionLoss, SyncLoss, check_weights
from lipsync_bench.models.parts.patch_discriminator import PatchDiscriminator
from lipsync_bench.models.parts.perceptual import RANDOM, TORCHVISION, VGGPyramidLoss
from lipsync_bench.models.parts.stylegan2 import logistic_terms, non_saturating_loss
from lipsync_bench.models.pretrained.arcface import IdentityLoss
from lipsync_bench.models.videoretalking.enet.degradation import QUALITIES, through_jpeg
from lipsync_bench.models.videoretalking.enet.network import SCALE, SIZE, ENet
from lipsync_bench.models.videoretalking.lnet.module import VideoReTalkingLNet, shown_to_expert
from lipsync_bench.models.videoretalking.lnet.network import LNet
from lipsync_bench.models.wav2lip.sync_expert import SyncExpertModule

_VARIANTS = {"suite": {"adversarial": 1.0, "sync": 0.3}, "paper": {"adversarial": 100.0, "sync": 0.0}}
Variant = Literal["suite", "paper"]

__all__ = ["VideoReTalkingENet"]


class VideoReTalkingENet(TalkingFaceModule):
    """L-Net and E-Net of VideoReTalking: the lips for given audio, then four times the pixels.

    Kun Cheng, Xiaodong Cun, Yong Zhang, Menghan Xia, Fei Yin, Mingrui Zhu, Xuan Wang, Jue Wang, Nannan Wang:
    VideoReTalking: Audio-based Lip Synchronization for Talking Head Video Editing In the Wild. SIGGRAPH Asia 2022.
    https://arxiv.org/abs/2211.14758
    Official code: github.com/OpenTalker/video-retalking (Apache-2.0; inference only; for its weights, see its README).
    The row "L + E" of the paper's Table 3.

    ```
    target (B,5,3,384,384) - JPEG - lower half zeroed, and itself - L-Net (frozen) - face (B*5,3,96,96) - E-Net - G
    reference (B,5,3,384,384) --------------------------------------------------------------------------+
    G (B,3,5,384,384) - L1, VGG features, ArcFace features with the target; patch discriminator; sync expert
    ```
    Loss (Eq. 14): 0.2 L1 + perceptual + lambda adversarial + 0.4 identity. The printed lambda of 100 belongs to losses
    on another scale (pix2pix, which the paper cites, has L1 at 100 and the adversarial term at 1): it is
    `variant: paper`, and 1 here. Section 4.1.3 lists a sync loss that Eq. 14 lacks: 0.3 as L-Net's here, none with
    `variant: paper`. The noise of the style layers is drawn anew in training, and zero in validation and generation,
    where two runs would differ otherwise.

    With a discriminator there are two optimisers, and `trainer.global_step` counts the steps of both: `max_steps` is
    twice the number of batches.

    Args:
        image_size: height and width of the faces, four times those that L-Net was trained with; 384 is published.
        width: factor on the channels of E-Net and of the discriminator; 1.0 is published.
        lnet: path of a checkpoint of VideoReTalkingLNet, which stays as it is. Needed to begin a training, not in a
            checkpoint of this class, which holds it.
        lnet_width, lnet_blocks: of that L-Net.
        variant: "paper" takes the printed weights of the adversarial and the sync term.
        l1_weight, perceptual_weight, identity_weight: lambdas of Eq. 14. At 0 a term is not computed, but for L1, which
            is logged all the same.
        adversarial_weight, sync_weight: None for those of the variant.
        sync_expert: path of a checkpoint of SyncExpertModule. Needed to train and validate unless its weight is 0.
        identity_weights: file with ArcFace's weights (`ArcFace`), or "random" for smoke runs; without it there is no
            identity term.
        lr: learning rate of Adam.
        betas: of Adam; the paper does not give them.
        perceptual_weights: ImageNet weights of VGG-19: "torchvision", a folder, or "random" for smoke runs (the term is
            then called `perceptual_random_weights`).
        init_from: checkpoint of this class to start from (fine-tuning).

    Differs: the paper trains on frames of LRS2 that GPEN has enhanced; here on the frames as they are (prepare enhanced
    videos for the other). Its JPEG is differentiable, which matters only to a trained L-Net; here it is a codec's, of
    qualities 50 to 95 (75 in validation), which are not published. Discriminator, perceptual layers, ArcFace's network
    and layer are not published: pix2pix's with instance norms, those of L-Net, a ResNet-50. Eq. 13 prints D of the
    output where the ground truth must stand; the generator's loss is non-saturating. The references of a window are one
    other window, as L-Net's.
    """

    channel_order: ClassVar[Literal["rgb", "bgr"]] = "bgr"
    experiment = "experiments/videoretalking_enet.yaml"
    sync_expert_module = SyncExpertModule
    perceptual_terms = ("perceptual",)
    generate_batch: ClassVar[int] = 16
    generator: ENet

    def __init__(
        self,
        image_size: int = SIZE,
        width: float = 1.0,
        lnet: str | None = None,
        lnet_width: float = 1.0,
        lnet_blocks: int = 9,
        variant: Variant = "suite",
        l1_weight: float = 0.2,
        perceptual_weight: float = 1.0,
        adversarial_weight: float | None = None,
        identity_weight: float = 0.4,
        sync_weight: float | None = None,
        sync_expert: str | None = None,
        identity_weights: str | None = None,
        lr: float = 1e-5,
        betas: tuple[float, float] = (0.9, 0.99),
        perceptual_weights: str = TORCHVISION,
        init_from: str | None = None,
        **steps: Any,
    ) -> None:
        super().__init__(image_size=image_size, **steps)
        self.save_hyperparameters()
        self.set_adam(lr, betas)
        if variant not in _VARIANTS:
            raise ValueError(f"variant is {variant!r}. Expected suite or paper. Set --model.init_args.variant.")
        usual = _VARIANTS[variant]
        self.weights = {
            "l1": l1_weight, "perceptual": perceptual_weight, "identity": identity_weight,
            "adversarial": usual["adversarial"] if adversarial_weight is None else adversarial_weight,
            "sync": usual["sync"] if sync_weight is None else sync_weight,
        }  # fmt: skip
        check_weights(self.weights)
        if image_size % SCALE:
            raise ValueError(
                f"image_size is {image_size}. Expected a multiple of {SCALE}. Set --model.init_args.image_size."
            )
        self.generator = ENet(LNet(lnet_width, lnet_blocks), width, image_size // SCALE)
        self.generator.low_res.requires_grad_(False)
        self.discriminator = PatchDiscriminator(width) if self.weights["adversarial"] > 0 else None
        self.perceptual_weights = perceptual_weights
        self.l1_loss, self.sync_loss = ReconstructionLoss(), SyncLoss()

    @classmethod
    def smoke_arguments(cls, folder: Path) -> dict[str, Any]:
        small: dict[str, Any] = {"image_size": 16, "width": 0.125, "blocks": 1}
        save_module(VideoReTalkingLNet(**small), folder / "lnet.ckpt")
        return {
            **super().smoke_arguments(folder), "image_size": 64, "width": 0.03125, "lnet": str(folder / "lnet.ckpt"),
            "lnet_width": small["width"], "lnet_blocks": small["blocks"], "perceptual_weights": RANDOM,
        }  # fmt: skip

    @frozen("vgg19")
    def vgg_loss(self) -> VGGPyramidLoss | None:
        return VGGPyramidLoss(self.perceptual_weights) if self.weights["perceptual"] > 0 else None

    @frozen("arcface_sha256")
    def identity_loss(self) -> IdentityLoss | None:
        file = self.hparams["identity_weights"]
        return IdentityLoss(file) if file is not None and self.weights["identity"] > 0 else None

    def published(self) -> Recipe:
        """As L-Net's, at four times the size."""
        boxes = DetectorBox("s3fd", pads=(0, 20, 0, 0), smoothing=5)
        return Recipe(boxes, self.size_hw, DetectorBox("s3fd"), references=References("same"), mel_padding="constant")

    def begin(self) -> None:
        if self.hparams["lnet"] is not None or not self.hparams["init_from"]:
            stored = read_stage(self, "lnet", VideoReTalkingLNet)
            sizes = {name: stored.hparams[name] for name in ("width", "blocks")} | {"image_size": stored.image_size}
            wanted = {name: self.hparams[f"lnet_{name}"] for name in ("width", "blocks")}
            wanted["image_size"] = self.image_size // SCALE
            if sizes != wanted:
                raise ValueError(
                    f"{self.hparams['lnet']}: an L-Net of {sizes}. Expected {wanted}. Set --model.init_args.lnet_width "
                    f"and --model.init_args.lnet_blocks; --model.init_args.image_size is {SCALE} times L-Net's."
                )
            self.generator.low_res.load_state_dict(stored.generator.state_dict())
        super().begin()

    def attach_base(self, network: LNet, digest: str) -> LNet:
        """Make an L-Net part of this module.

        Args:
            network: L-Net.
            digest: SHA-256 of the file that it comes from, which the checkpoint's origin tells.
        """
        self.generator.low_res = network.requires_grad_(False)
        return network

    def trained_parameters(self) -> list[nn.Parameter]:
        return [value for value in super().trained_parameters() if value.requires_grad]

    def forward(self, audio: Tensor, face: Tensor, gt: Tensor) -> tuple[Tensor, Tensor]:
        """The generator's forward, BGR, with random noise."""
        return self.generator(audio, face, gt)

    def generate_chunk(self, inputs: FaceInputs) -> Tensor:
        """The reference is L-Net's and the identity's, as in the released inference."""
        face = torch.cat([mask_lower_half(inputs.faces), inputs.reference], dim=1)
        return self.generator(inputs.frame_mels, face, inputs.reference, self.generator.no_noise(face))[0]

    def windows(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Generated and true windows (B,3,T,H,W), BGR; the reference is for the identity alone."""
        frames = batch["target"].shape[1]
        target, reference = (to_time_major(self.to_network(batch[name]), 1) for name in ("target", "reference"))
        count = len(target)
        qualities = (
            torch.randint(QUALITIES[0], QUALITIES[1] + 1, (count,)) if self.training else torch.full((count,), 75)
        )
        seen = self.to_network(through_jpeg(self.from_network(target), qualities.tolist()))
        face = torch.cat([mask_lower_half(seen), reference], dim=1)
        noise = None if self.training else self.generator.no_noise(face)
        generated, _ = self.generator(to_time_major(batch["frame_mels"], 1), face, seen, noise)
        return from_time_major(generated, frames), from_time_major(target, frames)

    def loss_terms(self, batch: Mapping[str, Tensor], stage: Stage) -> Terms:
        generated, target = self.windows(batch)
        fake, real = (to_time_major(x, 2) for x in (generated, target))
        shown = self.from_network(fake), self.from_network(real)
        terms = {"l1": self.l1_loss(generated, target)}
        if self.vgg_loss is not None:
            terms["perceptual"] = self.vgg_loss(*shown)
        if self.identity_loss is not None:
            terms["identity"] = self.identity_loss(*shown)
        if self.sync_expert is not None:
            terms["sync"] = self.sync_loss(self.sync_expert, batch["mel"], shown_to_expert(generated))
        fake, real = fake * 2 - 1, real * 2 - 1
        if self.discriminator is not None:
            terms["adversarial"] = non_saturating_loss(self.discriminator(fake))
        return Terms(terms, real=real, fake=fake)

    def discriminator_terms(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        return logistic_terms(discriminator(real), discriminator(fake))
