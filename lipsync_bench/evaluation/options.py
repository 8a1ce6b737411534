# SPDX-License-Identifier: Apache-2.0
"""The options of an evaluation, in groups: declared and documented here, for the shell and for Python."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter, Token

from lipsync_bench.datamodules.limits import within
from lipsync_bench.datamodules.option_types import Whole, Words

__all__ = ["Inputs", "MetricOptions", "Rules", "Running", "Selection"]


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
        methods: Weights of each method, as --methods.wav2lip PATH: a checkpoint or an official file; or official for
            the official file of that name in the store (official:ID for another), or pretrained for the small Wav2Lip
            that comes with the package. Added to the benchmark's, or replacing them.
        pred: Folder of generated videos, as DIR or NAME=DIR; may be given several times. With --target they are
            compared with its videos, else each is one more method, whose files are named like the clips.
    """

    root: Path | None = None
    methods: Annotated[dict[str, Path], Parameter(converter=_checkpoints)] = field(default_factory=dict)
    pred: Annotated[dict[str, Path], Parameter(converter=_folders, n_tokens=-1)] = field(default_factory=dict)


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


@Parameter(name="*", group=Group("Metrics", sort_key=4))
@dataclass(frozen=True)
class MetricOptions:
    """What is measured beyond the metrics that need no weights, and those whose official weights are here.

    Args:
        expert: Checkpoint of a sync expert of this suite; its columns are called expert_*, never LSE.
        metrics: Metrics that take long and are computed only if named, with commas between: csim_dlib (identity).
            A name may be followed by =FILE, the weights that it is computed with instead of those installed.
    """

    expert: Path | None = None
    metrics: Annotated[dict[str, str], Parameter(converter=_files, n_tokens=-1)] = field(default_factory=dict)


@Parameter(name="*", group=Group("The run", sort_key=5))
@dataclass(frozen=True)
class Running:
    """How an evaluation runs, and what it keeps.

    Args:
        save_videos: Save the scored videos, for the players of bench report.
        device: auto, cpu or cuda:N.
        command_workers: Commands of other repositories that run at once, where the benchmark states such methods.
        devices: Processes that share the work on this machine, one a GPU; on Ray: slices, one a GPU if not given.
    """

    save_videos: bool = False
    device: str = "auto"
    command_workers: Whole = 1
    devices: Whole | None = None

    def __post_init__(self) -> None:
        within("command_workers", self.command_workers, 1)
        within("devices", self.devices, 1)
