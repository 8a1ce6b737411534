# SPDX-License-Identifier: Apache-2.0
"""Batches of a lip-sync expert: five frames, and mel columns that belong to them or to another place of the clip.

Reference: Prajwal, Mukhopadhyay, Namboodiri, Jawahar, "A Lip Sync Expert Is All You Need for Speech to Lip Generation
In the Wild", ACM Multimedia 2020, https://arxiv.org/abs/2008.10010.

Differs: as dataset.py says; and the mel is drawn from starts that have a frame window too, also where the frames come
from another start.
"""

from typing import TypedDict

import numpy as np
import torch

from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.media.audio import MEL_BANDS, MEL_WINDOW, mel_start
from lipsync_bench.datamodules.recipes.values import MelPadding
from lipsync_bench.datamodules.windows.dataset import Drawn, WindowDataset
from lipsync_bench.datamodules.windows.starts import WINDOW_FRAMES, draw_starts, window_starts

__all__ = ["ExpertWindows", "SyncWindow"]


class SyncWindow(TypedDict):
    """Sample for a lip-sync expert; a batch has B in front.

    `faces` uint8 (5, 3, H, W), RGB, the whole face; `mel` float32 (1, 80, 16); `label` float32 (1,), 1 where the
    two belong together and 0 where they do not.
    """

    faces: torch.Tensor
    mel: torch.Tensor
    label: torch.Tensor


class ExpertWindows(WindowDataset[SyncWindow]):
    """Windows in sync and out of sync, with equal chances. Args are those of `WindowDataset`."""

    name = "expert"

    @classmethod
    def starts(cls, clip: Clip) -> range:
        return window_starts(len(clip), clip.mel_columns)

    def draw(self, clip: Clip, rng: np.random.Generator) -> Drawn:
        start, other = draw_starts(rng, self.starts(clip), len(clip))
        return self.cut(clip, start, other, bool(rng.integers(2)), self.mel_padding)

    @staticmethod
    def cut(clip: Clip, start: int, other: int, in_sync: bool, padding: MelPadding = "reflect") -> Drawn:
        """Mel columns of `start` with the frames from `start` (label 1) or from `other` (label 0)."""
        first = start if in_sync else other
        return Drawn(
            {"faces": range(first, first + WINDOW_FRAMES)},
            {
                "mel": torch.from_numpy(clip.mel_window(mel_start(start), padding)[None]),
                "label": torch.tensor([float(in_sync)]),
            },
        )

    @classmethod
    def example_batch(cls, batch_size: int, size_hw: tuple[int, int], seed: int) -> dict[str, torch.Tensor]:
        random = torch.Generator().manual_seed(seed)
        return {
            "faces": torch.rand((batch_size, WINDOW_FRAMES, 3, *size_hw), generator=random),
            "mel": torch.rand((batch_size, 1, MEL_BANDS, MEL_WINDOW), generator=random) * 8 - 4,
            "label": (torch.arange(batch_size) % 2 == 0).float()[:, None],
        }
