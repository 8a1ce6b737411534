# SPDX-License-Identifier: Apache-2.0
"""The interface of a metric: its description, its inputs (`ScoredClip`, `View`) and its scorer.

A metric is one file of this folder. It holds the mathematics and ends with what the evaluation uses:

    def scorer(clip: ScoredClip) -> Scorer | None:  # None where the metric does not apply
        return MyScorer() if clip.paired else None

    METRIC = Description(
        columns=(Column("mine", "Mine", "px", False, 3, (0, INF), "target", "paper, year"),), checked="golden arrays"
    )

`METRIC = ...` is the last statement and uses only literals and the names of this module: `metrics.registry` evaluates
that statement alone, so that reading a leaderboard does not import torchmetrics, which takes seconds. A file whose
description has `networks` also defines `load`, one with a pooled column `pool` and `is_complete`; see `Description`.
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

from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.foreign import Foreign

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
    """One number of a row or a leaderboard entry. One name has one definition.

    What it is measured on (crop, pairs, frame rate) is set by the protocol, whose name is in every row.

    Args:
        name: Key in clips.csv and leaderboard.csv.
        title: Heading in tables.
        unit: Unit of the value, empty for pure numbers.
        higher_is_better: None where neither direction is better (an offset).
        digits: Decimals in tables.
        bounds: Smallest and largest possible value.
        reference: What the prediction is compared with: "target" (the same frame of the real video), "audio" or "none".
        source: Paper or program that defines it; if empty, the description's `source`.
        kind: "clip": one value per clip, averaged. "pooled": one value of all clips together, absent from rows.
            "diagnostic": one value per clip that does not compare methods; shown only beside a paper's table.
        network: Name of the network that it needs; empty for a formula.
        order: Position among the columns; equal ones are sorted by file name. A new metric needs none and comes last.
        about: What a value says, for readers of tables; if empty, the description's.
    """

    name: str
    title: str
    unit: str
    higher_is_better: bool | None
    digits: int
    bounds: tuple[float, float]
    reference: Literal["target", "audio", "none"]
    source: str = ""
    kind: Literal["clip", "pooled", "diagnostic"] = "clip"
    network: str = ""
    order: int = 1000
    about: str = ""

    @property
    def meaning(self) -> str:
        """`about`, which side is better, and what the prediction is compared with."""
        better = {True: "Higher is better", False: "Lower is better", None: "Neither direction is better"}
        compared = {
            "target": "compared with the same frame of the real video",
            "audio": "compared with the audio",
            "none": "of the prediction alone",
        }
        rest = f"{better[self.higher_is_better]}; {compared[self.reference]}."
        return f"{self.about} {rest}" if self.about else rest

    @property
    def heading(self) -> str:
        """Title with unit and an arrow in the better direction."""
        arrow = {True: " ↑", False: " ↓", None: ""}[self.higher_is_better]
        return f"{self.title}{f' ({self.unit})' if self.unit else ''}{arrow}"


@dataclass(frozen=True)
class Field:
    """A further row field of a metric: its name, and a sentence that describes it."""

    name: str
    about: str


@dataclass(frozen=True)
class Network:
    """A network that a metric needs. Without its weights the metric is not computed.

    Args:
        name: Rows hold the SHA-256 of its weights as `NAME_sha256`.
        weights: Id of its file in the store of official weights (`bench weights list`).
        option: Without `weights`: what gives its file, the flag `--expert` or a name for `--metrics`.
        home: With a name for `--metrics`: the file that comes with an installed package, such as `package/models/FILE`.
        recorded: Whether rows hold the SHA-256.
        beside: Name of the network without which it is not used.
    """

    name: str
    weights: str = ""
    option: str = ""
    home: str = ""
    recorded: bool = True
    beside: str = ""

    @property
    def sha256_field(self) -> str:
        """Field of a row with the SHA-256 of the weights."""
        return f"{self.name}_sha256"


@dataclass(frozen=True)
class Description:
    """Everything that the rest of the suite knows about a metric.

    Args:
        columns: The numbers it computes.
        checked: What they are checked against, for the documentation.
        source: The source of columns that name none.
        about: What the value of each column says, by its name.
        counts: Its integer fields, such as the number of frames left out.
        curves: Its text fields of 31 numbers, one for each shift of the audio.
        networks: The networks whose weights it needs.
        files: Folder and suffix of the files that its scorers write for `pool`.
        module: The file's module; set by the registry.
        entry: Of a metric of another package; set by the registry.
    """

    columns: tuple[Column, ...]
    checked: str
    source: str = ""
    about: Mapping[str, str] = field(default_factory=dict, hash=False)
    counts: tuple[Field, ...] = ()
    curves: tuple[Field, ...] = ()
    networks: tuple[Network, ...] = ()
    files: tuple[str, str] = ("", "")
    module: str = ""
    entry: Foreign | None = None

    def __post_init__(self) -> None:
        columns = tuple(
            replace(c, source=c.source or self.source, about=c.about or self.about.get(c.name, ""))
            for c in self.columns
        )
        object.__setattr__(self, "columns", columns)

    @property
    def fields(self) -> set[str]:
        """Names of its fields of a row."""
        fields = {x.name for x in (*self.counts, *self.curves)}
        return fields.union((c.name for c in self.columns), (n.sha256_field for n in self.networks))

    def scorer(self, clip: "ScoredClip") -> "Scorer | None":
        """The file's `scorer(clip)`: a new scorer, or None where the metric does not apply."""
        if self.entry is not None:
            return _Guarded(self, self.entry, clip)
        scorer: Scorer | None = self._file().scorer(clip)
        return scorer

    def _file(self) -> Any:
        try:
            return import_module(self.module)
        except Exception as error:
            if self.entry is None:
                raise
            raise ValueError(
                f"{self.entry.package}: its metric cannot be imported ({type(error).__name__}: {error}). Expected a "
                "package that works. Correct it, or leave out its option"
            ) from error

    def load(self, network: Network, given: str | Path, device: str) -> tuple[Any, str]:
        """The file's `load(name, given, device)`: the network on its device, and the SHA-256 of its weights.

        Raises:
            FileNotFoundError: The weights are missing; the message says where they come from.
            ValueError: The file holds something else.
        """
        loaded: tuple[Any, str] = self._file().load(network.name, given, device)
        return loaded

    def pool(self, network: Any, pred: Sequence[Path], target: Sequence[Path]) -> tuple[float, int]:
        """The file's `pool(network, pred, target)`: the value of all clips together, and the number of frames.

        `pred` and `target` are the files that its scorers wrote.
        """
        pooled: tuple[float, int] = self._file().pool(network, pred, target)
        return pooled

    def is_complete(self, network: Any, path: Path, crops: int) -> bool:
        """The file's `is_complete(network, path, crops)`: whether a file of a scorer holds what `pool` needs.

        `crops` is the number of crops that the scorer was given.
        """
        complete: bool = self._file().is_complete(network, path, crops)
        return complete


class Audio:
    """The audio that a clip is scored with, read at its first use and shared by all candidates scored with it.

    Args:
        samples: Returns int16 (S,), 16 kHz.
        mel: Returns float32 (80, M), 80 columns a second.
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
        """What a metric derives from the audio (such as embeddings), made once under this name for all candidates."""
        if name not in self._shared:
            self._shared[name] = make(self)
        return self._shared[name]


@dataclass(frozen=True)
class ScoredClip:
    """One candidate on one clip: what is known before its frames.

    Args:
        paired: Whether there is a target to compare with, frame by frame.
        audio: The audio that the frames are scored with.
        networks: The loaded networks, by name.
        path: `path(folder, suffix)` is where a file is kept that belongs to this row. A scorer writes it under a
            temporary name and renames it in `close`; the file of an earlier row has been removed.
        video: The candidate's video, if it is a file.
        face_tracks: Whether the data set's frames are so large that SyncNet needs face tracks, which take long to find.
    """

    paired: bool
    audio: Audio
    networks: Mapping[str, Any]
    path: Callable[[str, str], Path]
    video: Path | None = None
    face_tracks: bool = False


@dataclass(frozen=True, eq=False)
class View:
    """The next frames of a clip, of candidate and target: N frames, K of them with a crop of both.

    Args:
        is_target: Whether the candidate is the target itself, so that known values need not be computed.
        frames: The candidate's whole frames, uint8 RGB (H, W, 3).
        target_frames: The target's whole frames.
        face_boxes: (N, 4) the clip's face boxes, pixels of the frames.
        crops: K crops of the candidate as the protocol compares them, uint8 RGB.
        target_crops: The target's crops.
        lips: (K, 68, 2) the clip's stored landmarks in crop pixels, which locate the mouth region.
        mouth_margin: Added to the lips on each side, as a fraction of their width.
        landmarks: (N, 68, 2) dlib's points of the candidate, pixels of the crop, NaN without a crop.
        target_landmarks: The same of the target.
        frame_landmarks: (N, 68, 2) dlib's points of the candidate, pixels of the frames.
        target_frame_landmarks: The same of the target.
        face_found: bool (N,), whether a face was found in the candidate's frame.
        shared: What metrics computed from the target's frames, by metric; other candidates reuse it.
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
    face_found: np.ndarray
    shared: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def mouths(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The mouth regions of candidate and target, for each crop whose lips are known."""
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
        size_hw: Height and width of the crop.
        margin: Added on each side, as a fraction of the lips' width.
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
        """Take the next frames into account."""

    @abstractmethod
    def result(self) -> dict[str, Value]:
        """Values by the names of columns and fields; called once, at the end.

        Raises:
            MediaError: The clip cannot be scored, such as one that is too short.
        """

    def close(self, keep: bool) -> None:  # noqa: B027 (most write nothing)
        """Finish the row: keep the files written for it, or remove them."""


class _Guarded(Scorer):
    """A scorer of another package. Its errors are warnings and leave its values empty; a MediaError fails the clip."""

    def __init__(self, description: Description, entry: Foreign, clip: ScoredClip) -> None:
        self._entry = entry
        self._fields = description.fields
        self._scorer: Scorer | None = None
        self._scorer = self._run(lambda: import_module(description.module).scorer(clip))

    def _run(self, call: Callable[[], Any]) -> Any:
        failed: MediaError | None = None
        with self._entry.warned():
            try:
                return call()
            except MediaError as error:
                failed = error
        self._scorer = None  # not asked again
        if failed is not None:
            raise failed
        return None

    def update(self, view: View) -> None:
        scorer = self._scorer
        if scorer is not None:
            self._run(lambda: scorer.update(view))

    def _result(self, scorer: Scorer) -> dict[str, Value]:
        values = scorer.result()
        if unknown := sorted(set(values) - self._fields):
            raise ValueError(f"values for {', '.join(unknown)}, expected those of its description")
        return values

    def result(self) -> dict[str, Value]:
        scorer = self._scorer
        return (self._run(lambda: self._result(scorer)) or {}) if scorer is not None else {}

    def close(self, keep: bool) -> None:
        scorer = self._scorer
        if scorer is not None:
            self._run(lambda: scorer.close(keep))


class FrameScorer(Scorer):
    """A scorer whose columns are means of one value per frame, over the frames where it is finite."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}  # floats, because small arrays would fragment the heap

    def add(self, column: str, values: np.ndarray) -> None:
        """Add the values of the next frames: (N,), NaN or infinite for those outside the mean."""
        self._values.setdefault(column, []).extend(values.tolist())

    def values(self, column: str) -> np.ndarray:
        """All values so far."""
        return np.array(self._values.get(column, []))

    def result(self) -> dict[str, Value]:
        """The means; without any finite value inf if one was infinite, else None."""
        out: dict[str, Value] = {}
        for name in self._values:
            values = self.values(name)
            usable = values[np.isfinite(values)]
            if len(usable):
                out[name] = float(usable.mean())
            else:
                out[name] = INF if np.isinf(values).any() else None
        return out
