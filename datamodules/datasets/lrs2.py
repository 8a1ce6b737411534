# SPDX-License-Identifier: Apache-2.0
"""LRS2: sentences from BBC television."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from lipsync_bench.datamodules.clip_datamodule import ClipDataModule
from lipsync_bench.datamodules.datasets.folder import shuffled
from lipsync_bench.datamodules.datasets.splits import SPLITS, Split

_G4G_TEST = 0.2
_VAL = 1082 / 48164
_LEAKS = "leaking into the official splits"

logger = logging.getLogger(__name__)

__all__ = ["LRS2"]


def _g4g_sizes(clips: int) -> tuple[int, int]:
    """How many of all clips are for testing and for validation."""
    return round(_G4G_TEST * clips), round(_VAL * clips)


class LRS2(ClipDataModule):
    """LRS2-BBC, the part `main`: 48,164 clips, faces of about 160 x 160 pixels at 25 fps, up to 100 characters each.

    As it comes, and as `bench prepare --dataset lrs2 --source DIR --out ROOT` expects it in DIR::

        main/<programme>/<clip>.mp4, .txt       e.g. main/5535415699068794046/00001.mp4
        pretrain/                               not used: Wav2Lip and its descendants train on main alone
        train.txt, val.txt, test.txt            clip lists; test.txt has a second column, which is ignored

    and prepared, with the programme in the place of the speaker::

        <root>/manifest.json
        <root>/splits/{train,val,test}.txt
        <root>/<programme>/<clip>.safetensors

    Splits: 45,839 train, 1,082 val, 1,243 test, by date of broadcast; a speaker may be in more than one.
    Licence: for research alone, after signing an agreement with BBC R&D; no clip or face may be passed on.
    How to obtain: https://www.robots.ox.ac.uk/~vgg/data/lip_reading/lrs2.html

    Reference: Afouras, Chung, Senior, Vinyals, Zisserman, "Deep Audio-Visual Speech Recognition", IEEE TPAMI 2018,
    https://arxiv.org/abs/1809.02108.

    Differs:
        `split: g4g` splits all three lists 8 to 2 at random, as the paper of G4G does: 38,531 clips for training and
        9,633 for testing; which ones it drew is not known. It says nothing of validation: as many clips as LRS2 has are
        taken out of training. Four in five of the official test clips are trained on, and most of the test clips are
        of the official training list: scores of the two splits do not compare, and results name the split.

    Args:
        root: prepared folder.
        split: whether the clips are split by the official lists or 8 to 2 at random.
        split_seed: of that drawing; apart from `seed`, so that another training run keeps the split.
        **kwargs: those of `ClipDataModule`.
    """

    name: str = "lrs2"
    videos = "main/{speaker}/{clip}"
    lists = True
    official_counts: ClassVar[Mapping[Split, int]] = {"train": 45839, "val": 1082, "test": 1243}

    def __init__(
        self, root: Path, split: Literal["official", "g4g"] = "official", split_seed: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(root, **kwargs)
        self.split, self.split_seed = split, split_seed

    def split_ids(self, prepared: Sequence[str]) -> dict[Split, list[str]]:
        lists = super().split_ids(prepared)
        if self.split == "official":
            return lists
        logger.warning("%s: G4G's split, %s: scores on the two do not compare", self.name, _LEAKS)
        drawn = shuffled([clip for ids in lists.values() for clip in ids], self.split_seed)
        test, val = _g4g_sizes(len(drawn))
        parts = drawn[test + val :], drawn[test : test + val], drawn[:test]
        return {split: sorted(part) for split, part in zip(SPLITS, parts, strict=True)}

    def expected_counts(self) -> Mapping[Split, int]:
        if self.split == "official":
            return self.official_counts
        clips = sum(self.official_counts.values())
        test, val = _g4g_sizes(clips)
        return {"train": clips - test - val, "val": val, "test": test}

    def split_name(self, split: Split) -> str:
        return split if self.split == "official" else f"{split} of g4g, {_LEAKS}"
