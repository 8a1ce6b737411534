# SPDX-License-Identifier: Apache-2.0
"""Windows for the second stage of HyperLips: true crops, and what the base network made of them, five frames at a time.

A sample joins the faces of a prepared clip with its file of base frames (base_frames.py). The inputs of the network
are the generated faces and their sketches, 128 pixels wide whatever the output; the target is the true crop at 128, 256
or 512; the lip mask and its rectangle, which two of the losses look at, come from the true frame's mesh.

Reference: Chen et al., "HyperLips: Hyper Control Lips with High Resolution Decoder for Talking Face Generation", 2023,
https://arxiv.org/abs/2310.05720, and facts of the released loader.

Differs:
    The published loader draws clips and windows anew until all files exist, and leaves a clip out for good when Face
    Mesh failed on one of its frames. Here a window is drawn from those whose five frames all have a sketch and lips
    that can be seen, by a generator seeded with (seed, epoch, index) as all windows are.
    Masks and sketches do not pass through JPEG, which turned the ringing around the sketch's lines white and made the
    lips' rectangle a pixel or two narrower.
    The published loader also returns a sketch of the true face, which nothing reads; it is not made.
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypedDict, cast

import cv2
import numpy as np
import torch

from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.clips.track import Track
from lipsync_bench.datamodules.errors import ClipError
from lipsync_bench.datamodules.files.texts import few
from lipsync_bench.datamodules.recipes.recipe import crop_rule
from lipsync_bench.datamodules.windows.dataset import Drawn, WindowDataset, in_threads
from lipsync_bench.datamodules.windows.decoding import stack_frames
from lipsync_bench.datamodules.windows.generator import GeneratorWindows
from lipsync_bench.datamodules.windows.starts import MIN_FRAMES, WINDOW_FRAMES
from lipsync_bench.models.hyperlips.hr.base_frames import REPAIR, BaseFrames, base_frames_path
from lipsync_bench.models.hyperlips.hr.sketch import (
    BOTTLENECK_PX,
    TRAINING_KERNEL_PX,
    lip_box,
    lip_mask,
    training_sketch,
)

HR_SIZES = (128, 256, 512)
_MIN_LIPS = 0.05  # of the crop's width and height; the ring around the lips of a frontal face is 0.4 by 0.2

__all__ = ["HR_SIZES", "HRWindow", "HRWindows", "cut_hr_window", "usable_starts"]


class HRWindow(TypedDict):
    """Sample for HyperLips-HR; a batch has B in front.

    `target` uint8 (5, 3, S, S), RGB, the true crops; `base` uint8 (5, 3, 128, 128), RGB, the base network's faces;
    `sketch` uint8 (5, 1, 128, 128), 0 or 255, their drawings after the training rule; `lip_mask` uint8 (5, 1, S, S), 0
    or 255; `lip_box` int64 (5, 4), row_min, row_max, col_min, col_max of the mask, to be used as half-open slices.
    """

    target: torch.Tensor
    base: torch.Tensor
    sketch: torch.Tensor
    lip_mask: torch.Tensor
    lip_box: torch.Tensor


def usable_starts(base_frames: BaseFrames) -> np.ndarray:
    """Frames at which a window can start: five in a row have a sketch, and lips inside the crop.

    Returns:
        int64 (N,), ascending; empty for clips of at most 15 frames, which are not used, as published.
    """
    if len(base_frames) < MIN_FRAMES:
        return np.empty(0, np.int64)
    lips = np.clip(base_frames.lip_outlines(), 0, 1)
    usable = base_frames.found() & (np.ptp(lips, axis=1) >= _MIN_LIPS).all(axis=1)
    return np.flatnonzero(np.convolve(usable, np.ones(WINDOW_FRAMES, np.int64), mode="valid") == WINDOW_FRAMES)


def _check_size(size_hw: tuple[int, int]) -> None:
    if size_hw not in [(size, size) for size in HR_SIZES]:
        height, width = size_hw
        raise ValueError(
            f"targets of {width} x {height} pixels. Expected squares of {', '.join(map(str, HR_SIZES))}. "
            "Set --model.init_args.scale, or --data.init_args.image_size."
        )


def _check_belongs(base_frames: BaseFrames, clip: Clip) -> None:
    if not base_frames.header.belongs_to(clip.header):
        raise ClipError(
            f"{base_frames.path}: made for another preparation of {base_frames.header.id}. Expected the faces of the "
            f"clip beside it. {REPAIR}"
        )


@cache
def _rule(track_key: str) -> str:
    """The crop rule of a track, as `CropRule.text`."""
    return crop_rule(json.loads(track_key)["crop"]).text()


def _check_cut(base_frames: BaseFrames, track: Track) -> None:
    made, wanted = base_frames.header.crop, _rule(track.header.track)
    if made not in ("", wanted):
        raise ClipError(
            f"{base_frames.path}: made of faces cut by {made}. Expected {wanted}, as the second stage's are. {REPAIR}"
        )


def cut_hr_window(clip: Clip, base_frames: BaseFrames, start: int, size: int, track: Track | None = None) -> HRWindow:
    """The sample of the five frames from `start`.

    The lip mask is drawn at the size of the stored crop and resized bilinearly to S x S; what is white then belongs to
    the mask, as it does to the published rectangle.

    Args:
        clip: an open clip.
        base_frames: the faces generated from it.
        start: first frame; see `usable_starts`.
        size: side of target and mask, S: 128, 256 or 512.
        track: has the true faces; None for the clip's own crops.

    Raises:
        IndexError: the window is not inside the clip.
        ValueError: another size.
        ClipError: a file is broken, they do not belong together, or a frame's lips are outside its crop.
    """
    _check_size((size, size))
    _check_belongs(base_frames, clip)
    if track is not None:
        _check_cut(base_frames, track)
    faces, outlines = base_frames.faces(start, WINDOW_FRAMES), base_frames.lip_outlines(start, WINDOW_FRAMES)
    crops = (clip.frames if track is None else track.faces)(start, WINDOW_FRAMES)
    masks = np.empty((WINDOW_FRAMES, 1, size, size), np.uint8)
    boxes = np.empty((WINDOW_FRAMES, 4), np.int64)
    for index, (crop, outline) in enumerate(zip(crops, outlines, strict=True)):
        mask = lip_mask(outline, crop.shape[:2])
        try:
            boxes[index] = lip_box(mask, size)
        except ValueError as error:
            raise ClipError(f"{clip.path}: frame {start + index}: {error}") from error
        resized = cv2.resize(mask, (size, size), interpolation=cv2.INTER_LINEAR)
        masks[index] = (resized == 255) * np.uint8(255)
    sketches = [
        training_sketch(sketch, BOTTLENECK_PX, TRAINING_KERNEL_PX)
        for sketch in base_frames.sketches(start, WINDOW_FRAMES)
    ]
    return HRWindow(
        target=stack_frames(crops, (size, size)),
        base=stack_frames(faces, (BOTTLENECK_PX, BOTTLENECK_PX)),
        sketch=torch.from_numpy(np.stack(sketches)[:, None]),
        lip_mask=torch.from_numpy(masks),
        lip_box=torch.from_numpy(boxes),
    )


def _maker(path: Path) -> str:
    with BaseFrames(path) as base_frames:
        return base_frames.header.checkpoint_sha256


class HRWindows(WindowDataset[HRWindow]):
    """Windows of prepared clips with base frames. A clip is drawn with equal chances, then one of its `usable_starts`.

    Args are those of `WindowDataset`; the targets are squares of 128, 256 or 512 pixels. Base frames are read with
    ordinary calls, whatever `read` says.

    Raises:
        FileNotFoundError: (on access) a clip has no base frames.
        ValueError: (on access) a clip has no usable window.
        ClipError: (on access) as `cut_hr_window`.
    """

    name = "hr"
    unready = "are too short for a window or show no face in five frames in a row"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _check_size(self.size_hw)

    @classmethod
    def starts(cls, clip: Clip) -> list[int]:
        with BaseFrames(base_frames_path(clip.path)) as base_frames:
            _check_belongs(base_frames, clip)
            return usable_starts(base_frames).tolist()

    @classmethod
    def separate(cls, clips: Sequence[Path]) -> tuple[list[Path], list[Path]]:
        files = [base_frames_path(clip) for clip in clips]
        there = in_threads(Path.is_file, files)
        missing = [file for file, found in zip(files, there, strict=True) if not found]
        if missing:
            root = missing[0].parent.parent
            raise FileNotFoundError(
                f"{len(missing)} of {len(clips)} clips in {root} have no base frames: "
                f"{few([file.relative_to(root) for file in missing])}. Expected the faces of a trained base network "
                f"beside every clip. {REPAIR.replace('ROOT', str(root))}"
            )
        return super().separate(clips)

    def made_by(self) -> set[str]:
        return set(in_threads(_maker, map(base_frames_path, self.clips)))

    def draw(self, clip: Clip, rng: np.random.Generator) -> Drawn:
        with BaseFrames(base_frames_path(clip.path)) as base_frames:  # few clips come up twice in a row: not kept open
            starts = usable_starts(base_frames)
            if not len(starts):
                raise ValueError(
                    f"{base_frames.path}: no five frames in a row with a face. Expected a window or more. "
                    "Filter the clips with separate()."
                )
            start = int(starts[int(rng.integers(len(starts)))])
            track = None if self.track is None else self.track_of(clip)
            window = cut_hr_window(clip, base_frames, start, self.size_hw[0], track)
        return Drawn({}, cast(dict[str, torch.Tensor], window))

    @classmethod
    def example_batch(cls, batch_size: int, size_hw: tuple[int, int], seed: int) -> dict[str, torch.Tensor]:
        random = torch.Generator().manual_seed(seed + 1)
        window = (batch_size, WINDOW_FRAMES)
        low, high = size_hw[0] // 4, 3 * size_hw[0] // 4
        mask = torch.zeros((*window, 1, *size_hw))
        mask[..., low:high, low:high] = 1
        return {
            "target": GeneratorWindows.example_batch(batch_size, size_hw, seed)["target"],
            "base": torch.rand((*window, 3, BOTTLENECK_PX, BOTTLENECK_PX), generator=random),
            "sketch": torch.randint(0, 2, (*window, 1, BOTTLENECK_PX, BOTTLENECK_PX), generator=random).float(),
            "lip_mask": mask,
            "lip_box": torch.tensor([low, high, low, high]).expand(*window, 4),
        }
