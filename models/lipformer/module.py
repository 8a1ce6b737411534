# SPDX-License-Identifier: Apache-2.0
"""LipFormer: talking faces as lip codes that a Transformer looks up in a codebook of faces."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_bench.datamodules.recipes.recipe import Recipe
from lipsync_bench.models.core.checkpoints import read_stage, save_module
from lipsync_bench.models.core.exact_training import plain
from lipsync_bench.models.core.frozen import frozen
from lipsync_bench.models.core.inputs import FaceInputs
from lipsync_bench.models.core.module import TalkingFaceModule
from lipsync_bench.models.core.training import Stage, Terms
from lipsync_bench.models.lipformer.codebook.module import LipFormerCodebook, recipe_of
from lipsync_bench.models.lipformer.codebook.network import FacialCodebook, signed
from lipsync_bench.models.lipformer.network import FrozenCodes, LipCodes, LipFormerGenerator
from lipsync_bench.models.lipformer.transformer import Queries
from lipsync_bench.models.parts.losses import check_weights
from lipsync_bench.models.parts.perceptual import (
    RANDOM,
    TORCHVISION,
    LPIPSLoss,
    Perceptual,
    VGGPyramidLoss,
    make_perceptual,
    perceptual_term,
)
from lipsync_bench.models.parts.stylegan2 import StyleGAN2Discriminator, discriminator_terms, non_saturating_loss

_SHARED = ("image_size", "width", "entries", "code_channels", "channels", "multipliers", "residual_blocks")
"""Arguments that both stages must have alike."""

__all__ = ["LipFormer"]


class LipFormer(TalkingFaceModule):
    """LipFormer, stage 2: audio and a warped reference choose entries of a codebook, which a decoder draws.

    Jiayu Wang, Kang Zhao, Shiwei Zhang, Yingya Zhang, Yujun Shen, Deli Zhao, Jingren Zhou: LipFormer: High-fidelity
    and Generalizable Talking Face Generation with A Pre-learned Facial Codebook. CVPR 2023, pp. 13844-13853.
    https://openaccess.thecvf.com/CVPR2023
    There is no official code and no official weights.

    ```
    target T (N,3,512,512), upper half ---- encoder, C_U ---- H_TU (N,256,8,16) -+- decoder - (N,3,512,512)
    reference R, upper half --------------- encoder, C_U ---- H_RU -+            |
    reference R, lower half --------------- encoder, C_B ---- H_RB -+- warping - Transformer over C_B - codes
    frame_mels (N,1,80,16) ---------------- audio encoder ---- F_Aud (N,512) ----+
    ```
    Encoder and codebooks, from stage 1 (`LipFormerCodebook`), are frozen; audio encoder, warping, Transformer and
    decoder are trained together. Loss (Eq. 11): 0.5 cross-entropy with the codes of the target's lower half + L2 with
    the target + 0.1 LPIPS + 0.1 StyleGAN2's loss. The rest is a choice of this project where the parts' docstrings say
    so: the paper leaves it open. As in stage 1, L2 is the mean square of images in [-1, 1], and LPIPS is our reading of
    a perceptual loss "based on VGG".

    There are two optimisers, and `trainer.global_step` counts the steps of both: `max_steps` is twice the number of
    batches. On several GPUs use `--trainer.strategy ddp_find_unused_parameters_true`. Without an adversarial term there
    is one, and no discriminator.

    Args:
        codebook: path of a checkpoint of stage 1. Needed to begin a training; a checkpoint of this class contains what
            it needs of it.
        image_size, width, entries, code_channels, channels, multipliers, residual_blocks: those of stage 1, which are
            compared with the codebook's.
        keypoints: of the warping (choice).
        layers, heads, queries: of the Transformer (choices; `queries: reference` is the literal Eq. 8).
        warping: False hands the reference's codes to the Transformer as they are (ablation).
        end_to_end: False keeps the image losses from the Transformer, whose codes reach the decoder without gradients
            (ablation "trained separately"; the paper gives no details of it).
        cross_entropy_weight, reconstruction_weight, perceptual_weight, adversarial_weight: of Eq. 11.
        r1_gamma, r1_every: of the discriminator's gradient penalty, as in stage 1 (choices).
        lr: learning rate of Adam.
        transformer_lr: the same for the Transformer.
        discriminator_lr: the same for the discriminator (choice).
        betas: of Adam.
        perceptual: "lpips" or "pyramid", as in stage 1.
        perceptual_weights: ImageNet weights of its VGG: "torchvision", a folder, or "random" for smoke runs (the term's
            name says so then).
        init_from: checkpoint of this class to start from (fine-tuning).

    Differs: a training window's frames are used one by one, four of its five: single frames' mel cuts start one
    frame early there, so that each is that of the frame before, and the last frame's own is not among them. The
    paper does not say which frame is the reference in training (one of another window of the clip here), which 16 mel
    columns belong to a frame (those from its start on), nor what its audio encoder is (Wav2Lip's, 512 values).
    """

    experiment = "experiments/lipformer.yaml"
    perceptual_terms = ("lpips", "perceptual")
    generate_batch = 16
    generator: LipFormerGenerator
    discriminator: StyleGAN2Discriminator | None

    def __init__(
        self,
        codebook: str | None = None,
        image_size: int = 512,
        width: float = 1.0,
        entries: int = 1024,
        code_channels: int = 256,
        channels: int = 64,
        multipliers: tuple[int, ...] = (1, 2, 2, 4, 4, 8),
        residual_blocks: int = 2,
        keypoints: int = 16,
        layers: int = 6,
        heads: int = 8,
        queries: Queries = "state",
        warping: bool = True,
        end_to_end: bool = True,
        cross_entropy_weight: float = 0.5,
        reconstruction_weight: float = 1.0,
        perceptual_weight: float = 0.1,
        adversarial_weight: float = 0.1,
        r1_gamma: float = 10.0,
        r1_every: int = 16,
        lr: float = 1e-4,
        transformer_lr: float = 8e-5,
        discriminator_lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.95),
        perceptual: Perceptual = "lpips",
        perceptual_weights: str = TORCHVISION,
        init_from: str | None = None,
        **steps: Any,
    ) -> None:
        super().__init__(image_size, **steps)
        self.save_hyperparameters()
        self.set_adam(lr, betas, discriminator_lr)
        self.generator = LipFormerGenerator(
            image_size, width, entries, code_channels, channels, tuple(multipliers), residual_blocks,
            keypoints if warping else 0, layers, heads, queries,
        )  # fmt: skip
        self.perceptual, self.perceptual_term = perceptual, perceptual_term(perceptual)
        weights = {self.perceptual_term: perceptual_weight, "adversarial": adversarial_weight}
        check_weights({**weights, "cross_entropy": cross_entropy_weight, "reconstruction": reconstruction_weight})
        self.weights = {"cross_entropy": cross_entropy_weight, "l2": reconstruction_weight, **weights, "r1": r1_every}
        self.discriminator = StyleGAN2Discriminator(image_size, width) if adversarial_weight > 0 else None
        self.end_to_end = end_to_end
        self.r1_gamma, self.r1_every = r1_gamma, r1_every
        self.transformer_lr = transformer_lr
        self.perceptual_weights = perceptual_weights

    @classmethod
    def smoke_arguments(cls, folder: Path) -> dict[str, Any]:
        stage_1 = LipFormerCodebook.smoke_arguments(folder)
        path = folder / "codebook.ckpt"
        save_module(LipFormerCodebook(**stage_1), path)
        shared = {name: value for name, value in stage_1.items() if name in _SHARED}
        return {**shared, "codebook": str(path), "layers": 2, "heads": 4, "perceptual_weights": RANDOM}

    @frozen("perceptual_sha256")
    def perceptual_loss(self) -> LPIPSLoss | VGGPyramidLoss | None:
        wanted = self.weights[self.perceptual_term] > 0
        return make_perceptual(self.perceptual, self.perceptual_weights) if wanted else None

    @frozen(
        "codebook_sha256",
        argument="codebook",
        make_without_weights=lambda module, record: module.codes_without_weights(),
    )
    def codes(self) -> FrozenCodes:
        stage_1 = read_stage(self, "codebook", LipFormerCodebook)
        wrong = [name for name in _SHARED if plain(self.hparams[name]) != plain(stage_1.hparams[name])]
        if wrong:
            given = ", ".join(f"{name} {stage_1.hparams[name]}" for name in wrong)
            own = ", ".join(f"{name} {self.hparams[name]}" for name in wrong)
            raise ValueError(
                f"{self.hparams['codebook']}: a codebook with {given}. Expected {own}. Give both stages the same: set "
                + ", ".join(f"--model.init_args.{name}" for name in wrong)
            )
        self.generator.decoder.load_state_dict(stage_1.network.decoder.state_dict())
        return FrozenCodes(stage_1.network)

    def codes_without_weights(self) -> FrozenCodes:
        """The network of `codes`, to be filled from a checkpoint."""
        return FrozenCodes(FacialCodebook(**{name: self.hparams[name] for name in _SHARED if name != "image_size"}))

    @property
    def codebook_sha256(self) -> str | None:
        """SHA-256 of the codebook's checkpoint; None while it has not been loaded."""
        return getattr(self.loaded("codes"), "source_sha256", None)

    def start_from(self, source: "LipFormer") -> None:
        super().start_from(source)
        self.codes = source.loaded("codes") or self.codes  # those it was trained on, whatever `codebook` says

    def generate_chunk(self, inputs: FaceInputs) -> Tensor:
        upper = self.codes.upper_half(inputs.faces)
        return self.generator.decode(upper, self._predict(inputs.frame_mels, upper, inputs.reference).codes)

    def published(self) -> Recipe:
        return recipe_of(self.image_size)

    def trained_parameters(self) -> Any:
        slow = list(self.generator.transformer.parameters())
        others = [x for name, x in self.generator.named_parameters() if not name.startswith("transformer.")]
        return [{"params": others}, {"params": slow, "lr": self.transformer_lr}]

    def loss_terms(self, batch: Mapping[str, Tensor], stage: Stage) -> Terms:
        """Of the frames (4B,3,H,W); images for the discriminator are in [-1, 1]."""
        target, reference = (batch[key][:, :-1].flatten(0, 1) for key in ("target", "reference"))
        upper, true = self.codes.upper_half(target), self.codes.lower_half(target).indices
        scores, chosen = self._predict(batch["frame_mels"][:, 1:].flatten(0, 1), upper, reference)
        generated = self.generator.decode(upper, chosen if self.end_to_end else chosen.detach())
        fake = signed(generated)
        terms = {"cross_entropy": F.cross_entropy(scores.float(), true), "l2": F.mse_loss(2 * generated, 2 * target)}
        if self.perceptual_loss is not None:
            terms[self.perceptual_term] = self.perceptual_loss(generated, target).mean()
        if self.discriminator is not None:
            terms["adversarial"] = non_saturating_loss(self.discriminator(fake))
        right = (scores.argmax(dim=1) == true).float().mean()
        return Terms(terms, {"codes_right": right}, signed(target), fake)

    def discriminator_terms(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        steps = self.trainer.global_step // 2  # the generator's turn has just been counted
        return discriminator_terms(discriminator, real, fake, self.r1_gamma, self.r1_every, steps)

    def _predict(self, mels: Tensor, upper: Tensor, references: Tensor) -> LipCodes:
        codes = self.codes
        reference_upper, reference_bottom = codes.upper_half(references), codes.lower_half(references).entries
        return self.generator.predict(mels, upper, reference_upper, reference_bottom, codes.bottom.embedding)
