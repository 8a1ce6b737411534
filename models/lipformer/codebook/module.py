# SPDX-License-Identifier: Apache-2.0
"""LipFormer's first stage: two codebooks of facial details, one for the upper and one for the bottom half of a face."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_bench.datamodules.faces.crop_rules.ffhq import FFHQQuad
from lipsync_bench.datamodules.recipes.recipe import Recipe, References
from lipsync_bench.models.core.frozen import frozen
from lipsync_bench.models.core.training import BenchModule, Stage, Terms
from lipsync_bench.models.lipformer.codebook.network import MULTIPLIERS, FacialCodebook, signed
from lipsync_bench.models.parts.perceptual import (
    RANDOM,
    TORCHVISION,
    LPIPSLoss,
    Perceptual,
    VGGPyramidLoss,
    make_perceptual,
    perceptual_term,
)
from lipsync_bench.models.parts.stylegan2 import (
    StyleGAN2Discriminator,
    discriminator_terms,
    logistic_terms,
    non_saturating_loss,
)

__all__ = ["LipFormerCodebook", "recipe_of"]


def recipe_of(image_size: int) -> Recipe:
    """Of both stages: faces aligned as FFHQ's (paper, 4.1), the first frame as reference (4.2).

    Smoothing, mel padding and the soft paste are ours.
    """
    return Recipe(FFHQQuad(), (image_size, image_size), references=References("first"), paste="quad")


class LipFormerCodebook(BenchModule):
    """LipFormer's stage 1: learns the codebooks of upper and bottom halves of faces by reconstruction.

    Jiayu Wang, Kang Zhao, Shiwei Zhang, Yingya Zhang, Yujun Shen, Deli Zhao, Jingren Zhou: LipFormer: High-Fidelity and
    Generalizable Talking Face Generation With a Pre-Learned Facial Codebook. CVPR 2023, pages 13844-13853.
    https://openaccess.thecvf.com/content/CVPR2023/html/Wang_LipFormer_High-Fidelity_and_Generalizable_Talking_Face_Generation_With_a_Pre-Learned_CVPR_2023_paper.html
    There is no official code and there are no weights.

    ```
    image (B,3,512,512) - two halves - FacialCodebook - reconstruction - L2, LPIPS with the image
                                            |            reconstruction - discriminator
                                            +- F_U, H_U, F_B, H_B - L_VQ
    ```
    Batches: `image` (B,3,H,W) float32 RGB in [0, 1] (lipsync_bench.datamodules.FaceImages). Loss (Eq. 3 and 4): L_VQ +
    L2 + 0.1 perceptual + 0.1 adversarial, where L_VQ is the sum over both halves of ||sg[F] - H||^2 + 0.25 ||sg[H] -
    F||^2. Published: this loss, the halves and codebooks, StyleGAN2's discriminator with StyleGAN's loss, 512 x 512,
    Adam's rate and betas. Chosen here, as the paper is silent: all sizes of the networks, means for all norms, L2
    between images in [-1, 1], R1 and its interval, the discriminator's rate (the same), no delay of the adversarial
    loss, and the codebooks' initialisation and re-seeding (`Quantiser`); and the perceptual loss, of which the paper
    says "based on VGG" and cites LPIPS: it is LPIPS with VGG-16, as in VQGAN, whose auto-encoder this is. Logged
    `perplexity_*` is of a batch, `used_*` of the last `reseed_after` training steps; `train/r1` is gamma / 2 times the
    squared gradient in the steps that have it.

    With a discriminator there are two optimisers, and `trainer.global_step` counts the steps of both: `max_steps` and
    the step in a checkpoint's name are twice the number of batches. On several GPUs use
    `--trainer.strategy ddp_find_unused_parameters_true` then.

    Args:
        image_size: height and width of the faces, in pixels; with a discriminator a power of two.
        width: factor on the channels of all networks but the codes'.
        entries: n, entries of each codebook.
        code_channels: d, channels of a code.
        channels: of encoder and decoder at the full size.
        multipliers: of the channels, one a level; the size is halved between levels.
        residual_blocks: in a level.
        reseed_after: training steps without a use after which an entry is re-seeded.
        commitment: beta of L_VQ.
        reconstruction_weight, perceptual_weight, adversarial_weight: of the terms; 0 leaves the last two out.
        r1_gamma: of the discriminator's R1 penalty; 0 leaves it out.
        r1_every: batches from one R1 penalty to the next, whose weight is multiplied by it.
        lr: learning rate of Adam.
        betas: of Adam, for both optimisers.
        discriminator_lr: learning rate of the discriminator; None takes `lr`.
        perceptual: "lpips", or "pyramid": VGG-19's features of five layers and four image sizes (`VGGPyramidLoss`),
            a sum of 20 terms, beside which 0.1 means something else.
        perceptual_weights: ImageNet weights of its VGG: "torchvision", a folder, or "random" for smoke runs (the term's
            name says so then).

    Differs: the R1 penalty joins the discriminator's step of its batch; StyleGAN2 gives it a step of its own and
    slows Adam down by k / (k + 1).
    """

    experiment = "experiments/lipformer_codebook.yaml"
    perceptual_terms = ("lpips", "perceptual")

    def __init__(
        self,
        image_size: int = 512,
        width: float = 1.0,
        entries: int = 1024,
        code_channels: int = 256,
        channels: int = 64,
        multipliers: tuple[int, ...] = MULTIPLIERS,
        residual_blocks: int = 2,
        reseed_after: int = 1000,
        commitment: float = 0.25,
        reconstruction_weight: float = 1.0,
        perceptual_weight: float = 0.1,
        adversarial_weight: float = 0.1,
        r1_gamma: float = 10.0,
        r1_every: int = 16,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.95),
        discriminator_lr: float | None = None,
        perceptual: Perceptual = "lpips",
        perceptual_weights: str = TORCHVISION,
        **steps: Any,
    ) -> None:
        super().__init__(**steps)
        self.save_hyperparameters()
        self.set_adam(lr, betas, discriminator_lr)
        self.image_size = image_size
        self.network = FacialCodebook(
            width, entries, code_channels, channels, multipliers, residual_blocks, reseed_after
        )
        self.perceptual, self.perceptual_term = perceptual, perceptual_term(perceptual)
        self.weights = {
            "l2": reconstruction_weight, self.perceptual_term: perceptual_weight, "adversarial": adversarial_weight,
            "r1": r1_every,
        }  # fmt: skip
        self.commitment = commitment
        self.r1_gamma, self.r1_every = r1_gamma, r1_every
        self._check_arguments()
        self.discriminator = StyleGAN2Discriminator(image_size, width) if adversarial_weight > 0 else None
        self.perceptual_weights = perceptual_weights

    @classmethod
    def smoke_arguments(cls, folder: Path) -> dict[str, Any]:
        return {
            "image_size": 64, "width": 0.25, "multipliers": (1, 2, 2, 2), "entries": 32, "code_channels": 16,
            "perceptual_weights": RANDOM,
        }  # fmt: skip

    def _check_arguments(self) -> None:
        multiple = 2 * self.network.down_sampling
        if self.image_size < multiple or self.image_size % multiple:
            raise ValueError(
                f"LipFormerCodebook: image_size is {self.image_size}. Expected a multiple of {multiple}: two halves of "
                f"codes with {self.network.down_sampling} pixels a side. Set --model.init_args.image_size or "
                "--model.init_args.multipliers."
            )
        numbers = {**self.weights, "commitment": self.commitment, "r1_gamma": self.r1_gamma}
        if min(numbers.values()) < 0 or self.r1_every < 1:
            found = ", ".join(f"{name} {value:g}" for name, value in numbers.items())
            raise ValueError(
                f"LipFormerCodebook: weights {found}, r1_every {self.r1_every}. Expected weights of 0 or more and an "
                "interval of 1 or more. Set --model.init_args.reconstruction_weight, perceptual_weight, "
                "adversarial_weight, commitment, r1_gamma, r1_every."
            )

    @frozen("perceptual_sha256")
    def perceptual_loss(self) -> LPIPSLoss | VGGPyramidLoss | None:
        wanted = self.weights[self.perceptual_term] > 0
        return make_perceptual(self.perceptual, self.perceptual_weights) if wanted else None

    def forward(self, images: Tensor) -> Tensor:
        """Reconstructions (N,3,H,W) of images (N,3,H,W) in [0, 1], not clamped."""
        return self.network(images)[0]

    def predict_step(self, batch: Mapping[str, Tensor], batch_index: int) -> Tensor:
        """Reconstructions (B,3,H,W) of a batch, in [0, 1]."""
        return self(batch["image"]).clamp(0, 1)

    def example_batch(self, batch_size: int = 2, seed: int = 0) -> dict[str, Tensor]:
        """A random batch with every key that the training step reads."""
        random = torch.Generator().manual_seed(seed)
        return {"image": torch.rand((batch_size, 3, self.image_size, self.image_size), generator=random)}

    def published(self) -> Recipe:
        return recipe_of(self.image_size)

    def loss_terms(self, batch: Mapping[str, Tensor], stage: Stage) -> Terms:
        """Of Eq. 4; images for the discriminator are in [-1, 1].

        In training the codebooks record the uses, and re-seed unused entries.
        """
        target = batch["image"]
        reconstruction, upper, bottom, f_upper, f_bottom = self.network(target)
        halves = {
            "upper": (self.network.upper, f_upper, upper),
            "bottom": (self.network.bottom, f_bottom, bottom),
        }
        fake = signed(reconstruction)
        vq = [book.loss(features, found, self.commitment) for book, features, found in halves.values()]
        terms = {"vq": torch.stack(vq).sum(), "l2": F.mse_loss(signed(reconstruction), signed(target))}
        watched: dict[str, Tensor] = {}
        if self.perceptual_loss is not None:
            terms[self.perceptual_term] = self.perceptual_loss(reconstruction, target).mean()
        if self.discriminator is not None:
            terms["adversarial"] = non_saturating_loss(self.discriminator(fake))
            if stage != "train":
                watched = logistic_terms(*(self.discriminator(signed(x)) for x in (target, reconstruction)))
        for half, (book, features, found) in halves.items():
            if self.training:
                book.record(found.indices, features)
            for name, value in book.health(found.indices).items():
                watched[f"{name}_{half}"] = value
        if stage != "train":
            watched["l1"] = F.l1_loss(reconstruction.clamp(0, 1), target)
        return Terms(terms, watched, signed(target), fake)

    def discriminator_terms(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        steps = self.trainer.global_step // 2  # the generator's turn has just been counted
        return discriminator_terms(discriminator, real, fake, self.r1_gamma, self.r1_every, steps)
