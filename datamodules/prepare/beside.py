# SPDX-License-Identifier: Apache-2.0
"""What lies beside a clip: boxes of further detectors and tracks of recipes. Makes what is missing of it.

The clip itself is not touched. All missing boxes take one decoding of its video and all missing tracks another, because
cuts are known only when the boxes of the whole clip are.
"""

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lipsync_bench.datamodules.clips.boxes import (
    SUFFIX,
    Boxes,
    BoxesHeader,
    boxes_path,
    clip_geometry,
    in_clip,
    write_boxes,
)
from lipsync_bench.datamodules.clips.clip import Clip, ClipHeader
from lipsync_bench.datamodules.clips.track import Track, TrackHeader, track_path, track_writer
from lipsync_bench.datamodules.errors import ClipError, MediaError, system_error
from lipsync_bench.datamodules.faces.crop_rules.rule import Cut
from lipsync_bench.datamodules.faces.options import DetectorName
from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.datamodules.media.damage import Damage
from lipsync_bench.datamodules.media.video import read_frames
from lipsync_bench.datamodules.prepare.find_boxes import BoxSearch
from lipsync_bench.datamodules.prepare.wanted import Wanted, cut_text, detectors
from lipsync_bench.datamodules.recipes.recipe import Recipe

logger = logging.getLogger(__name__)

__all__ = ["Beside", "Failure", "files_beside"]


class Failure(NamedTuple):
    """Why a part could not be made: "track DIGEST" or "boxes DETECTOR"."""

    part: str
    error: str
    reason: str


def files_beside(out: Path) -> dict[str, list[str]]:
    """Names of the files of boxes and tracks of a prepared folder, by the id of their clip."""
    found: dict[str, list[str]] = {}
    for speaker in (entry for entry in os.scandir(out) if entry.is_dir() and not entry.name.startswith(".")):
        for name in (entry.name for entry in os.scandir(speaker) if not entry.name.startswith(".")):
            clip, dot, _ = name.rpartition(".")[0].rpartition(".")
            if dot and name.endswith((SUFFIX, ".track")):
                found.setdefault(f"{speaker.name}/{clip}", []).append(name)
    return found


class Beside:
    """The boxes and tracks of one clip: those that are there, and the making of those that are not.

    Args:
        clip: The clip file.
        header: Its header.
        wanted: What there should be.
        names: Names of the files beside the clip that `wanted` may not name.
    """

    def __init__(self, clip: Path, header: ClipHeader, wanted: Wanted, names: Iterable[str] = ()) -> None:
        self.boxes: dict[str, BoxesHeader] = {}
        self.tracks: dict[str, TrackHeader] = {}
        self.made: list[str] = []
        self.failures: list[Failure] = []
        self._clip, self._header, self._wanted = clip, header, wanted
        self._stale: list[Path] = []
        paths = [clip.with_name(name) for name in names]
        paths += [boxes_path(clip, name) for name in wanted.boxes]
        paths += [track_path(clip, digest) for digest in wanted.tracks]
        for path in sorted(set(paths)):
            self._look_at(path)
        for digest, track in list(self.tracks.items()):
            if self._cut_from_other_boxes(track):
                self._drop_track(digest)

    def _look_at(self, path: Path) -> None:
        """One that cannot be read is not there, and is left: it may be of a later version."""
        name = path.suffixes[-2][1:]
        try:
            if path.suffix == SUFFIX:
                with Boxes(path, read="file") as boxes:
                    self.boxes[name] = boxes.header
                    belongs = boxes.header.belongs_to(self._header)
            else:
                with Track(path, read="file") as track:
                    self.tracks[name] = track.header
                    belongs = track.header.belongs_to(self._header)
        except (FileNotFoundError, NotADirectoryError, ClipError):
            return
        if not belongs:
            self._stale.append(path)
            (self.boxes if path.suffix == SUFFIX else self.tracks).pop(name)

    def _cut_from_other_boxes(self, track: TrackHeader) -> bool:
        """Whether the boxes beside the clip are by another version of the detector than those that it was cut by."""
        try:
            versions: Mapping[str, str] = json.loads(track.versions or "{}")
            return any(name in self.boxes and self.boxes[name].detector_version != versions[name] for name in versions)
        except (ValueError, TypeError):
            return True

    def _drop_track(self, digest: str) -> None:
        self._stale.append(track_path(self._clip, digest))
        del self.tracks[digest]

    def _missing_boxes(self) -> list[DetectorName]:
        return [
            name
            for name in self._wanted.boxes
            if not in_clip(self._header, name)
            and self.boxes.get(name) != BoxesHeader.of(self._header, name, self._wanted.version(name))
        ]

    def _track_header(self, recipe: Recipe) -> TrackHeader:
        """Of the recipe's track of this clip, made now."""
        needs = [name for name in detectors(recipe.fed_crop.needs) if not in_clip(self._header, name)]
        versions = {name: self._wanted.version(name) for name in needs}
        text = json.dumps(versions, sort_keys=True) if versions else ""
        return TrackHeader.of(self._header, recipe, self._wanted.codec, text)

    def _missing_tracks(self) -> list[str]:
        wanted = self._wanted.tracks.items()
        return [digest for digest, recipe in wanted if self.tracks.get(digest) != self._track_header(recipe)]

    def missing(self) -> list[str]:
        """Names of the parts that are wanted and not there, or outdated."""
        boxes, tracks = self._missing_boxes(), self._missing_tracks()
        return [*(f"boxes {name}" for name in boxes), *(f"track {digest}" for digest in tracks)]

    def holds(self, entry: Mapping[str, Any]) -> bool:
        """Whether all that is wanted is there, and the manifest's entry says what is."""
        listed = set(entry.get("boxes", ())), set(entry.get("tracks", ()))
        return listed == (set(self.boxes), set(self.tracks)) and not self._stale and not self.missing()

    def entry(self) -> dict[str, Any]:
        """What the manifest says of what is there; nothing where nothing is."""
        tracks = {
            digest: {
                "cut": cut_text(header.track),
                "codec": header.codec,
                "sha256": sha256(track_path(self._clip, digest)),
            }
            for digest, header in sorted(self.tracks.items())
        }
        boxes = {
            name: {"version": header.detector_version, "sha256": sha256(boxes_path(self._clip, name))}
            for name, header in sorted(self.boxes.items())
        }
        return {name: parts for name, parts in (("tracks", tracks), ("boxes", boxes)) if parts}

    def complete(self, video: Path, max_gap_frames: int, anew: bool = False) -> None:
        """Make what is missing; `made` and `failures` say what came of it.

        Args:
            video: The clip's source, unchanged since.
            max_gap_frames: Most frames in a row in which a detector may miss the face.
            anew: Make all that is wanted.

        Raises:
            OSError: One that every other clip would meet too, such as a full disk.
        """
        boxes, tracks = self._missing_boxes(), self._missing_tracks()
        if anew:
            boxes = [name for name in self._wanted.boxes if not in_clip(self._header, name)]
            tracks = list(self._wanted.tracks)
        for digest, track in list(self.tracks.items()):  # before their boxes change, so that none is seen with others
            versions = json.loads(track.versions or "{}")
            if any(versions.get(name) not in (None, self._wanted.version(name)) for name in boxes):
                self._drop_track(digest)
        for path in self._stale:
            path.unlink(missing_ok=True)
        if boxes:
            self._make_boxes(video, boxes, max_gap_frames)
        if tracks:
            self._make_tracks(video, tracks)

    def _make_boxes(self, video: Path, names: Sequence[DetectorName], max_gap_frames: int) -> None:
        searches: dict[DetectorName, BoxSearch] = {}
        own = np.zeros(0)
        with self._counted([f"boxes {name}" for name in names]), ExitStack() as stack:
            for name in names:
                weights = self._wanted.weights if name == "s3fd" else None
                searches[name] = stack.enter_context(BoxSearch(name, weights))
            for frame in self._frames(video):
                for search in searches.values():
                    search.add(frame)
            with Clip(self._clip, read="file") as clip:
                own = clip.geometry().mesh_boxes
        if self.failures:
            return
        for name, search in searches.items():
            with self._counted([f"boxes {name}"]):
                header = BoxesHeader.of(self._header, name, self._wanted.version(name))
                write_boxes(boxes_path(self._clip, name), header, *search.finish(own, max_gap_frames))
                self.boxes[name] = header
                self.made.append(f"boxes {name}")

    def _make_tracks(self, video: Path, digests: Sequence[str]) -> None:
        without = {failure.part.removeprefix("boxes "): failure for failure in self.failures}
        cuts: dict[str, Sequence[Cut | None]] = {}
        with self._counted([f"track {digest}" for digest in digests]), Clip(self._clip, read="file") as clip:
            geometry = clip_geometry(clip)
            for digest in digests:
                rule, part = self._wanted.tracks[digest].fed_crop, f"track {digest}"
                lacking = [without[name] for name in detectors(rule.needs) if name in without]
                if lacking:
                    self.failures.append(lacking[0]._replace(part=part))
                    continue
                with self._counted([part]):
                    cuts[digest] = rule.cuts(geometry)
        if cuts:
            self._write_tracks(video, cuts)

    def _write_tracks(self, video: Path, cuts: Mapping[str, Sequence[Cut | None]]) -> None:
        recipes = [self._wanted.tracks[digest] for digest in cuts]
        headers = [self._track_header(recipe) for recipe in recipes]
        failures = len(self.failures)
        with self._counted([f"track {digest}" for digest in cuts]), ExitStack() as stack:
            paths = [track_path(self._clip, digest) for digest in cuts]
            adds = [stack.enter_context(track_writer(*pair)) for pair in zip(paths, headers, strict=True)]
            for index, frame in enumerate(self._frames(video)):
                for recipe, add, each in zip(recipes, adds, cuts.values(), strict=True):
                    cut = each[index]
                    assert cut is not None, "a clip shows its face in each frame"
                    add(cut.face(frame, recipe.size_hw, recipe.resize))
        if len(self.failures) == failures:
            self.tracks.update(zip(cuts, headers, strict=True))
            self.made += [f"track {digest}" for digest in cuts]
        elif len(cuts) > 1:  # each by itself, so that one costs no other
            del self.failures[failures:]
            for digest, each in cuts.items():
                self._write_tracks(video, {digest: each})

    def _frames(self, video: Path) -> Iterator[np.ndarray]:
        count, expected = 0, self._header.frames
        for frame in read_frames(video, damage=Damage()):  # damage was told when the clip was made
            count += 1
            if count > expected:
                break
            yield frame
        if count != expected:
            raise MediaError(
                f"{video}: {count} frames{' or more' if count > expected else ''} now, {expected} when the clip was "
                "made. Expected the same. Run: bench prepare --overwrite"
            )

    @contextmanager
    def _counted(self, parts: Sequence[str]) -> Iterator[None]:
        """An error is the failure of these parts, unless every other clip would meet it too."""
        try:
            yield
        except Exception as error:
            system = system_error(error)
            if system is not None:
                raise system from error
            if not isinstance(error, ValueError | OSError):
                logger.exception("%s: unexpected error", self._clip)
            reason = " ".join(str(error).split())
            self.failures += [Failure(part, type(error).__name__, reason) for part in parts]
