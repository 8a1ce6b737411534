# SPDX-License-Identifier: Apache-2.0
"""The networks of Wav2Lip: its generator and its visual-quality discriminator."""

from functools import partial

import torch
from torch import Tensor, nn

from lipsync_bench.models.parts.layers import (
    ConvBlock,
    PlainBlock,
    ResidualBlock,
    TransposedBlock,
    audio_encoder,
    from_time_major,
    scaled,
    to_time_major,
)

__all__ = ["QualityDiscriminator", "Wav2LipGenerator"]


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

    def logit(self, faces: Tensor) -> Tensor:
        """(B,3,T,96,96) in [0, 1] -> (T*B,1), before the sigmoid."""
        return self.binary_pred[0](self.features(faces)).flatten(1)

    def forward(self, faces: Tensor) -> Tensor:
        """(B,3,T,96,96) in [0, 1] -> (T*B,1), the probability that a frame is real."""
        return torch.sigmoid(self.logit(faces))
