# SPDX-License-Identifier: Apache-2.0
"""LipFormer's first stage: two codebooks of facial details, one for the upper and one for the bottom half of a face."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from lipsync_bench.models.core.checkpoints import RECORD, BenchModule
from lipsync_bench.models.lipformer.codebook.network import MULTIPLIERS, FaceDecoder, FaceEncoder, down_sampling
from lipsync_bench.models.lipformer.codebook.quantiser import Quantised, Quantiser
from lipsync_bench.models.parts.perceptual import RANDOM, TORCHVISION, VGGPyramidLoss
from lipsync_bench.models.parts.stylegan2 import (
    StyleGAN2Discriminator,
    discriminator_terms,
    logistic_terms,
    non_saturating_loss,
)

__all__ = ["FacialCodebook", "LipFormerCodebook"]


def _signed(images: Tensor) -> Tensor:
    """From [0, 1] to [-1, 1], the range inside the networks."""
    return 2 * images - 1


class FacialCodebook(nn.Module):
    """Encoder, two codebooks and decoder; f is the down-sampling, 2 ** (len(multipliers) - 1).

    ```
    rows 0..H/2-1 -- encoder - F_U (N,d,H/2f,W/f) - upper ---- H_U -+
                                                                    +- along height - decoder - (N,3,H,W)
    rows H/2..H-1 -- encoder - F_B (N,d,H/2f,W/f) - bottom --- H_B -+
    ```
    Published: halves, one encoder for both, two codebooks, the decoder on both. All sizes are choices of this project.

    Args:
        width: factor on the channels of encoder and decoder.
        entries: n of each codebook.
        code_channels: d.
        channels: of encoder and decoder at the full size.
        multipliers: of the channels, one a level.
        residual_blocks: in a level.
        reseed_after: training steps without a use after which an entry is re-seeded.
    """

    def __init__(
        self,
        width: float = 1.0,
        entries: int = 1024,
        code_channels: int = 256,
        channels: int = 64,
        multipliers: Sequence[int] = MULTIPLIERS,
        residual_blocks: int = 2,
        reseed_after: int = 1000,
    ) -> None:
        super().__init__()
        self.encoder = FaceEncoder(width, code_channels, channels, multipliers, residual_blocks)
        self.upper = Quantiser(entries, code_channels, reseed_after)
        self.bottom = Quantiser(entries, code_channels, reseed_after)
        self.decoder = FaceDecoder(width, code_channels, channels, multipliers, residual_blocks)
        self.down_sampling = down_sampling(multipliers)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """F_U and F_B, (N,d,H/2f,W/f) each, of images (N,3,H,W) in [0, 1].

        Raises:
            ValueError: H is no multiple of 2f or W none of f.
        """
        height, width = images.shape[-2:]
        if height % (2 * self.down_sampling) or width % self.down_sampling:
            raise ValueError(
                f"images of {height} x {width} pixels. Expected a height that is a multiple of "
                f"{2 * self.down_sampling} and a width that is one of {self.down_sampling}. Set image_size, or fewer "
                "--model.init_args.multipliers."
            )
        halves = torch.cat(_signed(images).chunk(2, dim=2))
        upper, bottom = self.encoder(halves).chunk(2)
        return upper, bottom

    def decode(self, upper: Tensor, bottom: Tensor) -> Tensor:
        """Images (N,3,H,W) of codes H_U and H_B, (N,d,H/2f,W/f) each; on the scale [0, 1], not clamped to it."""
        return (self.decoder(torch.cat([upper, bottom], dim=2)) + 1) / 2

    def forward(self, images: Tensor) -> tuple[Tensor, Quantised, Quantised, Tensor, Tensor]:
        """Images (N,3,H,W) in [0, 1] -> their reconstruction, H_U, H_B, F_U and F_B."""
        f_upper, f_bottom = self.encode(images)
        upper, bottom = self.upper(f_upper), self.bottom(f_bottom)
        return self.decode(upper.codes, bottom.codes), upper, bottom, f_upper, f_bottom


class LipFormerCodebook(BenchModule):
    """LipFormer's stage 1: learns the codebooks of upper and bottom halves of faces by reconstruction.

    Jiayu Wang, Kang Zhao, Shiwei Zhang, Yingya Zhang, Yujun Shen, Deli Zhao, Jingren Zhou: LipFormer: High-Fidelity and
    Generalizable Talking Face Generation With a Pre-Learned Facial Codebook. CVPR 2023, pages 13844-13853.
    https://openaccess.thecvf.com/content/CVPR2023/html/Wang_LipFormer_High-Fidelity_and_Generalizable_Talking_Face_Generation_With_a_Pre-Learned_CVPR_2023_paper.html
    There is no official code and there are no weights.

    ```
    image (B,3,512,512) - two halves - FacialCodebook - reconstruction - L2, VGG features with the image
                                            |            reconstruction - discriminator
                                            +- F_U, H_U, F_B, H_B - L_VQ
    ```
    Batches: `image` (B,3,H,W) float32 RGB in [0, 1] (lipsync_bench.datamodules.FaceImages). Loss (Eq. 3 and 4):
    L_VQ + L2 + 0.1 perceptual + 0.1 adversarial, where L_VQ is the sum over both halves of ||sg[F] - H||^2 +
    0.25 ||sg[H] - F||^2. Published: this loss, the halves and codebooks, StyleGAN2's discriminator with StyleGAN's
    loss, 512 x 512, Adam's rate and betas. Chosen here, as the paper is silent: all sizes of the networks, means for
    all norms, L2 between images in [-1, 1], the layers of the perceptual loss, R1 and its interval, the
    discriminator's rate (the same), no delay of the game, and the codebooks' initialisation and re-seeding
    (`Quantiser`). Logged `perplexity_*` is of a batch, `used_*` of the last `reseed_after` training steps; `train/r1`
    is gamma / 2 times the squared gradient in the steps that have it.

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
        perceptual_weights: ImageNet weights of VGG-19: "torchvision", a folder, or "random" for smoke runs (the term's
            name says so then).

    Differs: the R1 penalty joins the discriminator's step of its batch; StyleGAN2 gives it a step of its own and
    slows Adam down by k / (k + 1).
    """

    experiment = "experiments/lipformer_codebook.yaml"
    unsaved = ("vgg_loss",)

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
        perceptual_weights: str = TORCHVISION,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.image_size = image_size
        self.network = FacialCodebook(
            width, entries, code_channels, channels, multipliers, residual_blocks, reseed_after
        )
        self.weights = {
            "l2": reconstruction_weight, "perceptual": perceptual_weight, "adversarial": adversarial_weight,
        }  # fmt: skip
        self.commitment = commitment
        self.r1_gamma, self.r1_every = r1_gamma, r1_every
        self._check_arguments()
        self.discriminator = StyleGAN2Discriminator(image_size, width) if adversarial_weight > 0 else None
        self.automatic_optimization = self.discriminator is None
        self.lr = lr
        self.discriminator_lr = lr if discriminator_lr is None else discriminator_lr
        first, second = betas
        self.betas = (first, second)
        self.perceptual_weights = perceptual_weights
        self.vgg_loss: VGGPyramidLoss | None = None

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
            said = ", ".join(f"{name} {value:g}" for name, value in numbers.items())
            raise ValueError(
                f"LipFormerCodebook: weights {said}, r1_every {self.r1_every}. Expected weights of 0 or more and an "
                "interval of 1 or more. Set --model.init_args.reconstruction_weight, perceptual_weight, "
                "adversarial_weight, commitment, r1_gamma, r1_every."
            )

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage != "predict" and self.vgg_loss is None and self.weights["perceptual"] > 0:
            self.vgg_loss = VGGPyramidLoss(self.perceptual_weights).to(self.device)

    def train(self, mode: bool = True) -> "LipFormerCodebook":
        super().train(mode)
        if self.vgg_loss is not None:
            self.vgg_loss.eval()
        return self

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint[RECORD]["vgg19"] = None if self.vgg_loss is None else self.vgg_loss.weights

    def forward(self, images: Tensor) -> Tensor:
        """Reconstructions (N,3,H,W) of images (N,3,H,W) in [0, 1], not clamped."""
        return self.network(images)[0]

    def training_step(self, batch: Mapping[str, Tensor], batch_index: int) -> Tensor | None:
        if self.discriminator is None:
            terms = self._terms(batch["image"])[1]
            self.log_terms("train", terms, batch)
            return terms["loss"]
        with self.turn(0) as step:
            reconstruction, terms = self._terms(batch["image"])
            step(terms["loss"])
        with self.turn(1) as step:
            images = _signed(batch["image"]), _signed(reconstruction.detach())
            # global_step has counted the first turn; half of it are the batches before this one, resumed runs' too.
            batches = self.trainer.global_step // 2
            loss, judged = discriminator_terms(self.discriminator, *images, self.r1_gamma, self.r1_every, batches)
            step(loss)
        self.log_terms("train", {**terms, **judged}, batch)
        return None

    def validation_step(self, batch: Mapping[str, Tensor], batch_index: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: Mapping[str, Tensor], batch_index: int) -> None:
        self._evaluate(batch, "test")

    def predict_step(self, batch: Mapping[str, Tensor], batch_index: int) -> Tensor:
        """Reconstructions (B,3,H,W) of a batch, in [0, 1]."""
        return self(batch["image"]).clamp(0, 1)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        adam = partial(torch.optim.Adam, betas=self.betas)
        generator = adam(self.network.parameters(), lr=self.lr)
        if self.discriminator is None:
            return generator
        return [generator, adam(self.discriminator.parameters(), lr=self.discriminator_lr)]

    def example_batch(self, batch_size: int = 2, seed: int = 0) -> dict[str, Tensor]:
        """A random batch with every key that the training step reads."""
        random = torch.Generator().manual_seed(seed)
        return {"image": torch.rand((batch_size, 3, self.image_size, self.image_size), generator=random)}

    def _terms(self, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Reconstructions (N,3,H,W) of images in [0, 1], and the terms of Eq. 4 with their weighted sum, `loss`.

        In training the codebooks record the uses, and re-seed unused entries.
        """
        reconstruction, upper, bottom, f_upper, f_bottom = self.network(target)
        halves = {
            "upper": (self.network.upper, f_upper, upper),
            "bottom": (self.network.bottom, f_bottom, bottom),
        }
        vq = [book.loss(features, found, self.commitment) for book, features, found in halves.values()]
        terms = {"vq": torch.stack(vq).sum(), "l2": F.mse_loss(_signed(reconstruction), _signed(target))}
        loss = terms["vq"] + self.weights["l2"] * terms["l2"]
        if self.vgg_loss is not None:
            name = "perceptual_random_weights" if self.perceptual_weights == RANDOM else "perceptual"
            terms[name] = self.vgg_loss(reconstruction, target)
            loss = loss + self.weights["perceptual"] * terms[name]
        if self.discriminator is not None:
            terms["adversarial"] = non_saturating_loss(self.discriminator(_signed(reconstruction)))
            loss = loss + self.weights["adversarial"] * terms["adversarial"]
        for half, (book, features, found) in halves.items():
            if self.training:
                book.record(found.indices, features)
            for name, value in book.health(found.indices).items():
                terms[f"{name}_{half}"] = value
        return reconstruction, {**terms, "loss": loss}

    def _evaluate(self, batch: Mapping[str, Tensor], stage: str) -> None:
        reconstruction, terms = self._terms(batch["image"])
        terms["l1"] = F.l1_loss(reconstruction.clamp(0, 1), batch["image"])
        if self.discriminator is not None:
            terms |= logistic_terms(*(self.discriminator(_signed(x)) for x in (batch["image"], reconstruction)))
        self.log_terms(stage, terms, batch)
