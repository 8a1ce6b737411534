# SPDX-License-Identifier: Apache-2.0
"""The lip-sync expert, a network that tells whether five frames and 0.2 s of audio belong together; its training."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_bench.datamodules.faces.crop_rules.boxes import DetectorBox
from lipsync_bench.datamodules.recipes.recipe import Recipe
from lipsync_bench.datamodules.recipes.values import MelPadding
from lipsync_bench.datamodules.windows.dataset import WindowDataset
from lipsync_bench.datamodules.windows.expert import ExpertWindows
from lipsync_bench.models.core.training import BenchModule, Stage, Terms
from lipsync_bench.models.parts.layers import ConvBlock, ResidualBlock, audio_encoder, scaled, stack_lower_halves
from lipsync_bench.models.parts.losses import CosineBCE

CHANCE = math.log(2)  # BCE of a constant answer of one half
_log = logging.getLogger(__name__)

__all__ = ["SyncExpert", "SyncExpertModule"]


class SyncExpert(nn.Module):
    """Colour SyncNet: audio and lips as unit vectors whose cosine is the probability of being in sync.

    ```
    mel (B,1,80,16) ---- audio_encoder ---- flatten, L2 norm ---- (B,512)
    lower halves (B,15,48,96) ---- face_encoder ---- flatten, L2 norm ---- (B,512)
    ```
    Both encoders end in a ReLU, so entries are >= 0 and the cosine lies in [0, 1].

    Args:
        width: factor on the channels and on the embedding length; 1.0 is published.
    """

    face_px: ClassVar[int] = 96
    """Side of the whole faces whose lower halves it reads."""

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.face_encoder = self.build_face_encoder(width)
        self.audio_encoder = audio_encoder(width, last_residuals=2)

    @staticmethod
    def build_face_encoder(width: float) -> nn.Sequential:
        """Lower halves -> (B,512,1,1)."""
        c32, c64, c128, c256, c512 = (scaled(channels, width) for channels in (32, 64, 128, 256, 512))
        return nn.Sequential(
            ConvBlock(15, c32, 7, 1, 3),  # 48 x 96
            ConvBlock(c32, c64, 5, (1, 2), 1),  # 46 x 47
            ResidualBlock(c64),
            ResidualBlock(c64),
            ConvBlock(c64, c128, 3, 2, 1),  # 23 x 24
            ResidualBlock(c128),
            ResidualBlock(c128),
            ResidualBlock(c128),
            ConvBlock(c128, c256, 3, 2, 1),  # 12 x 12
            ResidualBlock(c256),
            ResidualBlock(c256),
            ConvBlock(c256, c512, 3, 2, 1),  # 6 x 6
            ResidualBlock(c512),
            ResidualBlock(c512),
            ConvBlock(c512, c512, 3, 2, 1),  # 3 x 3
            ConvBlock(c512, c512, 3),  # 1 x 1
            ConvBlock(c512, c512, 1),
        )

    def forward(self, audio: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings of audio and of faces, (B,512) each.

        Args:
            audio: (B,1,80,16), one mel window for the five frames.
            faces: (B,15,48,96) in [0, 1], lower halves on the channel axis: frame 0 BGR, frame 1 BGR, ...
        """
        audio_embedding = F.normalize(self.audio_encoder(audio).flatten(1))
        face_embedding = F.normalize(self.face_encoder(faces).flatten(1))
        return audio_embedding, face_embedding


class SyncExpertModule(BenchModule):
    """Trains the lip-sync expert of Wav2Lip.

    K R Prajwal, Rudrabha Mukhopadhyay, Vinay P. Namboodiri, C V Jawahar: A Lip Sync Expert Is All You Need for
    Speech to Lip Generation In The Wild. ACM Multimedia 2020. https://arxiv.org/abs/2008.10010
    Official code: github.com/Rudrabha/Wav2Lip, color_syncnet_train.py; code and weights are for non-commercial use.

    ```
    faces (B,5,3,96,96) RGB - lower halves, BGR, stacked - SyncExpert -+
                                                                       +- cosine d (B,) - BCE(d, label)
    mel (B,1,80,16) ---------------------------------- SyncExpert -----+
    ```
    Batches: `faces` (B,5,3,96,96) float RGB in [0, 1], `mel` (B,1,80,16), `label` (B,1), 1 in sync and 0 not (same
    clip, another time). A loss of ln 2 = 0.693 is chance; about 0.25 in validation is what the publication's README
    asks for, reached after several 100,000 steps with batches of 64. The learning rate is the code's (1e-4; the
    paper prints 1e-3).

    Args:
        width: factor on the channels; 1.0 is published.
        lr: learning rate of Adam.
    """

    channel_order: ClassVar[Literal["rgb", "bgr"]] = "bgr"
    experiment = "experiments/sync_expert.yaml"
    window: ClassVar[type[WindowDataset]] = ExpertWindows
    image_size: ClassVar[int] = SyncExpert.face_px
    mel_padding: ClassVar[MelPadding] = "reflect"
    chance_margin: ClassVar[float] = 0.01
    chance_patience: ClassVar[int] = 3
    """Validations in a row at chance level before the warning."""

    def __init__(self, width: float = 1.0, lr: float = 1e-4, **steps: Any) -> None:
        super().__init__(**steps)
        self.save_hyperparameters()
        self.set_adam(lr)
        self.network = self.build(width)
        self.loss = CosineBCE()
        self._validations_at_chance = 0

    def published(self) -> Recipe:
        """S3FD's boxes as they are, as released."""
        return Recipe(DetectorBox("s3fd"), (self.image_size, self.image_size), mel_padding=self.mel_padding)

    @staticmethod
    def build(width: float) -> SyncExpert:
        """The network, untrained: (audio, lower halves) -> two embeddings."""
        return SyncExpert(width)

    @classmethod
    def of_network(cls, network: SyncExpert) -> "SyncExpertModule":
        """The module of a network that was trained elsewhere."""
        module = cls()
        module.network = network
        return module

    @classmethod
    def smoke_arguments(cls, folder: Path) -> dict[str, Any]:
        return {"width": 0.125}

    def forward(self, mel: Tensor, faces: Tensor) -> Tensor:
        """Probability (B,) that mel (B,1,80,16) and RGB faces (B,5,3,96,96) are in sync."""
        return self.loss.cosine(*self.network(mel, self.lower_halves(faces)))

    def lower_halves(self, faces: Tensor) -> Tensor:
        """RGB faces (B,T,3,H,W) as the network reads them: (B,3T,H/2,W) BGR."""
        return stack_lower_halves(self.to_network(faces))

    def loss_terms(self, batch: Mapping[str, Tensor], stage: Stage) -> Terms:
        audio_embedding, face_embedding = self.network(batch["mel"], self.lower_halves(batch["faces"]))
        label = batch["label"].flatten()
        terms = Terms({"loss": self.loss(audio_embedding, face_embedding, label)})
        if stage == "train":
            return terms
        predicted = self.loss.cosine(audio_embedding, face_embedding) > 0.5
        return terms._replace(watched={"accuracy": (predicted == (label > 0.5)).float().mean()})

    def smallest_batch(self, training: bool) -> int:
        return 2 if training else 1  # its last batch norms see one value of each window

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if not self.trainer.is_global_zero:
            return
        _log.info(
            "Training the lip-sync expert: cosine of audio and lip embeddings against in sync / not. A loss of %.3f "
            "is chance, where it may stay for thousands of steps; about 0.25 in validation is good for a generator.",
            CHANCE,
        )

    def on_validation_epoch_end(self) -> None:
        if self.trainer.sanity_checking or "val/loss" not in self.trainer.callback_metrics:
            return
        loss = float(self.trainer.callback_metrics["val/loss"])
        at_chance = abs(loss - CHANCE) < self.chance_margin
        self._validations_at_chance = self._validations_at_chance + 1 if at_chance else 0
        if self._validations_at_chance == self.chance_patience and self.trainer.is_global_zero:
            _log.warning(
                "val/loss is %.3f after %d validations in a row. Expected less than %.3f, which is chance: nothing "
                "is learnt yet. Usual causes: audio and video of the clips are not aligned; clips are not at 25 fps; a "
                "mel of another clip or rate; too few clips or speakers; faces not cropped, so that lower halves show "
                "no mouth; learning rate too high (--model.init_args.lr) or batches too small "
                "(--data.init_args.batch_size, published 64). With healthy data, keep training.",
                loss,
                self._validations_at_chance,
                CHANCE,
            )

    def example_batch(self, batch_size: int = 2, seed: int = 0) -> dict[str, Tensor]:
        """A random batch with every key that the training step reads."""
        return self.window.example_batch(batch_size, (self.image_size, self.image_size), seed)
