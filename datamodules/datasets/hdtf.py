# SPDX-License-Identifier: Apache-2.0
"""HDTF: politicians, reporters and speakers in videos of 720p and 1080p."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from lipsync_bench.datamodules.datasets.folder import ClipFolder
from lipsync_bench.datamodules.datasets.splits import Split

CLIPS, SQUARES = 436, 421
"""How many clips the published lists name, of 369 videos, and how many of them have a square."""

__all__ = ["HDTF", "HDTF512"]


class HDTF(ClipFolder):
    """HDTF: 436 clips of 369 videos, 17 hours, whole frames of 720p and 1080p.

    As `bench prepare --dataset hdtf --source DIR --out ROOT` expects it: the published lists in DIR or in
    DIR/HDTF_dataset, and below DIR, in any folders, the videos as they were downloaded, each under its listed name, or
    the clips as HDTF's own script cuts them::

        RD_annotion_time.txt, WDA_annotion_time.txt, WRA_annotion_time.txt      which parts of which videos are clips
        <video>.mp4                                                 e.g. Radio11.mp4, which has two clips
        <video>_<index>.mp4                                         or its clips: Radio11_0.mp4, Radio11_1.mp4

    and prepared::

        <root>/videos/<speaker>/<video>_<index>.<part>.mp4          what was cut out of a longer video, at 25 fps
        <root>/<speaker>/<video>_<index>.safetensors

    VideoReTalking and G4G see whole frames; the squares of 512 x 512 that the data set's own form has are `hdtf_512`.

    Splits: none are published. Speakers are drawn by `split_seed`; a speaker is a video's name without the digits at
    its end, because several videos show one person. All videos of the part RD are called Radio and so are one speaker.
    Videos on the web disappear: the number of clips that are there is told, and stands in results.
    Licence: of the lists, CC BY 4.0; the videos are their owners'. How to obtain: https://github.com/MRzzm/HDTF

    References: Zhang, Li, Ding, Fan, "Flow-guided One-shot Talking Face Generation with a High-resolution Audio-visual
    Dataset", CVPR 2021.

    Args:
        root: prepared folder.
        val_fraction: share of the speakers for validation.
        test_fraction: share of the speakers for testing.
        split_seed: of the drawing; apart from `seed`, so that another training run keeps the split.
        check_counts: whether other than 436 clips are an error or a warning.
        **kwargs: those of `ClipDataModule`.
    """

    name: str = "hdtf"
    videos = ""
    stamps: ClassVar[Literal["", "whole", "squares"]] = "whole"
    clips_listed = CLIPS

    def __init__(
        self,
        root: Path,
        val_fraction: float = 0.05,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        check_counts: Literal["error", "warn"] = "warn",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            root,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            split_by="speaker",
            split_seed=split_seed,
            **kwargs,
        )
        self.check_counts = check_counts

    def split_ids(self, prepared: Sequence[str]) -> dict[Split, list[str]]:
        if len(prepared) != self.clips_listed:
            self._told(
                f"{self.name}: {len(prepared)} clips in {self.root}. Expected the {self.clips_listed} of the published "
                "lists; failures.csv there says why others are missing. Run bench prepare again, or set "
                "--data.init_args.check_counts warn."
            )
        return super().split_ids(prepared)


class HDTF512(HDTF):
    """HDTF as its own script leaves it: the 421 clips that have a square, cut out and resized to 512 x 512.

    Prepared by `bench prepare --dataset hdtf_512` from the same folder as `HDTF`, with the lists *_crop_wh.txt and
    *_resolution.txt: a square is told for frames of a certain height, and a video of another height is a failure.
    """

    name: str = "hdtf_512"
    videos = ""
    stamps = "squares"
    clips_listed = SQUARES
