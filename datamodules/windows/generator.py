# SPDX-License-Identifier: Apache-2.0
"""Batches of a generator: five frames with their mel columns and five reference frames, drawn as Wav2Lip draws them.

A window starting at frame s has the five frames s ... s + 4 and sixteen mel columns from c(s) = int(80 s / 25). Every
single frame has one more cut of sixteen columns, which starts one frame early: at c(s + k - 1) for k = 0 ... 4. The
published loader counts frames from 0 but treats them there as if they were counted from 1, so that in training the cuts
begin 40 ms earlier than at inference. It is kept, because the published weights were trained so. What is trained so
lets the lips come one frame late; `PunctualWindows` has the cuts of inference in training too.

Reference: Prajwal, Mukhopadhyay, Namboodiri, Jawahar, "A Lip Sync Expert Is All You Need for Speech to Lip Generation
In the Wild", ACM Multimedia 2020, https://arxiv.org/abs/2008.10010.

Differs: as dataset.py says; within a clip the distribution is the published one.
"""

from typing import ClassVar, TypedDict

import numpy as np
import torch

from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.media.audio import MEL_BANDS, MEL_WINDOW, mel_start
from lipsync_bench.datamodules.recipes.values import MelPadding
from lipsync_bench.datamodules.windows.dataset import Drawn, WindowDataset
from lipsync_bench.datamodules.windows.starts import WINDOW_FRAMES, draw_starts, window_starts

EARLY_FRAMES = 1  # how early the single frames' mel cuts start

__all__ = ["GeneratorWindows", "PunctualWindows", "Window", "window_columns"]


class Window(TypedDict):
    """Sample for a generator; a batch has B in front.

    `target`, `reference` uint8 (5, 3, H, W), RGB; `mel` float32 (1, 80, 16), of the whole window; `frame_mels` float32
    (5, 1, 80, 16), one cut a frame.
    """

    target: torch.Tensor
    reference: torch.Tensor
    mel: torch.Tensor
    frame_mels: torch.Tensor


def window_columns(start: int, early: int = EARLY_FRAMES) -> tuple[int, list[int]]:
    """First mel column of the window's own sixteen, and of the sixteen of each of its five frames."""
    return mel_start(start), [mel_start(start + k - early) for k in range(WINDOW_FRAMES)]


class GeneratorWindows(WindowDataset[Window]):
    """Windows that show a generator what to make and who it is. Args are those of `WindowDataset`."""

    name = "generator"
    early: ClassVar[int] = EARLY_FRAMES

    @classmethod
    def starts(cls, clip: Clip) -> range:
        # Not from frame 0 where the single frames' mel cuts start one frame early.
        return window_starts(len(clip), clip.mel_columns, cls.early, WINDOW_FRAMES - 1 - cls.early)

    def draw(self, clip: Clip, rng: np.random.Generator) -> Drawn:
        return self.cut(clip, *draw_starts(rng, self.starts(clip), len(clip)), self.mel_padding)

    @classmethod
    def cut(cls, clip: Clip, start: int, other: int, padding: MelPadding = "reflect") -> Drawn:
        """Target frames and mel columns from `start`, reference frames from `other`."""
        own, singles = window_columns(start, cls.early)
        columns = clip.mel_window(singles[0], padding, singles[-1] - singles[0] + MEL_WINDOW)  # the six cuts overlap
        places = np.array([*singles, own])[:, None] - singles[0] + np.arange(MEL_WINDOW)
        mels = torch.from_numpy(columns[:, places].transpose(1, 0, 2)[:, None].copy())  # (6, 1, 80, 16)
        return Drawn(
            {name: range(at, at + WINDOW_FRAMES) for name, at in (("target", start), ("reference", other))},
            {"mel": mels[WINDOW_FRAMES], "frame_mels": mels[:WINDOW_FRAMES]},
        )

    @classmethod
    def example_batch(cls, batch_size: int, size_hw: tuple[int, int], seed: int) -> dict[str, torch.Tensor]:
        random = torch.Generator().manual_seed(seed)
        image = (batch_size, WINDOW_FRAMES, 3, *size_hw)
        return {
            "target": torch.rand(image, generator=random),
            "reference": torch.rand(image, generator=random),
            "mel": torch.rand((batch_size, 1, MEL_BANDS, MEL_WINDOW), generator=random) * 8 - 4,
            "frame_mels": torch.rand((batch_size, WINDOW_FRAMES, 1, MEL_BANDS, MEL_WINDOW), generator=random) * 8 - 4,
        }


class PunctualWindows(GeneratorWindows):
    """`GeneratorWindows` whose single frames have in training the mel cuts that they have at inference."""

    name = "punctual"
    early = 0
