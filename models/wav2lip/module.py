# SPDX-License-Identifier: Apache-2.0
"""Wav2Lip: the generator, the visual-quality discriminator, and their training with and without GAN."""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from lipsync_bench.models.core.checkpoints import RECORD
from lipsync_bench.models.core.module import TalkingFaceModule
from lipsync_bench.models.parts.layers import (
    ConvBlock,
    PlainBlock,
    ResidualBlock,
    TransposedBlock,
    audio_encoder,
    from_time_major,
    mask_lower_half,
    scaled,
    to_time_major,
)
from lipsync_bench.models.parts.losses import DiscriminatorLoss, PerceptualLoss, ReconstructionLoss, SyncLoss
from lipsync_bench.models.wav2lip.sync_expert import SyncExpertModule

_log = logging.getLogger(__name__)

__all__ = ["QualityDiscriminator", "Wav2Lip", "Wav2LipGenerator"]


def _encoder_stage(inputs: int, outputs: int, residuals: int) -> nn.Sequential:
    """Halves height and width."""
    return nn.Sequential(ConvBlock(inputs, outputs, 3, 2, 1), *(ResidualBlock(outputs) for _ in range(residuals)))


def _decoder_stage(inputs: int, outputs: int) -> nn.Sequential:
    """Doubles height and width."""
    return nn.Sequential(TransposedBlock(inputs, outputs, 3, 2, 1, 1), ResidualBlock(outputs), ResidualBlock(outputs))


class Wav2LipGenerator(nn.Module):
    """Face encoder, audio encoder, and a decoder that starts from the audio and takes in the face at every size.

    ```
    face (N,6,96,96) - face_encoder_blocks - 16@96, 32@48, 64@24, 128@12, 256@6, 512@3, 512@1
    audio (N,1,80,16) - audio_encoder - 512@1 - face_decoder_blocks, each followed by the encoder's map of that size
                                              - 80@96 - output_block - (N,3,96,96)
    ```

    Args:
        width: factor on the channels; 1.0 is published. Only 96 x 96 faces work.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        c = partial(scaled, width=width)
        self.face_encoder_blocks = nn.ModuleList(
            [
                nn.Sequential(ConvBlock(6, c(16), 7, 1, 3)),  # 96 x 96
                _encoder_stage(c(16), c(32), 2),  # 48
                _encoder_stage(c(32), c(64), 3),  # 24
                _encoder_stage(c(64), c(128), 2),  # 12
                _encoder_stage(c(128), c(256), 2),  # 6
                _encoder_stage(c(256), c(512), 1),  # 3
                nn.Sequential(ConvBlock(c(512), c(512), 3), ConvBlock(c(512), c(512), 1)),  # 1
            ]
        )
        self.audio_encoder = audio_encoder(width)
        self.face_decoder_blocks = nn.ModuleList(
            [
                nn.Sequential(ConvBlock(c(512), c(512), 1)),  # 1
                nn.Sequential(TransposedBlock(2 * c(512), c(512), 3), ResidualBlock(c(512))),  # 3
                _decoder_stage(2 * c(512), c(512)),  # 6
                _decoder_stage(c(512) + c(256), c(384)),  # 12
                _decoder_stage(c(384) + c(128), c(256)),  # 24
                _decoder_stage(c(256) + c(64), c(128)),  # 48
                _decoder_stage(c(128) + c(32), c(64)),  # 96
            ]
        )
        self.output_block = nn.Sequential(
            ConvBlock(c(64) + c(16), c(32), 3, 1, 1),
            nn.Conv2d(c(32), 3, 1),
            nn.Sigmoid(),
        )

    def forward(self, audio: Tensor, faces: Tensor) -> Tensor:
        """Faces in [0, 1], of the same rank as the input.

        Args:
            audio: (B,1,80,16) or (B,T,1,80,16).
            faces: (B,6,96,96) or (B,6,T,96,96) in [0, 1]: channels 0-2 the frame with its lower half zeroed, 3-5 a
                reference.

        Returns:
            (B,3,96,96) or (B,3,T,96,96); frames of a window do not see each other.
        """
        frames = faces.shape[2] if faces.ndim == 5 else None
        if frames is not None:
            audio, faces = to_time_major(audio, 1), to_time_major(faces, 2)
        skips = []
        for encode in self.face_encoder_blocks:
            faces = encode(faces)
            skips.append(faces)
        x = self.audio_encoder(audio)
        for decode in self.face_decoder_blocks:
            x = torch.cat([decode(x), skips.pop()], dim=1)
        x = self.output_block(x)
        return x if frames is None else from_time_major(x, frames)


class QualityDiscriminator(nn.Module):
    """Says whether the lower half of a face looks real. No normalisation layers.

    Args:
        width: factor on the channels; 1.0 is published.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        c32, c64, c128, c256, c512 = (scaled(channels, width) for channels in (32, 64, 128, 256, 512))
        self.face_encoder_blocks = nn.ModuleList(
            [
                nn.Sequential(PlainBlock(3, c32, 7, 1, 3)),  # 48 x 96
                nn.Sequential(PlainBlock(c32, c64, 5, (1, 2), 2), PlainBlock(c64, c64, 5, 1, 2)),  # 48 x 48
                nn.Sequential(PlainBlock(c64, c128, 5, 2, 2), PlainBlock(c128, c128, 5, 1, 2)),  # 24
                nn.Sequential(PlainBlock(c128, c256, 5, 2, 2), PlainBlock(c256, c256, 5, 1, 2)),  # 12
                nn.Sequential(PlainBlock(c256, c512, 3, 2, 1), PlainBlock(c512, c512, 3, 1, 1)),  # 6
                nn.Sequential(PlainBlock(c512, c512, 3, 2, 1), PlainBlock(c512, c512, 3, 1, 1)),  # 3
                nn.Sequential(PlainBlock(c512, c512, 3), PlainBlock(c512, c512, 1)),  # 1
            ]
        )
        self.binary_pred = nn.Sequential(nn.Conv2d(c512, 1, 1), nn.Sigmoid())

    def features(self, faces: Tensor) -> Tensor:
        """(B,3,T,96,96) -> (T*B,512,1,1), before the last layer."""
        x = to_time_major(faces, 2)
        x = x[:, :, x.shape[2] // 2 :]  # (T*B,3,48,96)
        for block in self.face_encoder_blocks:
            x = block(x)
        return x

    def forward(self, faces: Tensor) -> Tensor:
        """(B,3,T,96,96) in [0, 1] -> (T*B,1), the probability that a frame is real."""
        return self.binary_pred(self.features(faces)).flatten(1)


class Wav2Lip(TalkingFaceModule):
    """Wav2Lip and Wav2Lip + GAN: re-draws the lower half of a face for given speech.

    K R Prajwal, Rudrabha Mukhopadhyay, Vinay P. Namboodiri, C V Jawahar: A Lip Sync Expert Is All You Need for
    Speech to Lip Generation In The Wild. ACM Multimedia 2020. https://arxiv.org/abs/2008.10010
    Official code: github.com/Rudrabha/Wav2Lip, wav2lip_train.py and hq_wav2lip_train.py; code and weights are for
    non-commercial use.

    ```
    target (B,5,3,96,96), rows 48.. zeroed -+
    reference (B,5,3,96,96) ----------------+- (B,6,5,96,96) -+
    frame_mels (B,5,1,80,16) ---------------------------------+- generator - G (B,3,5,96,96) - L1 with target
                                             G, lower halves, and mel (B,1,80,16) - frozen expert - sync
                                             G, lower halves - discriminator - perceptual (gan only)
    ```
    Loss: s sync + (1 - s) L1, and with GAN s sync + g perceptual + (1 - s - g) L1, where g = 0.07 and s is 0 until a
    validation ends with a mean sync loss below the threshold, then 0.01 (0.03 with GAN) for good. Training windows
    come with `frame_mels` that start one frame early, as published; `generate` expects the frame's own window, as
    the official inference uses.

    With GAN there are two optimisers, and `trainer.global_step` counts the steps of both: `max_steps` and the step
    in a checkpoint's name are twice the number of batches (val_check_interval counts batches). On several GPUs use
    `--trainer.strategy ddp_find_unused_parameters_true` then.

    Args:
        width: factor on the channels; 1.0 is published. Faces are 96 x 96 at any width.
        gan: train with the visual-quality discriminator.
        sync_expert: path of a checkpoint of SyncExpertModule. Needed to train and validate unless sync_weight is 0.
        sync_weight: s once it is on; None takes the published 0.01, with GAN 0.03.
        sync_threshold: s is switched on after a validation whose mean sync loss is below this.
        sync_start: "threshold" as above; "always" has s on from the first step, for small runs.
        gan_weight: g.
        lr: learning rate of Adam, for generator and discriminator.
        betas: of Adam; None takes the published (0.9, 0.999), with GAN (0.5, 0.999).
        expert_mode: "train" as the official code, where the expert's batch norms use the statistics of the batch
            (the sync loss then depends on the batch and is meaningless for very small ones); "eval" is the cleaner
            reading of the paper.

    Differs: a resumed run keeps s, which the official scripts do not store. No validation or checkpoint after step 1.
    Without GAN, betas and s are the code's; the paper does not separate the variants.
    """

    channel_order: ClassVar[Literal["rgb", "bgr"]] = "bgr"
    experiment = "experiments/wav2lip.yaml"
    sync_expert_module = SyncExpertModule
    generator: Wav2LipGenerator

    def __init__(
        self,
        width: float = 1.0,
        gan: bool = False,
        sync_expert: str | None = None,
        sync_weight: float | None = None,
        sync_threshold: float = 0.75,
        sync_start: Literal["threshold", "always"] = "threshold",
        gan_weight: float = 0.07,
        lr: float = 1e-4,
        betas: tuple[float, float] | None = None,
        expert_mode: Literal["train", "eval"] = "train",
    ) -> None:
        super().__init__(image_size=96, sync_expert=sync_expert, expert_mode=expert_mode)
        self.save_hyperparameters()
        self.automatic_optimization = not gan
        self.generator = Wav2LipGenerator(width)
        self.discriminator = QualityDiscriminator(width) if gan else None
        self.gan_weight = gan_weight if gan else 0.0
        self.sync_weight = (0.03 if gan else 0.01) if sync_weight is None else sync_weight
        if not 0 <= self.sync_weight <= self.sync_weight + self.gan_weight <= 1:
            raise ValueError(
                f"Wav2Lip: sync_weight {self.sync_weight:g} and gan_weight {self.gan_weight:g}. Expected both >= 0 and "
                "a sum of at most 1 (the rest is L1's). Set --model.init_args.sync_weight and "
                "--model.init_args.gan_weight."
            )
        self.sync_threshold = sync_threshold
        self.sync_on = sync_start == "always"
        self.lr = lr
        first, second = betas or ((0.5, 0.999) if gan else (0.9, 0.999))
        self.betas = (first, second)
        self.l1_loss, self.sync_loss = ReconstructionLoss(), SyncLoss()
        self.perceptual_loss, self.discriminator_loss = PerceptualLoss(), DiscriminatorLoss()

    @classmethod
    def smoke_arguments(cls, folder: Path) -> dict[str, Any]:
        return {**super().smoke_arguments(folder), "width": 0.125, "sync_start": "always"}

    @property
    def needs_sync_expert(self) -> bool:
        return self.sync_weight > 0

    @property
    def current_sync_weight(self) -> float:
        """s of the next step: 0 until it is switched on."""
        return self.sync_weight if self.sync_on else 0.0

    def forward(self, audio: Tensor, faces: Tensor) -> Tensor:
        """The generator's forward, BGR: audio (B,T,1,80,16), faces (B,6,T,96,96) -> (B,3,T,96,96), or 4-D without T."""
        return self.generator(audio, faces)

    def generate_chunk(self, frame_mels: Tensor, faces: Tensor, references: Tensor) -> Tensor:
        return self.generator(frame_mels, torch.cat([mask_lower_half(faces), references], dim=1))

    def training_step(self, batch: Mapping[str, Tensor], batch_index: int) -> Tensor | None:
        if self.discriminator is None:
            return self._plain_step(batch)
        self._gan_step(batch, self.discriminator)
        return None

    def validation_step(self, batch: Mapping[str, Tensor], batch_index: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: Mapping[str, Tensor], batch_index: int) -> None:
        self._evaluate(batch, "test")

    def on_validation_epoch_end(self) -> None:
        trainer = self.trainer
        if self.sync_on or trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING or self.sync_weight == 0:
            return
        loss = float(trainer.callback_metrics["val/sync"])
        if loss < self.sync_threshold:
            self.sync_on = True
            if trainer.is_global_zero:
                _log.info(
                    "val/sync %.3f < %g: sync weight is %g from now on", loss, self.sync_threshold, self.sync_weight
                )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint[RECORD]["sync_on"] = self.sync_on

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.sync_on = self.sync_on or bool(checkpoint.get(RECORD, {}).get("sync_on", False))
        super().on_load_checkpoint(checkpoint)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        adam = partial(torch.optim.Adam, lr=self.lr, betas=self.betas)
        if self.discriminator is None:
            return adam(self.generator.parameters())
        return [adam(self.generator.parameters()), adam(self.discriminator.parameters())]

    def _generator_terms(self, batch: Mapping[str, Tensor], sync: bool) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Generated and true windows (B,3,T,H,W), BGR, and the terms of the generator's loss."""
        target, reference = (self.to_network(batch[key]) for key in ("target", "reference"))
        generated = self.generator(batch["frame_mels"], self.input_faces(target, reference))
        target = target.transpose(1, 2)
        terms = {"l1": self.l1_loss(generated, target)}
        if sync and self.sync_expert is not None:
            terms["sync"] = self.sync_loss(self.sync_expert, batch["mel"], generated.transpose(1, 2))
        if self.discriminator is not None:
            terms["perceptual"] = self.perceptual_loss(self.discriminator(generated))
        return generated, target, terms

    def _generator_loss(self, terms: Mapping[str, Tensor]) -> Tensor:
        s = self.current_sync_weight
        loss = (1 - s - self.gan_weight) * terms["l1"]
        if s > 0:
            loss = loss + s * terms["sync"]
        if "perceptual" in terms:
            loss = loss + self.gan_weight * terms["perceptual"]
        return loss

    def _plain_step(self, batch: Mapping[str, Tensor]) -> Tensor:
        _, _, terms = self._generator_terms(batch, sync=self.current_sync_weight > 0)
        loss = self._generator_loss(terms)
        self.log_terms("train", {**terms, "loss": loss}, batch)
        return loss

    def _gan_step(self, batch: Mapping[str, Tensor], discriminator: nn.Module) -> None:
        with self.turn(0) as step:
            generated, target, terms = self._generator_terms(batch, sync=self.current_sync_weight > 0)
            loss = self._generator_loss(terms)
            step(loss)
        with self.turn(1) as step:
            judged = self.discriminator_loss(discriminator(target), discriminator(generated.detach()))
            step(judged["disc_real"] + judged["disc_fake"])
        self.log_terms("train", {**terms, "loss": loss, **judged}, batch)

    def _evaluate(self, batch: Mapping[str, Tensor], stage: str) -> None:
        generated, target, terms = self._generator_terms(
            batch, sync=True
        )  # sync decides when its weight is switched on
        if self.discriminator is not None:
            terms |= self.discriminator_loss(self.discriminator(target), self.discriminator(generated))
        self.log_terms(stage, {**terms, "loss": self._generator_loss(terms)}, batch)
