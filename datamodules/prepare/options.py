# SPDX-License-Identifier: Apache-2.0
"""The options of preparation, beside those of the face."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from cyclopts import Group, Parameter

from lipsync_bench.datamodules.datasets.dataset import dataset_names, find_dataset
from lipsync_bench.datamodules.faces.options import DetectorName
from lipsync_bench.datamodules.limits import MAX_CROP_PX, one_of, within
from lipsync_bench.datamodules.option_types import Whole, Words
from lipsync_bench.datamodules.recipes.values import Codec

if TYPE_CHECKING:
    DatasetName = str
else:
    DatasetName = Literal[tuple(dataset_names())]

__all__ = ["DatasetName", "PrepareOptions"]


@Parameter(name="*", group=Group("Preparation", sort_key=1))
@dataclass(frozen=True)
class PrepareOptions:
    """What is prepared, and how the run goes.

    Args:
        dataset: Layout of the source folder.
        max_crop_px: Longer side of a stored crop; larger ones are made smaller.
        boxes: Detectors whose boxes are added to the clips, as s3fd,dlib; those that a recipe needs are added anyway.
        track_codec: How the faces of recipes are stored: jpeg; jpeg420, with halved colours, which is decoded quicker;
            or raw, where disk is cheaper than processor.
        max_failures: Share of the clips (0 to 1) that may fail before the run ends with an error.
        workers: Processes; one for each core if not given. With 1 there is only this process. On Ray: clips at once.
        overwrite: Also prepare finished clips again.
        join: Prepare nothing; only join what slices have made, where the last of them did not.
    """

    dataset: DatasetName = "folder"
    max_crop_px: Whole = 512
    boxes: Words = ()
    track_codec: Codec = "jpeg"
    max_failures: float = 1.0
    workers: Whole | None = None
    overwrite: bool = False
    join: bool = False

    def __post_init__(self) -> None:
        find_dataset(self.dataset)
        for detector in self.boxes:
            one_of("boxes", detector, get_args(DetectorName))
        one_of("track_codec", self.track_codec, get_args(Codec))
        within("max_crop_px", self.max_crop_px, 1, MAX_CROP_PX)
        within("max_failures", self.max_failures, 0, 1)
        within("workers", self.workers, 1)
