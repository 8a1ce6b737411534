# SPDX-License-Identifier: Apache-2.0
"""What a metric is: its one description, what it is shown of a clip, and what it gives back.

A metric is one file of this folder. It holds the mathematics, and ends with what the evaluation uses:

    def scorer(clip: ScoredClip) -> Scorer | None:  # None where the metric does not apply
        return MyScorer() if clip.paired else None

    METRIC = Description(
        columns=(Column("mine", "Mine", "px", False, 3, (0, INF), "target", "paper, year"),), checked="golden arrays"
    )

`METRIC = ...` is the last statement, and uses the names of this module and literals alone: `metrics.registry` runs
that statement by itself. So nobody who reads a leaderboard waits for torchmetrics, which takes seconds to import. A
file whose description has `networks` also defines `load`, one with a pooled column `pool` and `whole`; see
`Description`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np

__all__ = [
    "INF",
    "LIPS",
    "Audio",
    "Column",
    "Description",
    "Field",
    "FrameScorer",
    "Network",
    "ScoredClip",
    "Scorer",
    "Value",
    "View",
    "mouth_box",
]

INF = math.inf
LIPS = slice(48, 68)  # of the 68-point iBUG scheme
MOUTH_MIN_PX = 16  # SSIM's window is 11 px wide
Value = float | int | str | None


@dataclass(frozen=True)
class Column:
    """One number that a row or a leaderboard can hold. One name, one definition.

    What it is measured on (crop, pairs, frame rate) is the protocol's affair and stands beside it in every row.

    Args:
        name: Key in clips.csv and leaderboard.csv.
        title: Heading in tables.
        unit: Unit of the value, empty for pure numbers.
        higher_is_better: None where a value has no better side (an offset).
        digits: Digits behind the point in tables.
        bounds: Least and greatest possible value.
        reference: What the value is compared with: "target" (the same frame of the real video), "sound" (the audio) or
            "none" (the prediction alone).
        source: Paper or program whose definition it is; of a description's columns, its own if empty.
        kind: "clip": one value a clip, averaged. "pooled": all clips together make one value, which no row has.
            "diagnostic": one value a clip that compares no methods; shown only beside a paper's table.
        network: Name of the network that it needs; empty for a formula.
        order: Place among the columns; equal ones by file name. The order of files that exist cannot be told from
            their names, so theirs is written down. A new metric needs none and stands behind them.
    """

    name: str
    title: str
    unit: str
    higher_is_better: bool | None
    digits: int
    bounds: tuple[float, float]
    reference: Literal["target", "sound", "none"]
    source: str = ""
    kind: Literal["clip", "pooled", "diagnostic"] = "clip"
    network: str = ""
    order: int = 1000

    @property
    def heading(self) -> str:
        """Title with unit and an arrow to the better side."""
        arrow = {True: " ↑", False: " ↓", None: ""}[self.higher_is_better]
        return f"{self.title}{f' ({self.unit})' if self.unit else ''}{arrow}"


@dataclass(frozen=True)
class Field:
    """Another field of a row that belongs to a metric: its name, and a sentence on what it holds."""

    name: str
    about: str


@dataclass(frozen=True)
class Network:
    """A network that a metric needs. Without its weights the metric is not computed.

    Args:
        name: Rows hold the SHA-256 of its weights as `NAME_sha256`.
        option: What gives the weights: a field of `ScorerFiles`, which is also a flag of `bench evaluate`; or else a
            name for `--metrics`. Several networks may share one; then any of them is enough.
        file: Name of the file with its weights; empty where any will do.
        home: Where a copy may lie that needs no path: "torchvision" (the cache of its downloads), or the folder of an
            installed package such as `package/models`.
        recorded: Whether rows hold the SHA-256.
        beside: Option that has to be given as well.
    """

    name: str
    option: str
    file: str = ""
    home: str = ""
    recorded: bool = True
    beside: str = ""

    @property
    def sha256_field(self) -> str:
        """Field of a row with the SHA-256 of the weights."""
        return f"{self.name}_sha256"


@dataclass(frozen=True)
class Description:
    """What the rest of the suite knows of a metric's file.

    Args:
        columns: The numbers it gives.
        checked: What they are checked against, for the documentation.
        source: Of the columns that name none.
        counts: Whole numbers beside them, such as frames that were left out.
        curves: Texts of 31 numbers beside them, one for each shift of the audio.
        networks: Whose weights it needs.
        files: Folder and suffix of the files that its scorers leave for `pool`.
        module: Of the file; set by the registry.
    """

    columns: tuple[Column, ...]
    checked: str
    source: str = ""
    counts: tuple[Field, ...] = ()
    curves: tuple[Field, ...] = ()
    networks: tuple[Network, ...] = ()
    files: tuple[str, str] = ("", "")
    module: str = ""

    def __post_init__(self) -> None:
        columns = tuple(replace(column, source=column.source or self.source) for column in self.columns)
        object.__setattr__(self, "columns", columns)

    def scorer(self, clip: "ScoredClip") -> "Scorer | None":
        """The file's `scorer(clip)`: a new scorer, or None where the metric does not apply."""
        scorer: Scorer | None = import_module(self.module).scorer(clip)
        return scorer

    def load(self, network: Network, given: str | Path, device: str) -> tuple[Any, str]:
        """The file's `load(name, given, device)`: the network on its device, and the SHA-256 of its weights.

        Raises:
            FileNotFoundError: There are no such weights; says where they come from.
            ValueError: The file holds something else.
        """
        loaded: tuple[Any, str] = import_module(self.module).load(network.name, given, device)
        return loaded

    def pool(self, network: Any, pred: Sequence[Path], target: Sequence[Path]) -> tuple[float, int]:
        """The file's `pool(network, pred, target)`: the value of all clips together, and the number of frames.

        `pred` and `target` are the files that its scorers left.
        """
        pooled: tuple[float, int] = import_module(self.module).pool(network, pred, target)
        return pooled

    def whole(self, network: Any, path: Path, crops: int) -> bool:
        """The file's `whole(network, path, crops)`: whether a file that a scorer left holds what `pool` needs.

        `crops` is how many the scorer was shown.
        """
        whole: bool = import_module(self.module).whole(network, path, crops)
        return whole


class Audio:
    """The audio that a clip is scored with, read once, when it is first needed, for all candidates that share it.

    Args:
        samples: Gives int16 (S,), 16 kHz.
        mel: Gives float32 (80, M), 80 columns a second.
    """

    def __init__(self, samples: Callable[[], np.ndarray], mel: Callable[[], np.ndarray]) -> None:
        self._read_samples, self._read_mel = samples, mel
        self._shared: dict[str, Any] = {}

    @cached_property
    def samples(self) -> np.ndarray:
        """int16 (S,), 16 kHz."""
        return self._read_samples()

    @cached_property
    def mel(self) -> np.ndarray:
        """float32 (80, M)."""
        return self._read_mel()

    def shared(self, name: str, make: Callable[["Audio"], Any]) -> Any:
        """What a metric makes of the audio, made once under this name for all candidates."""
        if name not in self._shared:
            self._shared[name] = make(self)
        return self._shared[name]


@dataclass(frozen=True)
class ScoredClip:
    """One candidate on one clip, before its frames come.

    Args:
        paired: Whether there is a target to compare with, frame by frame.
        audio: What is heard with the frames.
        networks: Those that were loaded, by name.
        path: Where a file that belongs to this row and outlives it is: `path(folder, suffix)`. It is written under
            another name and renamed in `Scorer.close`; that of an earlier row is gone.
        video: The candidate's video, if it is a file.
    """

    paired: bool
    audio: Audio
    networks: Mapping[str, Any]
    path: Callable[[str, str], Path]
    video: Path | None = None


@dataclass(frozen=True, eq=False)
class View:
    """The next frames of a clip, as many of the candidate as of the target: N frames, K of them with a crop of both.

    Args:
        is_target: Whether the candidate is the target itself: then nothing has to be computed that is known.
        frames: The candidate's whole frames, uint8 RGB (H, W, 3).
        target_frames: The target's.
        face_boxes: (N, 4) the clip's face boxes, pixels of the frames.
        crops: K crops of the candidate as the protocol compares them, uint8 RGB.
        target_crops: The target's.
        lips: (K, 68, 2) the clip's stored landmarks in crop pixels: they place the mouth region.
        mouth_margin: Added to the lips on each side, as a share of their width.
        landmarks: (N, 68, 2) dlib's points of the candidate, pixels of the crop, NaN where there is none.
        target_landmarks: The target's.
        frame_landmarks: (N, 68, 2) the candidate's, pixels of the frames.
        target_frame_landmarks: The target's.
        seen: bool (N,), whether there is a face.
        shared: What metrics found in the target's frames, under their names: the other candidates need it too.
    """

    is_target: bool
    frames: Sequence[np.ndarray]
    target_frames: Sequence[np.ndarray]
    face_boxes: np.ndarray
    crops: Sequence[np.ndarray]
    target_crops: Sequence[np.ndarray]
    lips: np.ndarray
    mouth_margin: float
    landmarks: np.ndarray
    target_landmarks: np.ndarray
    frame_landmarks: np.ndarray
    target_frame_landmarks: np.ndarray
    seen: np.ndarray
    shared: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def mouths(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The mouth region of candidate and target, of each crop whose lips are known."""
        out = []
        for pred, target, points in zip(self.crops, self.target_crops, self.lips, strict=True):
            if np.isfinite(points[LIPS]).all():
                x1, y1, x2, y2 = mouth_box(points, (pred.shape[0], pred.shape[1]), self.mouth_margin)
                out.append((pred[y1:y2, x1:x2], target[y1:y2, x1:x2]))
        return out


def mouth_box(points: np.ndarray, size_hw: tuple[int, int], margin: float) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 of the mouth region in a crop.

    Args:
        points: (68, 2) landmarks, crop pixels.
        size_hw: Of the crop.
        margin: Added on each side, as a share of the lips' width.
    """
    lips = points[LIPS]
    pad = margin * (lips[:, 0].max() - lips[:, 0].min())
    low, high = lips.min(axis=0) - pad, lips.max(axis=0) + pad
    short = np.maximum(MOUTH_MIN_PX - (high - low), 0) / 2
    size = np.array(size_hw[::-1])
    x1, y1 = np.clip(np.floor(low - short), 0, size - MOUTH_MIN_PX).astype(int)
    x2, y2 = np.clip(np.ceil(high + short), (x1 + MOUTH_MIN_PX, y1 + MOUTH_MIN_PX), size).astype(int)
    return int(x1), int(y1), int(x2), int(y2)


class Scorer(ABC):
    """Computes a metric of one candidate on one clip, chunk by chunk, in bounded memory."""

    @abstractmethod
    def update(self, view: View) -> None:
        """Look at the next frames."""

    @abstractmethod
    def result(self) -> dict[str, Value]:
        """Values by the names of columns and fields; called once, at the end.

        Raises:
            MediaError: The clip cannot be scored, such as one that is too short.
        """

    def close(self, keep: bool) -> None:  # noqa: B027 (most write nothing)
        """The row is finished; keep what was written beside it, or leave nothing."""


class FrameScorer(Scorer):
    """A scorer whose columns are means of one value a frame, over the frames with a finite one."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}  # numbers, not arrays: small arrays pin the heap between big ones

    def add(self, column: str, values: np.ndarray) -> None:
        """Add the values of the next frames: (N,), NaN or infinite for those outside the mean."""
        self._values.setdefault(column, []).extend(values.tolist())

    def values(self, column: str) -> np.ndarray:
        """All values so far."""
        return np.array(self._values.get(column, []))

    def result(self) -> dict[str, Value]:
        """The means. Without a finite value: infinite if any was, else None."""
        out: dict[str, Value] = {}
        for name in self._values:
            values = self.values(name)
            usable = values[np.isfinite(values)]
            if len(usable):
                out[name] = float(usable.mean())
            else:
                out[name] = INF if np.isinf(values).any() else None
        return out
