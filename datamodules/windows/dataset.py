# SPDX-License-Identifier: Apache-2.0
"""Windows of five frames with their mel columns, drawn from prepared clips as Wav2Lip draws them.

A window starting at frame s has the five frames s ... s + 4 and sixteen mel columns from c(s) = int(80 s / 25). Every
single frame has one more cut of sixteen columns, which starts one frame early: at c(s + k - 1) for k = 0 ... 4. The
published loader counts frames from 0 but treats them there as if they were counted from 1, so that in training the cuts
begin 40 ms earlier than at inference. It is kept, because the published weights were trained so.

Reference: Prajwal, Mukhopadhyay, Namboodiri, Jawahar, "A Lip Sync Expert Is All You Need for Speech to Lip Generation
In the Wild", ACM Multimedia 2020, https://arxiv.org/abs/2008.10010.

Differs:
    The published loader draws a clip and two frames, and tries again until all files exist, ignoring the index it is
    given: long clips come up more often, and no draw can be repeated. Here a clip is drawn with equal chances, and its
    two starts with equal chances from the valid ones, by a generator seeded with (seed, epoch, index): the windows of
    an epoch do not depend on the number of workers or processes. Within a clip the distribution is the published one.
    Validation windows are fixed by the seed, one clip after the other, instead of random at every evaluation.
    The expert's mel is drawn from starts that have a frame window too, also where the frames come from another start.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict, cast

import cv2
import numpy as np
import simplejpeg
import torch
from torch.utils.data import Dataset, DistributedSampler, SequentialSampler

from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.errors import ClipError
from lipsync_bench.datamodules.media.audio import MEL_BANDS, MEL_WINDOW, mel_start

WINDOW_FRAMES = 5
MIN_FRAMES = 16  # as published: clips of at most three windows' frames are not used
EARLY_FRAMES = 1  # how early the single frames' mel cuts start
OPEN_CLIPS = 16  # files held open by one worker
_READ_AT_ONCE = 16  # windows that are read before the first is decoded: 5 MB of JPEGs with faces of 306 x 371

Kind = Literal["generator", "expert"]

__all__ = [
    "MIN_FRAMES",
    "WINDOW_FRAMES",
    "EpochSampler",
    "EvaluationSampler",
    "Kind",
    "SyncWindow",
    "Window",
    "WindowDataset",
    "cut_sync_window",
    "cut_window",
    "draw_starts",
    "separate_short",
    "stack_frames",
    "window_columns",
    "window_starts",
]


class Window(TypedDict):
    """Sample for a generator; a batch has B in front.

    `target`, `reference` uint8 (5, 3, H, W), RGB; `mel` float32 (1, 80, 16), of the whole window; `frame_mels` float32
    (5, 1, 80, 16), one cut a frame.
    """

    target: torch.Tensor
    reference: torch.Tensor
    mel: torch.Tensor
    frame_mels: torch.Tensor


class SyncWindow(TypedDict):
    """Sample for a lip-sync expert; a batch has B in front.

    `faces` uint8 (5, 3, H, W), RGB, the whole face; `mel` float32 (1, 80, 16); `label` float32 (1,), 1 where the
    two belong together and 0 where they do not.
    """

    faces: torch.Tensor
    mel: torch.Tensor
    label: torch.Tensor


def window_columns(start: int) -> tuple[int, list[int]]:
    """First mel column of the window's own sixteen, and of the sixteen of each of its five frames."""
    return mel_start(start), [mel_start(start + k - EARLY_FRAMES) for k in range(WINDOW_FRAMES)]


def window_starts(frames: int, mel_columns: int, kind: Kind = "generator") -> range:
    """Frames at which a window can start, so that all its frames and mel columns exist.

    Args:
        frames: frames of the clip.
        mel_columns: mel columns of the clip.
        kind: a generator's windows start at frame 1 or later, because the single frames' mel cuts
            start one frame early.
    """
    first, last_cut = (EARLY_FRAMES, WINDOW_FRAMES - 1 - EARLY_FRAMES) if kind == "generator" else (0, 0)
    last = frames - WINDOW_FRAMES
    while last >= first and mel_start(last + last_cut) + MEL_WINDOW > mel_columns:
        last -= 1
    return range(first, max(first, last + 1))


def draw_starts(rng: np.random.Generator, frames: int, mel_columns: int, kind: Kind = "generator") -> tuple[int, int]:
    """A random start s from the valid ones, and another start w != s of five frames, which may overlap.

    Raises:
        ValueError: the clip is too short for a window.
    """
    starts = window_starts(frames, mel_columns, kind)
    others = frames - WINDOW_FRAMES  # starts of five frames, s aside
    if not starts or others < 1:
        raise ValueError(
            f"no {kind} window fits in {frames} frames with {mel_columns} mel columns. "
            f"Expected {MIN_FRAMES} frames or more. Filter the clips with separate_short."
        )
    start = starts[int(rng.integers(len(starts)))]
    other = int(rng.integers(others))
    return start, other + (other >= start)


def stack_frames(frames: Iterable[np.ndarray], size: int) -> torch.Tensor:
    """uint8 (h, w, 3) images, each resized bilinearly from its own size: uint8 (T, 3, size, size)."""
    squares = [
        frame if frame.shape[:2] == (size, size) else cv2.resize(frame, (size, size), interpolation=cv2.INTER_LINEAR)
        for frame in frames
    ]
    out = np.empty((len(squares), 3, size, size), np.uint8)
    for planes, square in zip(out, squares, strict=True):
        cv2.split(square, list(planes))  # 15 times faster than a transposed copy
    return torch.from_numpy(out)


def _window_mels(columns: np.ndarray, start: int) -> tuple[torch.Tensor, torch.Tensor]:
    """mel and frame_mels from `columns` (80, >= 29), of which the first is that of the earliest cut, c(start - 1)."""
    own, singles = window_columns(start)
    cuts = np.empty((WINDOW_FRAMES + 1, 1, MEL_BANDS, MEL_WINDOW), np.float32)
    for cut, column in zip(cuts, [*singles, own], strict=True):
        cut[0] = columns[:, column - singles[0] : column - singles[0] + MEL_WINDOW]
    out = torch.from_numpy(cuts)
    return out[WINDOW_FRAMES], out[:WINDOW_FRAMES]


def cut_window(frames: Sequence[np.ndarray], mel: np.ndarray, start: int, other: int, size: int) -> Window:
    """The generator's sample: target frames from `start`, reference frames from `other`, mel columns of `start`.

    Args:
        frames: all images of a clip, uint8 RGB, each of its own size.
        mel: the whole mel-spectrogram, (80, M).
        start, other: first frames of the two windows, as `draw_starts` gives them.
        size: side of the square images, pixels.
    """
    if start not in window_starts(len(frames), mel.shape[1]) or not 0 <= other <= len(frames) - WINDOW_FRAMES:
        raise ValueError(
            f"windows at {start} and {other} do not fit in {len(frames)} frames with {mel.shape[1]} mel columns. "
            "Expected starts as draw_starts gives them."
        )
    own, singles = _window_mels(mel[:, mel_start(start - EARLY_FRAMES) :], start)
    return Window(
        target=stack_frames(frames[start : start + WINDOW_FRAMES], size),
        reference=stack_frames(frames[other : other + WINDOW_FRAMES], size),
        mel=own,
        frame_mels=singles,
    )


def cut_sync_window(
    frames: Sequence[np.ndarray], mel: np.ndarray, start: int, other: int, in_sync: bool, size: int
) -> SyncWindow:
    """The expert's sample: mel columns of `start` with the frames from `start` (label 1) or from `other` (label 0).

    Args are those of `cut_window`.
    """
    first, column = start if in_sync else other, mel_start(start)
    if min(start, first) < 0 or first + WINDOW_FRAMES > len(frames) or column + MEL_WINDOW > mel.shape[1]:
        raise ValueError(
            f"windows at {start} and {other} do not fit in {len(frames)} frames with {mel.shape[1]} mel columns. "
            "Expected starts as draw_starts gives them."
        )
    cut = np.array(mel[None, :, column : column + MEL_WINDOW], np.float32)
    return SyncWindow(
        faces=stack_frames(frames[first : first + WINDOW_FRAMES], size),
        mel=torch.from_numpy(cut),
        label=torch.tensor([float(in_sync)]),
    )


def _fits(path: Path, kind: Kind) -> bool:
    with Clip(path, read="file") as clip:  # mapping a file for its head alone does not pay
        return len(clip) >= MIN_FRAMES and len(window_starts(len(clip), clip.mel_columns, kind)) > 0


def separate_short(clips: Sequence[Path], kind: Kind = "generator") -> tuple[list[Path], list[Path]]:
    """The clips that a window fits in (16 frames or more, and the mel columns for them), and those that are too short.

    Reads the head of every file, about 70 us each on a local disc.

    Raises:
        ClipError: a clip is broken.
    """
    with ThreadPoolExecutor(8) as pool:  # on network discs the time is waiting
        fits = list(pool.map(lambda path: _fits(path, kind), clips))
    long = [path for path, fit in zip(clips, fits, strict=True) if fit]
    return long, [path for path, fit in zip(clips, fits, strict=True) if not fit]


class _OpenClips:
    """The clips used last, open, at most `OPEN_CLIPS`; they may be forked or pickled, every process opens its own."""

    def __init__(self, read: Literal["mmap", "file"]) -> None:
        self._read = read
        self._clips: OrderedDict[Path, Clip] = OrderedDict()

    def get(self, path: Path) -> Clip:
        clip = self._clips.get(path)
        if clip is None:
            clip = self._clips[path] = Clip(path, read=self._read)
            if len(self._clips) > OPEN_CLIPS:
                self._clips.popitem(last=False)[1].close()
        else:
            self._clips.move_to_end(path)
        return clip


class _Encoded(NamedTuple):
    """A window as it is read from its clip, its images still JPEGs."""

    path: Path
    images: dict[str, tuple[int, list[bytes]]]  # by name: number of the first frame, five JPEGs
    tensors: dict[str, torch.Tensor]  # the others by name


class EpochSampler(DistributedSampler[tuple[int, int]], SequentialSampler):
    """Training keys (epoch, index): each process takes every world_size-th index, all equally many.

    Nothing is shuffled: the data set draws clip and window from the key. Lightning calls `set_epoch`, but asks for the
    first iterator before it does; a training that is resumed says with `resume` where that one begins.

    Args:
        length: windows in an epoch, over all processes; a remainder that does not fill all processes is left out.
        rank, world_size: this process and the number of processes.
        repeats: every epoch has the keys of epoch 0 (Lightning's `overfit_batches`).
    """

    def __init__(self, length: int, rank: int = 0, world_size: int = 1, repeats: bool = False) -> None:
        # A subclass of DistributedSampler and SequentialSampler, so that Lightning does not put its own in place, not
        # even with overfit_batches.
        DistributedSampler.__init__(self, range(length), world_size, rank, shuffle=False, drop_last=True)  # type: ignore[arg-type]
        self.length, self.repeats = length, repeats
        self._first: tuple[int, int] | None = None

    def resume(self, epoch: int, skipped: int) -> None:
        """Have the next iterator be that of `epoch` without the first `skipped` keys of this process."""
        self._first = epoch, skipped

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        if self._first is not None and self._first[0] != epoch:
            self._first = None

    def key(self, epoch: int, place: int) -> tuple[int, int]:
        """The key of this process at a place of an epoch, counted from 0."""
        return 0 if self.repeats else epoch, self.rank + place * self.num_replicas

    def __iter__(self) -> Iterator[tuple[int, int]]:  # type: ignore[override]
        epoch, skipped = self._first or (self.epoch, 0)
        self._first = None
        return (self.key(epoch, place) for place in range(skipped, len(self)))

    def __len__(self) -> int:
        return self.length // self.num_replicas


class EvaluationSampler(EpochSampler):
    """Evaluation keys (0, index): every index exactly once over all processes, never padded, the same in every epoch.

    Args are those of `EpochSampler`.

    Raises:
        ValueError: a process would get nothing, which stalls the others.
    """

    def __init__(self, length: int, rank: int = 0, world_size: int = 1) -> None:
        if length < world_size:
            raise ValueError(
                f"{length} samples for {world_size} processes. Expected one or more for each. "
                "Use fewer devices (--trainer.devices), or hold out more (--data.init_args.val_length)."
            )
        super().__init__(length, rank, world_size, repeats=True)

    def __len__(self) -> int:
        return len(range(self.rank, self.length, self.num_replicas))


class WindowDataset(Dataset[Window | SyncWindow]):
    """Windows of prepared clips; a window depends on the seed and the key alone.

    Keys are (epoch, index), as the samplers give them; a bare index means epoch 0.

    Args:
        clips: clip files, none too short (`separate_short`).
        image_size: side of the square images, pixels.
        kind: `generator` gives `Window`, `expert` gives `SyncWindow`.
        seed: makes another sequence of windows.
        length: windows in an epoch; without it as many as there are clips.
        read: how clip files are read.
        fixed: evaluation. Clips are taken in order, evenly over `length`, and the epoch is ignored.

    Raises:
        ClipError: (on access) a clip is broken; the message has its path.
    """

    def __init__(
        self,
        clips: Sequence[Path],
        image_size: int = 96,
        kind: Kind = "generator",
        seed: int = 0,
        length: int | None = None,
        read: Literal["mmap", "file"] = "mmap",
        fixed: bool = False,
    ) -> None:
        if not clips:
            raise ValueError("no clips to draw windows from. Expected one or more. Give prepared clip files.")
        self.clips = list(clips)
        self.image_size, self.kind, self.seed, self.fixed = image_size, kind, seed, fixed
        self.length = len(self.clips) if length is None else length
        self._open = _OpenClips(read)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int] | int) -> Window | SyncWindow:
        return self._decode(self._read(key))

    def __getitems__(self, keys: Sequence[tuple[int, int] | int]) -> list[Window | SyncWindow]:
        """The windows of a batch; PyTorch's loaders ask for them so. They are read, then decoded.

        Reading and decoding in turns takes 5% longer: each drives the other out of the processor's caches.
        """
        if type(self).__getitem__ is not WindowDataset.__getitem__:
            return [self[key] for key in keys]  # of a subclass, whose windows are others
        windows: list[Window | SyncWindow] = []
        for first in range(0, len(keys), _READ_AT_ONCE):
            encoded = [self._read(key) for key in keys[first : first + _READ_AT_ONCE]]
            windows += [self._decode(window) for window in encoded]
        return windows

    def file_of(self, key: tuple[int, int]) -> Path:
        """The clip that the window of a key is drawn from."""
        return self._draw_clip(key)[0]

    def _draw_clip(self, key: tuple[int, int] | int) -> tuple[Path, np.random.Generator]:
        """The clip of a key, and the generator that draws the rest of the window."""
        epoch, index = (0, key) if isinstance(key, int) else key
        if not 0 <= index < self.length:
            raise IndexError(f"window {index} of {self.length}")
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, 0 if self.fixed else epoch, index]))
        number = index * len(self.clips) // self.length if self.fixed else int(rng.integers(len(self.clips)))
        return self.clips[number], rng

    def _read(self, key: tuple[int, int] | int) -> _Encoded:
        path, rng = self._draw_clip(key)
        clip = self._open.get(path)
        start, other = draw_starts(rng, len(clip), clip.mel_columns, self.kind)
        if self.kind == "expert":
            in_sync = bool(rng.integers(2))
            first = {"faces": start if in_sync else other}
            mel = torch.from_numpy(np.array(clip.mel_window(mel_start(start))[None]))
            tensors = {"mel": mel, "label": torch.tensor([float(in_sync)])}
        else:
            first = {"target": start, "reference": other}
            _, singles = window_columns(start)
            # The six cuts overlap: two reads have all 29 or 30 columns, against six for one by one.
            head, tail = clip.mel_window(singles[0]), clip.mel_window(singles[-1])
            columns = np.concatenate([head[:, : singles[-1] - singles[0]], tail], axis=1)
            tensors = dict(zip(("mel", "frame_mels"), _window_mels(columns, start), strict=True))
        images = {name: (frame, clip.jpegs(frame, WINDOW_FRAMES)) for name, frame in first.items()}
        return _Encoded(path, images, tensors)

    def _decode(self, window: _Encoded) -> Window | SyncWindow:
        faces = {name: self._faces(window.path, first, jpegs) for name, (first, jpegs) in window.images.items()}
        return cast(Window | SyncWindow, {**faces, **window.tensors})

    def _faces(self, path: Path, start: int, jpegs: list[bytes]) -> torch.Tensor:
        try:
            # One after the other, so that an image is still in the cache when it is resized.
            return stack_frames((simplejpeg.decode_jpeg(jpeg, colorspace="RGB") for jpeg in jpegs), self.image_size)
        except ValueError as error:
            raise ClipError(
                f"{path}: frames {start} to {start + WINDOW_FRAMES - 1} cannot be decoded ({error}). "
                "Expected JPEG files. Run: bench prepare again with --overwrite"
            ) from error
