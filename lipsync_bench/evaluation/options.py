# SPDX-License-Identifier: Apache-2.0
"""The options of an evaluation, in groups: declared and documented here, for the shell and for Python."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter, Token

from lipsync_bench.datamodules.limits import within
from lipsync_bench.datamodules.option_types import Whole, Words

__all__ = ["WEIGHT_OPTIONS", "Inputs", "Rules", "Running", "ScorerFiles", "Selection"]


_Given = Sequence[Token] | dict[str, Sequence[Token]]


def _checkpoints(kind: object, given: _Given) -> dict[str, Path]:
    """From `--methods.NAME PATH`."""
    if not isinstance(given, dict):
        raise ValueError(
            f"{given[0].value!r} without a name. Expected --methods.NAME PATH; --only NAME,NAME takes some methods"
        )
    return {name: Path(tokens[-1].value) for name, tokens in given.items()}


def _folders(kind: object, given: _Given) -> dict[str, Path]:
    """From `NAME=DIR` or `DIR` each; the folder's own name where none is given."""
    if isinstance(given, dict):
        return _checkpoints(kind, given)
    out: dict[str, Path] = {}
    for text in (token.value for token in given):
        name, equals, folder = text.partition("=")
        path = Path(folder) if equals and not os.path.isdir(text) else Path(text)  # noqa: PTH112 (raises for long ones)
        name = name if path != Path(text) else path.resolve().name
        if name in out or not name:
            raise ValueError(f"{text}: {name or 'no name'!r} twice. Expected a name of its own: --pred NAME=DIR")
        out[name] = path
    return out


def _files(kind: object, given: _Given) -> dict[str, str]:
    """From `NAME=FILE` or `NAME`, several with commas between."""
    if isinstance(given, dict):
        return {name: tokens[-1].value for name, tokens in given.items()}
    words = (word.strip() for token in given for word in token.value.split(",") if word.strip())
    return {name: file for name, _, file in (word.partition("=") for word in words)}


@Parameter(name="*", group=Group("What is evaluated", sort_key=1))
@dataclass(frozen=True)
class Inputs:
    """The files that are evaluated.

    Args:
        root: Folder of prepared clips, instead of the benchmark's.
        methods: Checkpoint of each method, as --methods.wav2lip PATH, added to the benchmark's or replacing them.
        pred: Folder of generated videos, as DIR or NAME=DIR; may be given several times. With --target they are
            compared with its videos, else each is one more method, whose files are named like the clips.
        parsing: Weights of the face parser (face_segmentation.pth), for methods that are pasted through a face mask
            (HyperLips); without them the mask is the Face Mesh contour. Each row says which.
    """

    root: Path | None = None
    methods: Annotated[dict[str, Path], Parameter(converter=_checkpoints)] = field(default_factory=dict)
    pred: Annotated[dict[str, Path], Parameter(converter=_folders, n_tokens=-1)] = field(default_factory=dict)
    parsing: Path | None = None


@Parameter(name="*", group=Group("Rules", sort_key=2))
@dataclass(frozen=True)
class Rules:
    """How clips are drawn, paired, cut and compared.

    Args:
        protocol: A name of experiments/protocols/ (hyperlips, videoretalking, g4g, lipformer ...) or the path of a
            YAML; if not given paired_face_box for a data set, video_pairs_face_box for videos.
        pairs: List of pairs, "audio video" a line, for unpaired protocols.
        split: Clips that are scored, instead of the benchmark's.
    """

    protocol: str | None = None
    pairs: Path | None = None
    split: Literal["train", "val", "test"] | None = None


@Parameter(name="*", group=Group("Which part", sort_key=3))
@dataclass(frozen=True)
class Selection:
    """A part of an evaluation; the rest can follow later in the same folder.

    Args:
        limit: Only the first clips (pairs).
        only: Only these methods, with commas between; the ground truth is always included.
        clips: Only clips whose id is one of these or fits one of these patterns, such as 'S1/*', with commas between.
    """

    limit: Whole | None = None
    only: Words = ()
    clips: Words = ()

    def __post_init__(self) -> None:
        within("limit", self.limit, 1)


@Parameter(name="*", group=Group("Networks of metrics", sort_key=4))
@dataclass(frozen=True)
class ScorerFiles:
    """Weights of the metric networks; a metric whose weights are not given is not computed.

    Args:
        syncnet: Official SyncNet weights (syncnet_v2.model), for LSE.
        syncnet_s3fd: Official detector weights of the SyncNet pipeline (sfd_face.pth); with both, LSE is also computed
            on face tracks.
        expert: Checkpoint of a sync expert of this suite; its columns are called expert_*, never LSE.
        lpips: Folder with alexnet-owt-7be5be79.pth or vgg16-397923af.pth or both, or torchvision for its cache of
            downloads.
        inception: Folder with pt_inception-2015-12-05-6726825d.pth, or torchvision; for FID.
        detector_weights: S3FD's weights (s3fd-619a316812.pth), for protocols that cut by its boxes.
        metrics: Metrics that take long and are computed only if named, with commas between: csim_dlib (identity).
            A name may be followed by =FILE, the weights that it is computed with instead of those installed.
    """

    syncnet: Path | None = None
    syncnet_s3fd: Path | None = None
    expert: Path | None = None
    lpips: str | None = None
    inception: str | None = None
    detector_weights: Path | None = None
    metrics: Annotated[dict[str, str], Parameter(converter=_files, n_tokens=-1)] = field(default_factory=dict)

    def given(self, option: str) -> str | Path | None:
        """The value given for an option of a network; None if it was not given."""
        given: str | Path | None = getattr(self, option) if option in WEIGHT_OPTIONS else self.metrics.get(option)
        return given


WEIGHT_OPTIONS = {field.name for field in fields(ScorerFiles)} - {"metrics"}
"""Options of networks; those of other networks are names of `metrics`."""


@Parameter(name="*", group=Group("The run", sort_key=5))
@dataclass(frozen=True)
class Running:
    """How an evaluation runs, and what it keeps.

    Args:
        save_videos: Save the scored videos, for the players of bench report.
        device: auto, cpu or cuda:N.
        devices: Processes that share the work on this machine, one a GPU; on Ray: slices, one a GPU if not given.
    """

    save_videos: bool = False
    device: str = "auto"
    devices: Whole | None = None

    def __post_init__(self) -> None:
        within("devices", self.devices, 1)
