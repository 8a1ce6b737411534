# SPDX-License-Identifier: Apache-2.0
"""LRS2: sentences from BBC television."""

from collections.abc import Mapping
from typing import ClassVar

from lipsync_bench.datamodules.clip_datamodule import ClipDataModule
from lipsync_bench.datamodules.datasets.splits import Split

__all__ = ["LRS2"]


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

    Args are those of `ClipDataModule`.
    """

    name: str = "lrs2"
    videos = "main/{speaker}/{clip}"
    lists = True
    official_counts: ClassVar[Mapping[Split, int]] = {"train": 45839, "val": 1082, "test": 1243}
