# SPDX-License-Identifier: Apache-2.0
"""Pairs of frames of a clip, each with the 3DMM coefficients around it: what D-Net is trained on."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch

from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.clips.coefficients import REPAIR, Coefficients, coefficients_path
from lipsync_bench.datamodules.errors import ClipError
from lipsync_bench.datamodules.files.texts import few
from lipsync_bench.datamodules.windows.dataset import Drawn, WindowDataset, in_threads
from lipsync_bench.models.videoretalking.dnet.coefficients import AFTER_TRAINING, BEFORE, coefficient_window
from lipsync_bench.models.videoretalking.dnet.network import COEFFICIENTS

__all__ = ["CoefficientPair", "CoefficientPairs"]


class CoefficientPair(TypedDict):
    """Sample for D-Net; a batch has B in front.

    `source`, `target` uint8 (1, 3, H, W), RGB; `source_coefficients`, `target_coefficients` float32 (73, 27).
    """

    source: torch.Tensor
    target: torch.Tensor
    source_coefficients: torch.Tensor
    target_coefficients: torch.Tensor


class CoefficientPairs(WindowDataset[CoefficientPair]):
    """Two frames of a clip, drawn with replacement, as PIRenderer draws them. Args are those of `WindowDataset`.

    Raises:
        FileNotFoundError: (on access) a clip has no coefficients.
        ClipError: (on access) they are those of other faces.
    """

    name = "coefficient_pairs"

    @classmethod
    def starts(cls, clip: Clip) -> range:
        return range(len(clip))

    @classmethod
    def separate(cls, clips: Sequence[Path]) -> tuple[list[Path], list[Path]]:
        files = [coefficients_path(clip) for clip in clips]
        missing = [file for file, found in zip(files, in_threads(Path.is_file, files), strict=True) if not found]
        if missing:
            root = missing[0].parent.parent
            raise FileNotFoundError(
                f"{len(missing)} of {len(clips)} clips in {root} have no 3DMM coefficients: "
                f"{few([file.relative_to(root) for file in missing])}. Expected them beside every clip. "
                f"{REPAIR.replace('ROOT', str(root))}"
            )
        return super().separate(clips)

    def draw(self, clip: Clip, rng: np.random.Generator) -> Drawn:
        source, target = rng.integers(len(clip), size=2).tolist()
        frames = {"source": source, "target": target}
        with Coefficients(coefficients_path(clip.path), read="file") as file:
            if not file.header.belongs_to(clip.header) or self.track not in (None, file.header.track):
                raise ClipError(
                    f"{file.path}: of other faces than those of {clip.header.id} now. Expected the coefficients of the "
                    f"faces that D-Net sees. {REPAIR}"
                )
            tensors = {f"{name}_coefficients": self._window(file, frame) for name, frame in frames.items()}
        return Drawn({name: range(frame, frame + 1) for name, frame in frames.items()}, tensors)

    @staticmethod
    def _window(file: Coefficients, frame: int) -> torch.Tensor:
        first, end = max(0, frame - BEFORE), min(len(file), frame + AFTER_TRAINING + 1)
        rows = file.rows(first, end - first)
        return torch.from_numpy(coefficient_window(rows, frame - first, AFTER_TRAINING))

    @classmethod
    def example_batch(cls, batch_size: int, size_hw: tuple[int, int], seed: int) -> dict[str, torch.Tensor]:
        random = torch.Generator().manual_seed(seed)
        images = {name: torch.rand((batch_size, 1, 3, *size_hw), generator=random) for name in ("source", "target")}
        shape = (batch_size, COEFFICIENTS, BEFORE + 1 + AFTER_TRAINING)
        rows = {f"{name}_coefficients": torch.rand(shape, generator=random) * 2 - 1 for name in images}
        return {**images, **rows}
