# SPDX-License-Identifier: Apache-2.0
"""Networks that take no time, for tests of the code around them."""

import torch

from lipsync_bench.models.pretrained.syncnet import SyncNetV2


class QuickSyncNet(SyncNetV2):
    """Compares the brightness of each frame with the loudness of its audio; checks and counts its inputs.

    Attributes:
        scale: its only weight.
        lip_batches: video windows in each batch so far.
        audio_batches: audio windows in each batch so far.
    """

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.lip_batches: list[int] = []
        self.audio_batches: list[int] = []

    def forward_lips(self, lips: torch.Tensor) -> torch.Tensor:
        assert lips.shape[1:] == (3, 5, 224, 224)
        assert lips.dtype == torch.float32
        self.lip_batches.append(len(lips))
        return self.scale * lips.mean(dim=(1, 3, 4)) / 10

    def forward_audio(self, mfcc: torch.Tensor) -> torch.Tensor:
        assert mfcc.shape[1:] == (1, 13, 20)
        self.audio_batches.append(len(mfcc))
        return self.scale * mfcc[:, 0, 0].unflatten(1, (5, 4)).mean(dim=2)
