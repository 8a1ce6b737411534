# SPDX-License-Identifier: Apache-2.0
"""Any folder of prepared clips, split by lists or by chance."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lipsync_bench.datamodules.clip_datamodule import ClipDataModule
from lipsync_bench.datamodules.datasets.splits import SPLITS, Split, read_splits

__all__ = ["ClipFolder", "shuffled"]


def shuffled(names: Sequence[str], seed: int) -> list[str]:
    """Names in a random order that depends on the seed and on each name alone.

    A name that is added or missing does not change the order of the others, nor does the version of a random generator.
    """
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())


class ClipFolder(ClipDataModule):
    """Clips of any videos::

        <root>/manifest.json                    written by: bench prepare --dataset folder --source DIR --out ROOT
        <root>/<speaker>/<clip>.safetensors

    The split is by lists (`splits`), by chance (`val_fraction`, `test_fraction`; the rest is for training; a fraction
    above 0 gives one clip or more), or none at all (`overfit`).

    Args:
        root: prepared folder.
        splits: folder with train.txt, val.txt, test.txt, one <speaker>/<clip> a line; the fractions are not used then.
        val_fraction: share of clips (or speakers) for validation, 0 for none.
        test_fraction: share of clips (or speakers) for testing, 0 for none. With val_fraction 0 a test_fraction of 1
            makes a set for evaluation alone.
        split_by: whether clips or whole speakers are drawn.
        split_seed: of the drawing; apart from `seed`, so that another training run keeps the split.
        overfit: all clips are in all splits, for trials with a few clips.
        **kwargs: those of `ClipDataModule`.
    """

    name: str = "folder"
    videos = ""

    def __init__(
        self,
        root: Path,
        splits: Path | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_by: Literal["clip", "speaker"] = "clip",
        split_seed: int = 0,
        overfit: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, check_counts="error", **kwargs)  # there are none to check
        alone = (val_fraction, test_fraction) == (0, 1)
        if min(val_fraction, test_fraction) < 0 or (val_fraction + test_fraction >= 1 and not alone):
            raise ValueError(
                f"val_fraction is {val_fraction} and test_fraction {test_fraction}. Expected 0 or more, and less than "
                "1 together, or 0 and 1. Set --data.init_args.val_fraction or --data.init_args.test_fraction."
            )
        if overfit and splits is not None:
            raise ValueError(
                f"overfit is set and so is splits ({splits}). Expected one of them. Leave out --data.init_args.splits."
            )
        self.splits = None if splits is None else Path(splits)
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.split_by, self.split_seed = split_by, split_seed
        self.splits_overlap = overfit

    def split_ids(self, prepared: Sequence[str]) -> dict[Split, list[str]]:
        if self.splits is not None:
            return read_splits(self.splits)
        if self.splits_overlap:
            return {split: list(prepared) for split in SPLITS}
        return self._drawn(prepared)

    def _drawn(self, prepared: Sequence[str]) -> dict[Split, list[str]]:
        unit_of = {name: name if self.split_by == "clip" else name.partition("/")[0] for name in prepared}
        units = shuffled(sorted(set(unit_of.values())), self.split_seed)
        val, test = (
            max(1, round(fraction * len(units))) if fraction > 0 else 0
            for fraction in (self.val_fraction, self.test_fraction)
        )
        if val + test >= len(units) and self.test_fraction != 1:
            raise ValueError(
                f"{self.name}: {len(units)} {self.split_by}s in {self.root} cannot be split into {val} val, {test} "
                "test and one or more for training. Prepare more videos, set --data.init_args.val_fraction 0 and "
                "--data.init_args.test_fraction 0, or use all clips everywhere with --data.init_args.overfit true."
            )
        place: dict[str, Split] = dict.fromkeys(units, "train")
        place.update(dict.fromkeys(units[:val], "val"))
        place.update(dict.fromkeys(units[val : val + test], "test"))
        return {split: [name for name in prepared if place[unit_of[name]] == split] for split in SPLITS}
