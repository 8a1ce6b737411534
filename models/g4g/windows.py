# SPDX-License-Identifier: Apache-2.0
"""Windows for G4G: five frames or one, each with its own mel, five references from other moments, drawn landmarks.

Reference: G4G, 3.1 and 4.3; DINet's training, from which the choice of references comes: five random frames of five
different stretches of nine frames.

Differs:
    The references' stretches are of the clip itself, without the window's own frames; a clip with fewer than five gives
    some of them twice. Mels are each frame's own, as at inference. Windows that are further negatives of the
    contrastive loss come with each sample.
"""

import hashlib
from functools import lru_cache
from typing import Any, ClassVar, TypedDict

import numpy as np
import torch

from lipsync_bench.datamodules.clips.boxes import clip_geometry
from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.media.audio import MEL_BANDS, MEL_WINDOW, mel_start
from lipsync_bench.datamodules.recipes.recipe import Recipe
from lipsync_bench.datamodules.windows.dataset import Drawn, WindowDataset
from lipsync_bench.datamodules.windows.starts import WINDOW_FRAMES, window_starts
from lipsync_bench.models.g4g.landmarks import INPUTS, Landmarks, draw_landmarks, draw_mask, points_in_face
from lipsync_bench.models.g4g.network import REFERENCES

FAR_WINDOWS = 5
STRETCH = 9  # frames
NEAR = 3  # frames; a further window begins no closer to one of the frames

__all__ = ["FAR_WINDOWS", "G4GFrames", "G4GWindow", "G4GWindows", "far_places", "other_moments"]


class G4GWindow(TypedDict, total=False):
    """Sample for G4G; a batch has B in front.

    `target` uint8 (T, 3, H, W) and `references` uint8 (5, 3, H, W), RGB; `mel` float32 (1, 80, 16), of the first frame;
    `frame_mels` float32 (T, 1, 80, 16); `far_mels` float32 (5, 1, 80, 16), of other moments; `clip` int64 (), a number
    for the clip; `places` int64 (T,) and `far_places` int64 (5,), the frames in it; and the recipe's inputs, uint8
    (M, 1, H, W), M being 1 for those of the reference and T for those of the source.
    """

    target: torch.Tensor
    references: torch.Tensor
    mel: torch.Tensor
    frame_mels: torch.Tensor
    far_mels: torch.Tensor
    clip: torch.Tensor
    places: torch.Tensor
    far_places: torch.Tensor


def other_moments(rng: np.random.Generator, frames: int, own: range, count: int = REFERENCES) -> list[int]:
    """Random frames of different stretches of nine, none of them among the own ones."""
    stretches: dict[int, list[int]] = {}
    for frame in range(frames):
        if frame not in own:
            stretches.setdefault(frame // STRETCH, []).append(frame)
    numbers = rng.choice(sorted(stretches), count, replace=len(stretches) < count)
    return [int(rng.choice(stretches[number])) for number in numbers.tolist()]


def far_places(rng: np.random.Generator, starts: range, own: range, count: int = FAR_WINDOWS) -> list[int]:
    """Random frames with a mel of their own that are no closer than three frames to the own ones; else the farthest."""
    distance = {place: min(abs(place - frame) for frame in own) for place in range(starts.stop + WINDOW_FRAMES - 1)}
    far = [place for place, frames in distance.items() if frames >= NEAR] or [max(distance, key=distance.__getitem__)]
    return list(map(int, rng.choice(far, count)))


@lru_cache(maxsize=4096)
def _number(clip: str) -> int:
    return int.from_bytes(hashlib.sha256(clip.encode()).digest()[:7], "big")


class G4GWindows(WindowDataset[G4GWindow]):
    """Clips of five frames. Args are those of `WindowDataset`; a recipe is needed."""

    name = "g4g"
    frames: ClassVar[int] = WINDOW_FRAMES

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        recipe: Recipe | None = kwargs.get("recipe")
        if recipe is None:
            raise ValueError("windows of G4G without a recipe. Expected one. Leave out --data.init_args.image_size")
        self.recipe = recipe

    @classmethod
    def starts(cls, clip: Clip) -> range:
        return window_starts(len(clip), clip.mel_columns, 0, WINDOW_FRAMES - 1)

    def draw(self, clip: Clip, rng: np.random.Generator) -> Drawn:
        starts = self.starts(clip)
        start = starts[int(rng.integers(len(starts)))]
        own = range(start, start + self.frames)
        shown, far = other_moments(rng, len(clip), own), far_places(rng, starts, own)
        mels = [clip.mel_window(mel_start(place), self.mel_padding) for place in [*own, *far]]
        stacked = torch.from_numpy(np.stack(mels)[:, None])
        return Drawn(
            {"target": own, "references": shown},
            {
                "mel": stacked[0],
                "frame_mels": stacked[: self.frames],
                "far_mels": stacked[self.frames :],
                "clip": torch.tensor(_number(clip.header.id)),
                "places": torch.tensor(list(own)),
                "far_places": torch.tensor(far),
                **self._inputs(clip, own, shown[0]),
            },
        )

    def _inputs(self, clip: Clip, own: range, reference: int) -> dict[str, torch.Tensor]:
        """The recipe's inputs, uint8 (M, 1, H, W)."""
        if not self.recipe.inputs:
            return {}
        geometry = clip_geometry(clip)
        assert geometry.landmarks is not None
        cuts, size_hw, drawn = self.recipe.fed_crop.cuts(geometry), self.recipe.size_hw, {}
        for name in self.recipe.inputs:
            kind: Landmarks = next(kind for kind, names in INPUTS.items() if name in names)
            images = []
            for place in [reference] if kind == "reference" else own:
                cut = cuts[place]
                assert cut is not None, "a clip shows its face in each frame"
                points = points_in_face(cut, geometry.landmarks[place], size_hw)
                images.append((draw_landmarks if name == INPUTS[kind][0] else draw_mask)(points, size_hw, kind))
            drawn[name] = torch.from_numpy(np.stack(images)[:, None])
        return drawn

    @classmethod
    def example_batch(cls, batch_size: int, size_hw: tuple[int, int], seed: int) -> dict[str, torch.Tensor]:
        random = torch.Generator().manual_seed(seed + 1)
        own = (batch_size, cls.frames)
        far = (batch_size, FAR_WINDOWS)
        mels = torch.rand((batch_size, cls.frames + FAR_WINDOWS, 1, MEL_BANDS, MEL_WINDOW), generator=random) * 8 - 4
        batch = {
            "target": torch.rand((*own, 3, *size_hw), generator=random),
            "references": torch.rand((batch_size, REFERENCES, 3, *size_hw), generator=random),
            "mel": mels[:, 0],
            "frame_mels": mels[:, : cls.frames],
            "far_mels": mels[:, cls.frames :],
            "clip": torch.arange(batch_size),
            "places": torch.arange(cls.frames).expand(own).clone(),
            "far_places": torch.arange(20, 20 + FAR_WINDOWS).expand(far).clone(),
        }
        for kind, names in INPUTS.items():
            count = 1 if kind == "reference" else cls.frames
            shape = (batch_size, count, 1, *size_hw)
            batch |= {name: torch.rand(shape, generator=random) for name in names}
        return batch


class G4GFrames(G4GWindows):
    """Single frames, for the stages before clips. Args are those of `G4GWindows`."""

    name = "g4g_frames"
    frames: ClassVar[int] = 1
