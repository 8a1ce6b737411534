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
from functools import partial
from pathlib import Path
from typing import ClassVar, Generic, NamedTuple, TypeVar, cast, overload

import numpy as np
import torch
from torch.utils.data import Dataset

from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.clips.open_files import OpenFiles
from lipsync_bench.datamodules.clips.tensor_reader import Read
from lipsync_bench.datamodules.clips.track import Track, track_path
from lipsync_bench.datamodules.errors import ClipError
from lipsync_bench.datamodules.recipes.recipe import Recipe
from lipsync_bench.datamodules.recipes.values import MelPadding
from lipsync_bench.datamodules.windows.decoding import ImageMemory, StoredFaces, decode_into
from lipsync_bench.datamodules.windows.starts import MIN_FRAMES

_READ_AT_ONCE = 16  # windows that are read before they are decoded: 5 MB of JPEGs for faces of 306 x 371 pixels

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Sample = TypeVar("_Sample")

__all__ = ["Drawn", "WindowDataset", "Windows", "in_threads"]


def _track_beside(clip: Path, digest: str | None, read: Read) -> Track:
    assert digest is not None
    return Track(track_path(clip, digest), read)


def in_threads(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """Applies a function that reads a file to each item, in 8 threads: on network discs the time is waiting."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(function, items))


class Drawn(NamedTuple):
    """What a kind draws from a clip.

    Args:
        faces: By name, the frames whose faces the window has; a range is read at once.
        tensors: Everything else by name.
    """

    faces: dict[str, Sequence[int]]
    tensors: dict[str, torch.Tensor]


class _Read(NamedTuple):
    """A window as it is read from its files."""

    faces: dict[str, StoredFaces]
    tensors: dict[str, torch.Tensor]


def _stored(source: Clip | Track, frames: Sequence[int]) -> list[bytes]:
    if isinstance(frames, range):
        return source.stored(frames.start, len(frames))
    return [image for frame in frames for image in source.stored(frame, 1)]


class Windows(Sequence[_Sample]):
    """Windows that are parts of a batch, which has all of them in `batch`: tensors by name with B in front."""

    def __init__(self, batch: dict[str, torch.Tensor]) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(next(iter(self.batch.values())))

    @overload
    def __getitem__(self, index: int) -> _Sample: ...

    @overload
    def __getitem__(self, index: slice) -> "Windows[_Sample]": ...

    def __getitem__(self, index: int | slice) -> "_Sample | Windows[_Sample]":
        part = {name: values[index] for name, values in self.batch.items()}
        return Windows(part) if isinstance(index, slice) else cast(_Sample, part)


class WindowDataset(Dataset[_Sample], ABC, Generic[_Sample]):
    """Windows of prepared clips; a window depends on the seed and the key alone. A subclass is a kind of batch.

    A kind gives itself a `name` and defines `starts`, `draw` and `example_batch`. One that reads further files, made
    beside the clips, says in `separate` whether they are there and in `made_by` where they come from.

    Keys are (epoch, index), as the samplers give them; a bare index means epoch 0. A loader that is given `collate`
    takes batches as they are decoded; the default one copies them.

    Args:
        clips: clip files that `separate` calls ready.
        size_hw: height and width of the images, to which the clips' own crops are resized. Without it they are the
            faces of the recipe's track, at the recipe's size.
        seed: of the random draws; another seed gives other windows.
        length: windows in an epoch; without it as many as there are clips.
        read: how files are read.
        fixed: for validation and test: clips are taken in order, spread evenly over `length`, and every epoch has the
            same windows.
        recipe: of the method; says how mels are padded.

    Raises:
        FileNotFoundError: (on access) a clip has no such track.
        ClipError: (on access) a file is broken; the message has its path. Or a track is of another preparation.
        ValueError: (on access) a clip has no window.
    """

    name: ClassVar[str]
    """The name of the kind, which the data module's argument `window` takes instead of the class."""
    unready: ClassVar[str] = "are too short for a window"
    """How a message describes the clips that `separate` leaves out."""

    def __init__(
        self,
        clips: Sequence[Path],
        size_hw: tuple[int, int] | None = None,
        seed: int = 0,
        length: int | None = None,
        read: Read = "file",
        fixed: bool = False,
        recipe: Recipe | None = None,
    ) -> None:
        if not clips:
            raise ValueError("no clips to draw windows from. Expected one or more. Give prepared clip files.")
        if size_hw is None and recipe is None:
            raise ValueError("neither a size nor a recipe. Expected one that says which faces. Give size_hw or recipe.")
        self.clips = list(clips)
        self.size_hw: tuple[int, int] = size_hw or recipe.size_hw  # type: ignore[union-attr]
        self.track = None if size_hw is not None or recipe is None else recipe.track_digest
        self.mel_padding: MelPadding = "reflect" if recipe is None else recipe.mel_padding
        self.seed, self.fixed = seed, fixed
        self.length = len(self.clips) if length is None else length
        self._clips = OpenFiles(partial(Clip, read=read))
        self._tracks = OpenFiles(partial(_track_beside, digest=self.track, read=read))
        self._memory = ImageMemory()

    @classmethod
    @abstractmethod
    def starts(cls, clip: Clip) -> Sequence[int]:
        """Frames of a clip at which a window can start, ascending."""

    @abstractmethod
    def draw(self, clip: Clip, rng: np.random.Generator) -> Drawn:
        """Draw a window of a clip, and read all of it but the faces."""

    @classmethod
    @abstractmethod
    def example_batch(cls, batch_size: int, size_hw: tuple[int, int], seed: int) -> dict[str, torch.Tensor]:
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
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[tuple[int, int] | int]) -> Windows[_Sample]:
        """The windows of a batch; PyTorch's DataLoader calls this method instead of `__getitem__` where it exists.

        Up to 16 windows are read before they are decoded. To read and decode window by window takes 5% longer, because
        each of the two evicts the other's data from the processor's caches. Images lie in memory as they are decoded,
        pixel by pixel; their planes are made on the device.
        """
        faces: dict[str, torch.Tensor] = {}
        tensors: list[dict[str, torch.Tensor]] = []
        for first in range(0, len(keys), _READ_AT_ONCE):
            windows = [self._read(key) for key in keys[first : first + _READ_AT_ONCE]]
            for name, stored in windows[0].faces.items():
                if name not in faces:
                    faces[name] = self._memory.empty(name, (len(keys), len(stored.images), *self.size_hw, 3))
                for window, images in zip(windows, faces[name][first:].numpy(), strict=False):
                    decode_into(window.faces[name], images)
            tensors += [window.tensors for window in windows]
        stacked = {name: torch.stack([window[name] for window in tensors]) for name in tensors[0]}
        return Windows({**{name: images.movedim(-1, 2) for name, images in faces.items()}, **stacked})

    @staticmethod
    def collate(windows: Windows[_Sample]) -> dict[str, torch.Tensor]:
        """The batch that windows are parts of."""
        return windows.batch

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

    def _read(self, key: tuple[int, int] | int) -> _Read:
        path, rng = self._draw_clip(key)
        clip = self._clips.get(path)
        drawn = self.draw(clip, rng)
        if not drawn.faces:
            return _Read({}, drawn.tensors)
        source: Clip | Track = clip if self.track is None else self.track_of(clip)
        codec = source.header.codec if isinstance(source, Track) else None
        faces = {
            name: StoredFaces(source.path, frames[0], _stored(source, frames), codec)
            for name, frames in drawn.faces.items()
        }
        return _Read(faces, drawn.tensors)

    def track_of(self, clip: Clip) -> Track:
        """The track of the recipe's faces."""
        track = self._tracks.get(clip.path)
        if not track.header.belongs_to(clip.header):
            raise ClipError(
                f"{track.path}: of another preparation of {track.header.id}. Expected the faces of the clip beside it. "
                "Run: bench prepare --for METHOD"
            )
        return track
