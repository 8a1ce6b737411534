# SPDX-License-Identifier: Apache-2.0
"""The lip-sync expert of HyperLips: Wav2Lip's, for faces of 128 x 128; its training."""

from typing import Any, ClassVar

from torch import Tensor, nn

from lipsync_bench.datamodules.recipes.values import MelPadding
from lipsync_bench.models.parts.layers import ConvBlock, ResidualBlock, scaled
from lipsync_bench.models.wav2lip.sync_expert import SyncExpert, SyncExpertModule

__all__ = ["HyperLipsSyncExpert", "HyperLipsSyncExpertModule"]


class HyperLipsSyncExpert(SyncExpert):
    """Audio and lips as unit vectors whose cosine is the probability of being in sync.

    ```
    mel (B,1,80,16) ---- audio_encoder ---- flatten, L2 norm ---- (B,512)
    lower halves (B,15,64,128) ---- face_encoder ---- flatten, L2 norm ---- (B,512)
    ```
    Both encoders end in a ReLU, so entries are >= 0 and the cosine lies in [0, 1].

    Args:
        width: factor on the channels and on the embedding length; 1.0 is published.
    """

    face_px: ClassVar[int] = 128

    @staticmethod
    def build_face_encoder(width: float) -> nn.Sequential:
        c32, c64, c128, c256, c512 = (scaled(channels, width) for channels in (32, 64, 128, 256, 512))
        return nn.Sequential(
            ConvBlock(15, c32, 7, 1, 3),  # 64 x 128
            ConvBlock(c32, c64, 5, (1, 2), 1),  # 62 x 63
            ResidualBlock(c64),
            ResidualBlock(c64),
            ConvBlock(c64, c128, 3, 2, 1),  # 31 x 32
            ResidualBlock(c128),
            ResidualBlock(c128),
            ResidualBlock(c128),
            ConvBlock(c128, c256, 3, 2, 1),  # 16 x 16
            ResidualBlock(c256),
            ResidualBlock(c256),
            ConvBlock(c256, c512, 3, 2, 1),  # 8 x 8
            ResidualBlock(c512),
            ResidualBlock(c512),
            ConvBlock(c512, c512, 3, 2, 1),  # 4 x 4
            ResidualBlock(c512),
            ResidualBlock(c512),
            ConvBlock(c512, c512, 4),  # 1 x 1
            ConvBlock(c512, c512, 1),
        )


class HyperLipsSyncExpertModule(SyncExpertModule):
    """Trains the lip-sync expert of HyperLips: Wav2Lip's training, at 128 x 128.

    Yaosen Chen, Yu Yao, Zhiqiang Li, Wei Wang, Yanru Zhang, Han Yang, Xuming Wen: HyperLips: Hyper Control Lips with
    High Resolution Decoder for Talking Face Generation. 2023. https://arxiv.org/abs/2310.05720
    Official code: github.com/semchan/HyperLips; it has no licence.

    ```
    faces (B,5,3,128,128) RGB - lower halves, BGR, stacked - HyperLipsSyncExpert -+
                                                                                  +- cosine d (B,) - BCE(d, label)
    mel (B,1,80,16) -------------------------------------- HyperLipsSyncExpert ---+
    ```

    Args:
        width: factor on the channels; 1.0 is published.
        lr: learning rate of Adam.
        mirror: flip every face left to right in training and validation, as the released code does; the generator that
            the expert scores later is not mirrored.
    """

    experiment = "experiments/hyperlips_sync_expert.yaml"
    image_size: ClassVar[int] = HyperLipsSyncExpert.face_px
    mel_padding: ClassVar[MelPadding] = "constant"

    def __init__(self, width: float = 1.0, lr: float = 1e-4, mirror: bool = False, **steps: Any) -> None:
        super().__init__(width, lr, **steps)
        self.save_hyperparameters()
        self.mirror = mirror

    @staticmethod
    def build(width: float) -> HyperLipsSyncExpert:
        return HyperLipsSyncExpert(width)

    def lower_halves(self, faces: Tensor) -> Tensor:
        return super().lower_halves(faces.flip(-1) if self.mirror else faces)
