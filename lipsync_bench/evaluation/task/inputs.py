# SPDX-License-Identifier: Apache-2.0
"""What a row is measured from, and whether a row that is there already still says what a new measurement would."""

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from lipsync_bench.datamodules.clips.clip import ClipHeader
from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.evaluation.candidates import Candidate
from lipsync_bench.evaluation.features import has_files
from lipsync_bench.evaluation.target.regions import Regions
from lipsync_bench.evaluation.task.pairs import Pair
from lipsync_bench.metrics.registry import CLIP_COLUMNS
from lipsync_bench.results.rows import GROUND_TRUTH, IDENTITY

_MEASURED = {column.name for column in CLIP_COLUMNS}

__all__ = ["Standing", "clip_inputs", "identity_of", "target_sha256"]


def target_sha256(source_root: Path, header: ClipHeader) -> str:
    """`ClipHeader.source_sha256` as the clip's video is now; what it was where the video cannot be read.

    Frames are compared with that video and not with the clip, so that its content decides.
    """
    source = source_root / header.source
    prepared, plus, own_audio = header.source_sha256.partition("+")
    try:
        found = sha256(source) if source.is_file() else prepared
    except OSError:
        found = prepared
    return f"{found}{plus}{own_audio}"


def clip_inputs(target: str, regions: Regions, video: ClipHeader, audio: ClipHeader) -> dict[str, str]:
    """The fields of `INPUTS` that do not depend on the candidate.

    Args:
        target: As `target_sha256` gives it.
        regions: The detectors of the evaluation.
        video: Of the clip that is reproduced.
        audio: Of the clip that is audio.
    """
    return {
        "target_sha256": target,
        "audio_sha256": audio.source_sha256,
        "faces_sha256": regions.key(video, audio),
    }


def identity_of(protocol: str, candidate: Candidate, clip: str, audio_clip: str) -> tuple[str, ...]:
    """The fields of `IDENTITY` of a row."""
    return protocol, *candidate.entry, clip, audio_clip


class Standing:
    """Whether rows still hold, as the files are now. Each file is read once, so make a new one for another time.

    Args:
        source_root: As for `target_sha256`.
        regions: The detectors of the evaluation.
        candidates: Those of this run; rows of others stand and fall with their clips.
        headers: Of all clips.
        everything: All pairs of the data set; rows of others are of clips that are no more.
        chosen: Those of this run.
        out: The results folder.
        networks: Metric networks: pooled columns need files of each row there.
        again: Whether failed rows of this run are to be tried again.
    """

    def __init__(
        self,
        source_root: Path,
        regions: Regions,
        candidates: Sequence[Candidate],
        headers: Mapping[Path, ClipHeader],
        everything: Collection[Pair],
        chosen: Collection[Pair],
        out: Path,
        networks: Mapping[str, Any],
        again: bool = True,
    ) -> None:
        self._source_root, self._regions, self._again = source_root, regions, again
        self._out, self._networks = out, networks
        self._candidates = {c.entry: c for c in candidates}
        self._headers, self._chosen = headers, chosen
        self._pairs = {self._ids(pair): pair for pair in everything}
        self._own = {ids[0]: pair for ids, pair in self._pairs.items()}
        self._clip_inputs: dict[tuple[str, str], dict[str, str]] = {}
        self._predictions: dict[tuple[str, ...], str] = {}
        self._targets: dict[str, str] = {}

    def _ids(self, pair: Pair) -> tuple[str, str]:
        return self._headers[pair.video].id, self._headers[pair.audio].id

    @cached_property
    def expected(self) -> dict[tuple[str, ...], None]:
        """Identity of every row that this run is to have, in the order in which one process writes them."""
        out: dict[tuple[str, ...], None] = {}
        for pair in self._chosen:
            clip, audio_clip = self._ids(pair)
            for candidate in self._candidates.values():
                if not candidate.undubbed or audio_clip == clip or pair.first:
                    audio = clip if candidate.undubbed else audio_clip
                    out[identity_of(self._regions.protocol.key, candidate, clip, audio)] = None
        return out

    def __call__(self, row: Mapping[str, str]) -> bool:
        """Whether a row holds; its values are texts, as in the file."""
        ids = row["clip"], row["audio_clip"]
        undubbed = row["method"] == GROUND_TRUTH
        pair = self._own.get(row["clip"]) if undubbed else self._pairs.get(ids)
        if pair is None:
            return False
        if ids not in self._clip_inputs:
            video = self._headers[pair.video]
            audio = video if undubbed else self._headers[pair.audio]
            if video.id not in self._targets:
                self._targets[video.id] = target_sha256(self._source_root, video)
            self._clip_inputs[ids] = clip_inputs(self._targets[video.id], self._regions, video, audio)
        if any(row[name] != value for name, value in self._clip_inputs[ids].items()):
            return False
        entry = row["method"], row["generator_sha256"], row["paste"], row["recipe"]
        candidate = self._candidates.get(entry)
        if candidate is None:
            return True
        if row["status"] != "ok":
            return not self._again or tuple(row[name] for name in IDENTITY) not in self.expected
        if not row.keys() >= _MEASURED and tuple(row[name] for name in IDENTITY) in self.expected:
            return False  # a metric was installed since then
        return self._prediction(candidate, ids) == row["prediction_sha256"] and self._has_files(entry, ids, row)

    def _prediction(self, candidate: Candidate, ids: tuple[str, str]) -> str:
        key = (candidate.name, *ids)
        if key not in self._predictions:
            self._predictions[key] = candidate.prediction_sha256(*ids)
        return self._predictions[key]

    def _has_files(self, entry: tuple[str, str, str, str], ids: tuple[str, str], row: Mapping[str, str]) -> bool:
        crops = int(row["frames"]) - int(row["boxless_frames"])
        return has_files(self._out, self._networks, entry, *ids, crops)
