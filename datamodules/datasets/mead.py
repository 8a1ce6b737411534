# SPDX-License-Identifier: Apache-2.0
"""MEAD: actors speaking in a studio; the neutral part that HyperLips calls MEAD-Neutral."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from lipsync_bench.datamodules.clip_datamodule import ClipDataModule
from lipsync_bench.datamodules.datasets.folder import shuffled
from lipsync_bench.datamodules.datasets.splits import Split

CLIPS_PER_SPEAKER = 35
_REGULAR = frozenset(range(6, 41))
_OTHER = frozenset(
    number
    for first, last in (
        (9, 9),
        (13, 15),
        (19, 22),
        (27, 29),
        (33, 35),
        (39, 42),
        (47, 50),
        (55, 57),
        (61, 64),
        (69, 71),
        (75, 77),
    )
    for number in range(first, last + 1)
)
_OTHER_SPEAKERS = frozenset(
    [f"M{number:03d}" for number in (37, 39, 40, 41, 42)]
    + [f"W{number:03d}" for number in (21, 23, 24, 25, 26, 28, 29, 33, 35, 36, 37, 38, 40)]
)
_VAL_SHARE = 210 / 1610
_TEST_SHARE = 80 / 230

logger = logging.getLogger(__name__)

__all__ = ["MEAD", "selected_numbers"]


def selected_numbers(speaker: str, highest: int = 0) -> frozenset[int]:
    """The 35 numbers of a speaker's neutral clips in MEAD-Neutral.

    Args:
        speaker: `M003`, `W011`, ...
        highest: the highest number among the speaker's neutral clips. Most speakers have 1 to 40; those with higher
            ones are numbered otherwise.
    """
    return _OTHER if speaker in _OTHER_SPEAKERS or highest > 40 else _REGULAR


def _number(name: str) -> int:
    digits = re.search(r"\d+$", name)
    if digits is None:
        raise ValueError(
            f"mead: found clip {name}. Expected <speaker>/<name ending in the clip's number>, such as M003/006. "
            "Run: bench prepare --dataset mead"
        )
    return int(digits[0])


class MEAD(ClipDataModule):
    """MEAD-Neutral: 46 speakers (26 men, 20 women) x 35 neutral clips, seen from the front, level 1.

    As it comes, and as `bench prepare --dataset mead --source DIR --out ROOT` expects it in DIR::

        <speaker>/video/front/neutral/level_1/<number>.mp4      e.g. M003/video/front/neutral/level_1/006.mp4
        <speaker>/audio/neutral/level_1/<number>.m4a

    and prepared, without split lists::

        <root>/manifest.json
        <root>/<speaker>/<number>.safetensors

    Size: the whole of MEAD has 60 speakers, 8 emotions at 3 levels, 7 views; about 40 neutral front clips a speaker,
    1920 x 1080 at 30 fps.
    Splits: HyperLips has 1,400 training and 210 validation clips, drawn at random from the same 46 speakers: clips 6 to
    40 of most, and as many of those whose clips are numbered otherwise. Its tests took 80 further clips, outside these
    1,610.
    Licence: for research alone, on application. How to obtain: https://wywu.github.io/projects/MEAD/MEAD.html

    References: Wang, Wu, Song, Yang, Wu, Qian, He, Qiao, Loy, "MEAD: A Large-scale Audio-visual Dataset for Emotional
    Talking-face Generation", ECCV 2020. Selection: Chen, Yao, Li, Wang, Zhang, Yang, Wen, "HyperLips: Hyper Control
    Lips with High Resolution Decoder for Talking Face Generation", 2023, https://arxiv.org/abs/2310.05720.

    Differs:
        Which clips HyperLips drew for validation and for testing is not known. Here val and train are drawn from the
        selection by `split_seed` in the published proportion, 210 in 1,610. Test clips are drawn from the neutral clips
        outside the selection (five a speaker, 230), 80 in 230, so that the published weights were not trained on them.
        Not all of the 46 speakers are named: all that are found are taken, unless `speakers` names them.

    Args:
        root: prepared folder.
        speakers: speakers to use; without it all that were prepared.
        split_seed: of the drawing; apart from `seed`, so that another training run keeps the split.
        check_counts: whether other than 1,400, 210 and 80 clips are an error or a warning.
        **kwargs: those of `ClipDataModule`.
    """

    name: str = "mead"
    videos = "{speaker}/video/front/neutral/level_1/{clip}"
    audio = "{speaker}/audio/neutral/level_1/{clip}.m4a"
    official_counts: ClassVar[Mapping[Split, int]] = {"train": 1400, "val": 210, "test": 80}

    def __init__(
        self,
        root: Path,
        speakers: list[str] | None = None,
        split_seed: int = 0,
        check_counts: Literal["error", "warn"] = "warn",
        **kwargs: Any,
    ) -> None:
        super().__init__(root, check_counts=check_counts, **kwargs)
        self.speakers, self.split_seed = speakers, split_seed

    def split_ids(self, prepared: Sequence[str]) -> dict[Split, list[str]]:
        names: dict[str, dict[int, str]] = {}
        for clip in prepared:
            names.setdefault(clip.partition("/")[0], {})[_number(clip)] = clip
        speakers = sorted(names) if self.speakers is None else self.speakers
        unknown = [speaker for speaker in speakers if speaker not in names]
        if unknown:
            raise ValueError(
                f"{self.name}: no clips of {', '.join(unknown)} in {self.root}. Expected some of {', '.join(names)}. "
                "Correct --data.init_args.speakers."
            )
        selected, others = [], []
        for speaker in speakers:
            numbers = selected_numbers(speaker, max(names[speaker]))
            # A selected clip that was not prepared keeps its place in the draw and is counted as missing.
            selected += [names[speaker].get(number, f"{speaker}/{number:03d}") for number in sorted(numbers)]
            others += [name for number, name in names[speaker].items() if number not in numbers]
        drawn, held_out = shuffled(selected, self.split_seed), shuffled(others, self.split_seed)
        val = round(_VAL_SHARE * len(drawn))
        return {
            "train": sorted(drawn[val:]),
            "val": sorted(drawn[:val]),
            "test": sorted(held_out[: round(_TEST_SHARE * len(held_out))]),
        }
