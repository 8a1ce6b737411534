# SPDX-License-Identifier: Apache-2.0
"""What every kind of batch has in common: windows of prepared clips, drawn by seed and key alone.

A kind of batch is one class derived from `WindowDataset`, in a file of its own: generator.py and expert.py here, a
method's own beside its network. A model names its kind in the class attribute `window`, and `ClipDataModule` reads
it there.

Differs:
    Wav2Lip's published loader draws a clip and two frames, and tries again until all files exist, ignoring the index it
    is given: long clips come up more often, and no draw can be repeated. Here a clip is drawn with equal chances, and
    the rest from what is valid in it, by a generator seeded with (seed, epoch, index): the windows of an epoch do not
    depend on the number of workers or processes. Validation windows are fixed by the seed, one clip after the other,
    instead of random at every evaluation.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar, Generic, Literal, NamedTuple, TypeVar, cast

import cv2
import numpy as np
import simplejpeg
import torch
from torch.utils.data import Dataset

from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.clips.open_clips import OpenClips
from lipsync_bench.datamodules.errors import ClipError
from lipsync_bench.datamodules.windows.starts import MIN_FRAMES

_READ_AT_ONCE = 16  # windows that are read before they are decoded: 5 MB of JPEGs for faces of 306 x 371 pixels

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Sample = TypeVar("_Sample")

__all__ = ["Encoded", "WindowDataset", "in_threads", "stack_frames"]


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


def in_threads(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """Applies a function that reads a file to each item, in 8 threads: on network discs the time is waiting."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(function, items))


class Encoded(NamedTuple):
    """A window as it is read from its clip, its images still JPEGs."""

    path: Path
    images: dict[str, tuple[int, list[bytes]]]  # by name: number of the first frame, JPEGs
    tensors: dict[str, torch.Tensor]  # the others by name


class WindowDataset(Dataset[_Sample], ABC, Generic[_Sample]):
    """Windows of prepared clips; a window depends on the seed and the key alone. A subclass is a kind of batch.

    A kind gives itself a `name` and defines `starts`, `draw` and `example_batch`. One that reads further files, made
    beside the clips, says in `separate` whether they are there and in `made_by` where they come from.

    Keys are (epoch, index), as the samplers give them; a bare index means epoch 0.

    Args:
        clips: clip files that `separate` calls ready.
        image_size: side of the square images, pixels.
        seed: of the random draws; another seed gives other windows.
        length: windows in an epoch; without it as many as there are clips.
        read: how clip files are read.
        fixed: for validation and test: clips are taken in order, spread evenly over `length`, and every epoch has the
            same windows.

    Raises:
        ClipError: (on access) a clip is broken; the message has its path.
        ValueError: (on access) a clip has no window.
    """

    name: ClassVar[str]
    """The name of the kind, which the data module's argument `window` takes instead of the class."""
    unready: ClassVar[str] = "are too short for a window"
    """How a message describes the clips that `separate` leaves out."""

    def __init__(
        self,
        clips: Sequence[Path],
        image_size: int = 96,
        seed: int = 0,
        length: int | None = None,
        read: Literal["mmap", "file"] = "mmap",
        fixed: bool = False,
    ) -> None:
        if not clips:
            raise ValueError("no clips to draw windows from. Expected one or more. Give prepared clip files.")
        self.clips = list(clips)
        self.image_size, self.seed, self.fixed = image_size, seed, fixed
        self.length = len(self.clips) if length is None else length
        self._open = OpenClips(read)

    @classmethod
    @abstractmethod
    def starts(cls, clip: Clip) -> Sequence[int]:
        """Frames of a clip at which a window can start, ascending."""

    @abstractmethod
    def draw(self, clip: Clip, rng: np.random.Generator) -> Encoded:
        """Draw a window of a clip and read it."""

    @classmethod
    @abstractmethod
    def example_batch(cls, batch_size: int, image_size: int, seed: int) -> dict[str, torch.Tensor]:
        """A random batch with every key, as it is on the device: images float32 in [0, 1] (tests, memory checks)."""

    @classmethod
    def separate(cls, clips: Sequence[Path]) -> tuple[list[Path], list[Path]]:
        """The clips that windows can be drawn from, of 16 frames or more, and the others, which `unready` describes.

        Reads the head of every file, about 70 us each on a local disc.

        Raises:
            FileNotFoundError: a clip, or a file that the kind reads beside it, does not exist.
            ClipError: a file is broken, or those of a clip do not belong together.
        """
        ready = dict(zip(clips, in_threads(cls._is_ready, clips), strict=True))
        return [path for path in clips if ready[path]], [path for path in clips if not ready[path]]

    @classmethod
    def _is_ready(cls, path: Path) -> bool:
        with Clip(path, read="file") as clip:  # to read the head alone is faster than to map the whole file
            return len(clip) >= MIN_FRAMES and len(cls.starts(clip)) > 0

    def made_by(self) -> set[str]:
        """SHA-256 of the checkpoints that made what is read beside the clips; most kinds read clips alone."""
        return set()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int] | int) -> _Sample:
        return self._decode(self._read(key))

    def __getitems__(self, keys: Sequence[tuple[int, int] | int]) -> list[_Sample]:
        """The windows of a batch; PyTorch's DataLoader calls this method instead of `__getitem__` where it exists.

        Up to 16 windows are read before they are decoded. To read and decode window by window takes 5% longer, because
        each of the two evicts the other's data from the processor's caches.
        """
        windows: list[_Sample] = []
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

    def _read(self, key: tuple[int, int] | int) -> Encoded:
        path, rng = self._draw_clip(key)
        return self.draw(self._open.get(path), rng)

    def _decode(self, window: Encoded) -> _Sample:
        faces = {name: self._faces(window.path, first, jpegs) for name, (first, jpegs) in window.images.items()}
        return cast(_Sample, {**faces, **window.tensors})

    def _faces(self, path: Path, start: int, jpegs: list[bytes]) -> torch.Tensor:
        try:
            # Each image is decoded only when the one before it has been resized, so that it is still in the cache then.
            return stack_frames((simplejpeg.decode_jpeg(jpeg, colorspace="RGB") for jpeg in jpegs), self.image_size)
        except ValueError as error:
            raise ClipError(
                f"{path}: frames {start} to {start + len(jpegs) - 1} cannot be decoded ({error}). "
                "Expected JPEG files. Run: bench prepare again with --overwrite"
            ) from error
