# SPDX-License-Identifier: Apache-2.0
"""LipFormer: talking faces as lip codes that a Transformer looks up in a codebook of faces."""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor

from lipsync_bench.datamodules.files import sha256
from lipsync_bench.models.core.checkpoints import RECORD, load_module, save_module
from lipsync_bench.models.core.module import TalkingFaceModule
from lipsync_bench.models.lipformer.codebook.module import FacialCodebook, LipFormerCodebook
from lipsync_bench.models.lipformer.network import FrozenCodes, LipCodes, LipFormerGenerator
from lipsync_bench.models.lipformer.transformer import Queries
from lipsync_bench.models.parts.losses import check_weights
from lipsync_bench.models.parts.perceptual import RANDOM, TORCHVISION, VGGPyramidLoss
from lipsync_bench.models.parts.stylegan2 import StyleGAN2Discriminator, discriminator_terms, non_saturating_loss

_SHARED = ("image_size", "width", "entries", "code_channels", "channels", "multipliers", "residual_blocks")
"""Arguments that both stages must have alike."""
_log = logging.getLogger(__name__)

__all__ = ["LipFormer"]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


class LipFormer(TalkingFaceModule):
    """LipFormer, stage 2: speech and a warped reference choose entries of a codebook, which a decoder draws.

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
    the target + 0.1 VGG + 0.1 StyleGAN2's loss. The rest is a choice of this project where the parts' docstrings say
    so: the paper leaves it open. As in stage 1, L2 is the mean square of images in [-1, 1].

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
        perceptual_weights: ImageNet weights of VGG-19: "torchvision", a folder, or "random" for smoke runs (the term
            is then called `perceptual_random_weights`).
        init_from: checkpoint of this class to start from (fine-tuning).

    Differs: a training window's frames are used one by one, four of its five: single frames' mel cuts start one
    frame early there, so that each is that of the frame before, and the last frame's own is not among them.
    """

    experiment = "experiments/lipformer.yaml"
    unsaved = ("vgg_loss",)
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
        perceptual_weights: str = TORCHVISION,
        init_from: str | None = None,
    ) -> None:
        super().__init__(image_size, init_from=init_from)
        self.save_hyperparameters()
        self.generator = LipFormerGenerator(
            image_size, width, entries, code_channels, channels, tuple(multipliers), residual_blocks,
            keypoints if warping else 0, layers, heads, queries,
        )  # fmt: skip
        self.weights = {
            "cross_entropy": cross_entropy_weight, "reconstruction": reconstruction_weight,
            "perceptual": perceptual_weight, "adversarial": adversarial_weight,
        }  # fmt: skip
        check_weights(self.weights)
        self.codes: FrozenCodes | None = None
        self.codebook_sha256: str | None = None
        self._codebook_path = codebook
        self.discriminator = StyleGAN2Discriminator(image_size, width) if adversarial_weight > 0 else None
        self.automatic_optimization = self.discriminator is None
        self.end_to_end = end_to_end
        self.r1_gamma, self.r1_every = r1_gamma, r1_every
        self.lr, self.transformer_lr, self.discriminator_lr = lr, transformer_lr, discriminator_lr
        first, second = betas
        self.betas = (first, second)
        self.perceptual_weights = perceptual_weights
        self.vgg_loss: VGGPyramidLoss | None = None

    @classmethod
    def smoke_arguments(cls, folder: Path) -> dict[str, Any]:
        stage_1 = LipFormerCodebook.smoke_arguments(folder)
        path = folder / "codebook.ckpt"
        save_module(LipFormerCodebook(**stage_1), path)
        shared = {name: value for name, value in stage_1.items() if name in _SHARED}
        return {**shared, "codebook": str(path), "layers": 2, "heads": 4, "perceptual_weights": RANDOM}

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage != "predict" and self.weights["perceptual"] > 0 and self.vgg_loss is None:
            self.vgg_loss = VGGPyramidLoss(self.perceptual_weights).to(self.device)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.codes is None:  # neither a checkpoint that goes on nor `init_from` brought them
            self._load_codes()

    def _start_from(self, path: Path) -> "LipFormer":
        source = super()._start_from(path)
        if source.codes is not None:  # the codes it was trained on, whatever `codebook` says
            self.codes, self.codebook_sha256 = source.codes.to(self.device), source.codebook_sha256
        return source

    def _load_codes(self) -> FrozenCodes:
        repair = (
            f"Train stage 1 with: lightning fit -c {LipFormerCodebook.experiment}; then name its checkpoint with "
            "--model.init_args.codebook PATH"
        )
        if self._codebook_path is None:
            raise ValueError(f"LipFormer: codebook is None. Expected the path of a trained codebook. {repair}")
        path = Path(self._codebook_path)
        if not path.is_file():
            raise FileNotFoundError(f"LipFormer: no codebook at {path}. Expected a LipFormerCodebook. {repair}")
        stage_1 = load_module(path, [LipFormerCodebook])
        wrong = [name for name in _SHARED if _plain(self.hparams[name]) != _plain(stage_1.hparams[name])]
        if wrong:
            given = ", ".join(f"{name} {stage_1.hparams[name]}" for name in wrong)
            own = ", ".join(f"{name} {self.hparams[name]}" for name in wrong)
            raise ValueError(
                f"{path}: a codebook with {given}. Expected {own}. Give both stages the same: set "
                + ", ".join(f"--model.init_args.{name}" for name in wrong)
            )
        self.generator.decoder.load_state_dict(stage_1.network.decoder.state_dict())
        self.codebook_sha256 = sha256(path)
        _log.info("LipFormer: codebook %s, sha256 %s", path, self.codebook_sha256)
        return self._attach(stage_1.network)

    def _attach(self, network: FacialCodebook) -> FrozenCodes:
        self.codes = FrozenCodes(network).to(self.device)
        return self.codes

    def train(self, mode: bool = True) -> "LipFormer":
        super().train(mode)
        for frozen in (self.codes, self.vgg_loss):
            if frozen is not None:
                frozen.eval()
        return self

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        record = checkpoint[RECORD]
        record["codebook_sha256"] = self.codebook_sha256
        record["vgg19"] = None if self.vgg_loss is None else self.vgg_loss.weights

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if any(name.startswith("codes.") for name in checkpoint["state_dict"]):
            arguments = {name: self.hparams[name] for name in _SHARED if name != "image_size"}
            self._attach(FacialCodebook(**arguments))  # its weights are the checkpoint's
            self.codebook_sha256 = checkpoint.get(RECORD, {}).get("codebook_sha256")
        super().on_load_checkpoint(checkpoint)
        self.refuse_another("codebook", self._codebook_path, self.codebook_sha256)

    def generate_chunk(self, frame_mels: Tensor, faces: Tensor, references: Tensor) -> Tensor:
        codes = self.codes or self._load_codes()
        upper = codes.upper_half(faces)
        predicted = self._predict(codes, frame_mels, upper, references)
        return self.generator.decode(upper, predicted.codes)

    def training_step(self, batch: Mapping[str, Tensor], batch_index: int) -> Tensor | None:
        if self.discriminator is None:
            terms = self._terms(batch)[2]
            self.log_terms("train", terms, batch)
            return terms["loss"]
        with self.turn(0) as step:
            generated, target, terms = self._terms(batch)
            step(terms["loss"])
        with self.turn(1) as step:
            images = 2 * target - 1, 2 * generated.detach() - 1
            batches = self.trainer.global_step // 2  # before this one: the first turn has been counted
            loss, judged = discriminator_terms(self.discriminator, *images, self.r1_gamma, self.r1_every, batches)
            step(loss)
        self.log_terms("train", {**terms, **judged}, batch)
        return None

    def validation_step(self, batch: Mapping[str, Tensor], batch_index: int) -> None:
        self.log_terms("val", self._terms(batch)[2], batch)

    def test_step(self, batch: Mapping[str, Tensor], batch_index: int) -> None:
        self.log_terms("test", self._terms(batch)[2], batch)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        adam = partial(torch.optim.Adam, betas=self.betas)
        slow = list(self.generator.transformer.parameters())
        others = [x for name, x in self.generator.named_parameters() if not name.startswith("transformer.")]
        generator = adam([{"params": others, "lr": self.lr}, {"params": slow, "lr": self.transformer_lr}])
        if self.discriminator is None:
            return generator
        return [generator, adam(self.discriminator.parameters(), lr=self.discriminator_lr)]

    def _predict(self, codes: FrozenCodes, mels: Tensor, upper: Tensor, references: Tensor) -> LipCodes:
        reference_upper, reference_bottom = codes.upper_half(references), codes.lower_half(references).entries
        return self.generator.predict(mels, upper, reference_upper, reference_bottom, codes.bottom.embedding)

    def _terms(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Generated and true frames (4B,3,H,W) and the generator's terms with their weighted sum, `loss`."""
        codes = self.codes or self._load_codes()
        target, reference = (batch[key][:, :-1].flatten(0, 1) for key in ("target", "reference"))
        upper, true = codes.upper_half(target), codes.lower_half(target).indices
        scores, chosen = self._predict(codes, batch["frame_mels"][:, 1:].flatten(0, 1), upper, reference)
        generated = self.generator.decode(upper, chosen if self.end_to_end else chosen.detach())
        terms = {"cross_entropy": F.cross_entropy(scores.float(), true), "l2": F.mse_loss(2 * generated, 2 * target)}
        loss = self.weights["cross_entropy"] * terms["cross_entropy"] + self.weights["reconstruction"] * terms["l2"]
        if self.vgg_loss is not None:
            name = "perceptual_random_weights" if self.vgg_loss.weights == RANDOM else "perceptual"
            terms[name] = self.vgg_loss(generated, target)
            loss = loss + self.weights["perceptual"] * terms[name]
        if self.discriminator is not None:
            terms["adversarial"] = non_saturating_loss(self.discriminator(2 * generated - 1))
            loss = loss + self.weights["adversarial"] * terms["adversarial"]
        with torch.no_grad():
            terms["codes_right"] = (scores.argmax(dim=1) == true).float().mean()
        return generated, target, {**terms, "loss": loss}
