# SPDX-License-Identifier: Apache-2.0
"""What all data modules share: clips of a prepared folder, split lists, loaders that repeat and cover exactly."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch.utils.data import DataLoader

from lipsync_bench.datamodules.clips.tensor_reader import Read
from lipsync_bench.datamodules.cores import usable_cores
from lipsync_bench.datamodules.datasets.splits import SPLITS, Split, read_splits
from lipsync_bench.datamodules.files.texts import few, read_json
from lipsync_bench.datamodules.recipes.recipe import Recipe
from lipsync_bench.datamodules.windows.dataset import WindowDataset
from lipsync_bench.datamodules.windows.faces import check_faces, method_words
from lipsync_bench.datamodules.windows.kinds import WindowKind, choose_kind
from lipsync_bench.datamodules.windows.loading import FaceDataModule

SUFFIX = ".safetensors"
_STAGES: dict[str | None, tuple[Split, ...]] = {
    None: SPLITS,
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("test",),
}

_Key = tuple[type[WindowDataset], Split, Recipe | None]

logger = logging.getLogger(__name__)

__all__ = ["ClipDataModule", "prepared_clips"]


def _prepared_ids(root: Path) -> list[str]:
    """`<speaker>/<clip>` of all clip files, sorted; one listing a folder, which is quick on network disks too."""
    found = []
    with os.scandir(root) as speakers:
        for speaker in speakers:
            if speaker.is_dir() and not speaker.name.startswith("."):
                with os.scandir(speaker.path) as files:
                    names = [file.name for file in files]
                found += [
                    f"{speaker.name}/{name.removesuffix(SUFFIX)}"
                    for name in names
                    if name.endswith(SUFFIX) and not name.startswith(".")
                ]
    return sorted(found)


def prepared_clips(root: Path) -> list[Path]:
    """All clip files below a prepared folder, in the order of their ids.

    Raises:
        FileNotFoundError: there are none.
    """
    ids = _prepared_ids(root) if root.is_dir() else []
    if not ids:
        raise FileNotFoundError(
            f"no clips in {root}. Expected <speaker>/<clip>{SUFFIX}. Run: bench prepare --source DIR --out {root}"
        )
    return [root / f"{name}{SUFFIX}" for name in ids]


def _check_disjoint(name: str, splits: Mapping[Split, Sequence[str]]) -> None:
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        both = sorted(set(splits[first]) & set(splits[second]))  # type: ignore[index]
        if both:
            raise ValueError(
                f"{name}: {len(both)} clips are in {first} and in {second}: {few(both)}. "
                "Expected every clip in one split. Remove them from one of the lists."
            )


class ClipDataModule(FaceDataModule):
    """Windows of prepared clips below a folder `root`::

        <root>/manifest.json                    written by `bench prepare`
        <root>/splits/{train,val,test}.txt      one <speaker>/<clip> a line
        <root>/<speaker>/<clip>.safetensors

    A data set is a subclass that says its `name`, where its videos lie in `videos`, its published split sizes in
    `official_counts` if it has any, and how it splits in `split_ids` if not by the three lists. Batches are samples of
    a kind of window with B in front; images are uint8 until they are on the device and float32 in [0, 1] from there on.

    Args:
        root: prepared folder.
        batch_size: windows in a batch, for each process.
        image_size: side of square faces, to which the clips' own crops are resized, for models of other projects. None
            for the faces that the model's recipe asks for: its track beside each clip.
        window: kind of the batches, a class of `WindowDataset`; `generator`, `punctual` and `expert` are understood.
            Without it the kind that the model's class attribute `window` names, else that of generators.
        num_workers: loader processes; without it the number of cores, at most 4.
        seed: of the windows. Splits do not depend on it.
        read: `file` reads files with ordinary calls; `mmap` maps them, which is slower unless they are few and on a
            local disk.
        epoch_length: training windows in an epoch over all processes; without it the number of training clips, or one
            batch for each process where that is more.
        val_length: windows of a validation or test pass, spread evenly over the clips; without it one for each clip.
        source: folder of the source videos, where it is no longer the one that the manifest names.
        max_missing: largest share of a split's clips that may be missing from `root`, as clips that could not be
            prepared are.
        check_counts: whether split lists of other than the official sizes are an error or a warning.
    """

    name: str = "clips"
    videos: ClassVar[str] = ""
    """Where its videos lie before they are prepared, as main/{speaker}/{clip}, with * for any folder; empty for every
    video below the folder. As `name`, `audio`, `lists` and `stamps` a literal, see `datasets.dataset`."""
    audio: ClassVar[str] = ""
    """A file with the audio of a video that has none, as `videos`, but with its suffix."""
    lists: ClassVar[bool] = False
    """Whether train.txt, val.txt and test.txt in its folder say which videos there are and how they are split."""
    stamps: ClassVar[Literal["", "whole", "squares"]] = ""
    """Whether lists of time stamps say which parts of its videos are clips, of whole frames or of the squares that the
    lists name (`datasets.time_stamps`)."""
    official_counts: ClassVar[Mapping[Split, int]] = {}
    splits_overlap: bool = False

    def __init__(
        self,
        root: Path,
        batch_size: int = 16,
        image_size: int | None = None,
        window: WindowKind = None,
        num_workers: int | None = None,
        seed: int = 0,
        read: Read = "file",
        epoch_length: int | None = None,
        val_length: int | None = None,
        source: Path | None = None,
        max_missing: float = 0.05,
        check_counts: Literal["error", "warn"] = "error",
    ) -> None:
        super().__init__()
        counts = {"batch_size": batch_size, "image_size": image_size, "epoch_length": epoch_length}
        for argument, value in {**counts, "val_length": val_length}.items():
            if value is not None and value < 1:
                raise ValueError(f"{argument} is {value}. Expected 1 or more. Set --data.init_args.{argument}.")
        self.root = Path(root)
        self.batch_size, self.image_size, self.window = batch_size, image_size, window
        self.num_workers = min(4, usable_cores()) if num_workers is None else num_workers
        self.seed, self.read = seed, read
        self.epoch_length, self.val_length = epoch_length, val_length
        self.source = None if source is None else Path(source)
        self.max_missing, self.check_counts = max_missing, check_counts
        self.missing: dict[Split, list[str]] = {}
        self.short: dict[Split, list[Path]] = {}
        self._splits: dict[Split, list[Path]] | None = None
        self._datasets: dict[_Key, WindowDataset | None] = {}

    def split_ids(self, prepared: Sequence[str]) -> dict[Split, list[str]]:
        """Clip ids of each split, in order; `prepared` are the ids of all clips found, sorted."""
        return read_splits(self.root / "splits")

    def expected_counts(self) -> Mapping[Split, int]:
        """The published sizes of the splits; empty without any."""
        return self.official_counts

    def split_name(self, split: Split) -> str:
        """A split as results call it; a data set with several ways to split says which one it is."""
        return split

    def prepare_data(self) -> None:
        """Check that `root` is a prepared folder.

        Raises:
            FileNotFoundError: it is not there, or has no manifest or no clips.
        """
        if not (self.root / "manifest.json").is_file() or next(self.root.glob(f"*/*{SUFFIX}"), None) is None:
            raise FileNotFoundError(
                f"{self.name}: no clips in {self.root}. Expected <speaker>/<clip>{SUFFIX} and manifest.json. "
                f"Run: bench prepare --dataset {self.name} --source DIR --out {self.root}"
            )

    def setup(self, stage: str | None = None) -> None:
        """Read the splits and leave out clips that are too short for a window (`short` has them).

        Raises:
            FileNotFoundError: no clips or no split lists, or clips without the faces that the model's recipe asks for.
            ValueError: splits overlap, or differ from the official sizes, or too many of their clips are missing; or
                neither a model nor `image_size` says which faces.
            ClipError: a clip or a track is broken.
        """
        for split in _STAGES[None if stage is None else str(getattr(stage, "value", stage))]:
            if self._key(split) not in self._datasets:
                self._datasets[self._key(split)] = self._dataset(split)

    def clips(self, split: Split) -> list[Path]:
        """All prepared clips of a split, also those too short for a window. Raises what `setup` raises."""
        if self._splits is None:
            self.prepare_data()
            self._splits = self._read_splits()
        return list(self._splits[split])

    @property
    def source_root(self) -> Path:
        """Folder of the source videos: the argument `source`, or what the manifest says.

        Raises:
            FileNotFoundError: there is no such folder.
        """
        folder = self.source
        if folder is None:
            self.prepare_data()
            named = self._manifest().get("source_root")
            if not isinstance(named, str):
                raise ValueError(
                    f"{self.root / 'manifest.json'}: source_root is {named!r:.40}. Expected the folder of the source "
                    "videos. Run bench prepare again, or set --data.init_args.source."
                )
            folder = Path(named)
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{self.name}: no source videos in {folder}. Expected the folder that {self.root} was prepared from. "
                "Set --data.init_args.source."
            )
        return folder

    def made_by(self) -> set[str]:
        kind = self._kind()
        return {digest for key, data in self._datasets.items() if data and key[0] is kind for digest in data.made_by()}

    def train_dataloader(self) -> DataLoader[Any]:
        dataset = self._built("train")
        _, world_size = self._place()
        if dataset is None:
            raise ValueError(
                f"{self.name}: no training clips in {self.root}. Expected one or more in the split train. "
                "Correct splits/train.txt or the split fractions."
            )
        needed = self.batch_size * world_size
        if dataset.length < needed:
            if self.epoch_length is not None:
                raise ValueError(
                    f"{self.name}: epoch_length is {dataset.length}. Expected {needed} or more, one batch of "
                    f"{self.batch_size} for each of {world_size} processes. Set --data.init_args.epoch_length."
                )
            dataset.length = needed
        return self._training_loader(dataset, dataset.length)

    def val_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        return self._evaluation_loader("test")

    def _manifest(self) -> dict[str, Any]:
        return read_json(self.root / "manifest.json", "the manifest of prepared clips", "Run bench prepare again")

    def _read_splits(self) -> dict[Split, list[Path]]:
        if not self._manifest().get("complete", True):
            logger.warning("%s: the preparation of %s was interrupted. Run bench prepare again.", self.name, self.root)
        prepared = _prepared_ids(self.root)
        splits = self.split_ids(prepared)
        if not self.splits_overlap:
            _check_disjoint(self.name, splits)
        self._check_counts(splits)
        present = set(prepared)
        for split, ids in splits.items():
            self._check_missing(split, ids, present)
        return {
            split: [self.root / f"{name}{SUFFIX}" for name in ids if name in present] for split, ids in splits.items()
        }

    def _check_counts(self, splits: Mapping[Split, Sequence[str]]) -> None:
        expected = dict(self.expected_counts())
        counts = {split: len(splits[split]) for split in expected}
        if counts == expected:
            return
        message = (
            f"{self.name}: the splits have {counts} clips. Expected {expected}. "
            "Complete the data set and its lists, or set --data.init_args.check_counts warn."
        )
        self._told(message)

    def _told(self, message: str) -> None:
        """An error or a warning, as `check_counts` says."""
        if self.check_counts == "error":
            raise ValueError(message)
        logger.warning(message)

    def _check_missing(self, split: Split, ids: Sequence[str], present: set[str]) -> None:
        missing = self.missing[split] = [name for name in ids if name not in present]
        if not missing:
            return
        found = f"{self.name}: {len(missing)} of {len(ids)} {split} clips are not in {self.root}: {few(missing)}."
        if len(missing) > self.max_missing * len(ids):
            raise ValueError(
                f"{found} Expected at most {self.max_missing:.1%} to be missing. Reasons are in failures.csv there. "
                "Run bench prepare again, or set --data.init_args.max_missing."
            )
        logger.warning("%s Reasons are in failures.csv there.", found)

    def _kind(self) -> type[WindowDataset]:
        return choose_kind(self.window, self._module)

    def _key(self, split: Split) -> _Key:
        return self._kind(), split, self._recipe()

    def _dataset(self, split: Split) -> WindowDataset | None:
        kind, _, recipe = self._key(split)
        size_hw = None if self.image_size is None else (self.image_size, self.image_size)
        clips = self.clips(split)
        ready, self.short[split] = kind.separate(clips)
        if self.short[split]:
            logger.warning(
                "%s: %d of %d %s clips %s and are left out: %s",
                self.name,
                len(self.short[split]),
                len(clips),
                split,
                kind.unready,
                ", ".join(str(path.relative_to(self.root)) for path in self.short[split]),
            )
        if not ready:
            return None
        if size_hw is None and recipe is None:
            raise ValueError(
                f"{self.name}: no model that has a recipe, and no image_size. Expected one that says which faces are "
                "read. Set --data.init_args.image_size for the clips' own crops."
            )
        if recipe is not None:
            check_faces(ready, recipe, method_words(self._module), own_crops=size_hw is not None)
        train = split == "train"
        length = self.epoch_length if train else self.val_length
        return kind(ready, size_hw, self.seed, length, self.read, fixed=not train, recipe=recipe)

    def _built(self, split: Split) -> WindowDataset | None:
        key = self._key(split)
        if key not in self._datasets:
            raise RuntimeError(f"{self.name}: no {split} data yet. Expected setup before loaders. Call setup().")
        return self._datasets[key]

    def _evaluation_loader(self, split: Split) -> Any:
        dataset = self._built(split)
        if dataset is None:  # Lightning skips the pass
            return []
        return self._validation_loader(dataset)
