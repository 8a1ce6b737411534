# SPDX-License-Identifier: Apache-2.0
"""Wav2Lip: its losses and their weights, with and without GAN."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn

from lipsync_bench.datamodules.faces.crop_rules.boxes import DetectorBox
from lipsync_bench.datamodules.recipes.recipe import Recipe, References
from lipsync_bench.models.core.checkpoint_files import RECORD
from lipsync_bench.models.core.module import TalkingFaceModule
from lipsync_bench.models.core.training import Stage, Terms
from lipsync_bench.models.parts.losses import AdversarialLoss, DiscriminatorLoss, ReconstructionLoss, SyncLoss
from lipsync_bench.models.wav2lip.network import QualityDiscriminator, Wav2LipGenerator
from lipsync_bench.models.wav2lip.sync_expert import SyncExpertModule

_log = logging.getLogger(__name__)

__all__ = ["Wav2Lip"]


class Wav2Lip(TalkingFaceModule):
    """Wav2Lip and Wav2Lip + GAN: draws the lower half of a face anew so that it fits the given audio.

    K R Prajwal, Rudrabha Mukhopadhyay, Vinay P. Namboodiri, C V Jawahar: A Lip Sync Expert Is All You Need for
    Speech to Lip Generation In The Wild. ACM Multimedia 2020. https://arxiv.org/abs/2008.10010
    Official code: github.com/Rudrabha/Wav2Lip, wav2lip_train.py and hq_wav2lip_train.py; code and weights are for
    non-commercial use.

    ```
    target (B,5,3,96,96), lower half zeroed -+
    reference (B,5,3,96,96) -----------------+- (B,6,5,96,96) -+
    frame_mels (B,5,1,80,16) ----------------------------------+- generator - G (B,3,5,96,96) - L1 with target
                                             G, lower halves, and mel (B,1,80,16) - frozen expert - sync
                                             G, lower halves - discriminator - adversarial (gan only)
    ```
    Loss: s sync + (1 - s) L1, and with GAN s sync + g adversarial + (1 - s - g) L1, where g = 0.07. At first s is 0.
    After the first validation whose mean sync loss is below the threshold, s is 0.01 (0.03 with GAN) to the end of the
    training. Training windows come with `frame_mels` that start one frame early, as published (not with
    `--data.init_args.window punctual`); `generate` expects the frame's own window, which the official inference uses.

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
        init_from: checkpoint of this class to start from (fine-tuning).

    Differs: a resumed training keeps s, which the official scripts do not store. The official scripts also validate and
    write a checkpoint after the first step; this class does not. Without GAN, betas and s are the official code's; the
    paper does not separate the variants.
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
        init_from: str | None = None,
        **steps: Any,
    ) -> None:
        super().__init__(image_size=96, **steps)
        self.save_hyperparameters()
        self.set_adam(lr, betas or ((0.5, 0.999) if gan else (0.9, 0.999)))
        self.expert_mode = expert_mode
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
        self._use_sync(sync_start == "always")
        self.l1_loss, self.sync_loss = ReconstructionLoss(), SyncLoss()
        self.adversarial_loss, self.discriminator_loss = AdversarialLoss(), DiscriminatorLoss()

    def published(self) -> Recipe:
        """As the released scripts: S3FD's boxes, and each frame as its own reference."""
        boxes = DetectorBox("s3fd", pads=(0, 10, 0, 0), smoothing=5)
        return Recipe(boxes, self.size_hw, DetectorBox("s3fd"), references=References("same"))

    @classmethod
    def smoke_arguments(cls, folder: Path) -> dict[str, Any]:
        return {**super().smoke_arguments(folder), "width": 0.125, "sync_start": "always"}

    @property
    def needs_sync_expert(self) -> bool:
        """Also while s is 0: validation computes the sync loss from the beginning."""
        return self.sync_weight > 0

    @property
    def current_sync_weight(self) -> float:
        """s of the next step: 0 until it is switched on."""
        return self.weights["sync"]

    def _use_sync(self, on: bool) -> None:
        s = self.sync_weight if on else 0.0
        self.sync_on = on
        self.weights = {"l1": 1 - s - self.gan_weight, "sync": s, "adversarial": self.gan_weight}

    def forward(self, audio: Tensor, faces: Tensor) -> Tensor:
        """The generator's forward, BGR: audio (B,T,1,80,16), faces (B,6,T,96,96) -> (B,3,T,96,96), or 4-D without T."""
        return self.generator(audio, faces)

    def loss_terms(self, batch: Mapping[str, Tensor], stage: Stage) -> Terms:
        generated, target = self.windows(batch)
        terms = {"l1": self.l1_loss(generated, target)}
        # Validation always computes the sync loss: its mean decides when the term gets its weight.
        if (stage != "train" or self.current_sync_weight > 0) and self.sync_expert is not None:
            terms["sync"] = self.sync_loss(self.sync_expert, batch["mel"], generated.transpose(1, 2))
        watched: dict[str, Tensor] = {}
        if self.discriminator is not None:
            terms["adversarial"] = self.adversarial_loss(self.discriminator(generated))
            if stage != "train":
                watched = self.discriminator_terms(self.discriminator, target, generated)
        return Terms(terms, watched, target, generated)

    def discriminator_terms(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        return self.discriminator_loss(discriminator(real), discriminator(fake))

    def on_validation_epoch_end(self) -> None:
        trainer = self.trainer
        if self.sync_on or trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING or self.sync_weight == 0:
            return
        loss = float(trainer.callback_metrics["val/sync"])
        if loss < self.sync_threshold:
            self._use_sync(True)
            if trainer.is_global_zero:
                _log.info(
                    "val/sync %.3f < %g: sync weight is %g from now on", loss, self.sync_threshold, self.sync_weight
                )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint[RECORD]["sync_on"] = self.sync_on

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._use_sync(self.sync_on or bool(checkpoint.get(RECORD, {}).get("sync_on", False)))
        super().on_load_checkpoint(checkpoint)
