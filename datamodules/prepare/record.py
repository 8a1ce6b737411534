# SPDX-License-Identifier: Apache-2.0
"""The manifest and the list of failures of a prepared folder, written by one process or joined from slices.

    <out>/manifest.json, failures.csv                 of all videos
    <out>/manifest.I-of-N.json, failures.I-of-N.csv   of a slice, until the slice that ends last joins them

While slices are at work manifest.json says `"complete": false` and names the clips that were there before.
"""

import csv
import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lipsync_bench.datamodules.files.csv_files import unquoted, write_csv
from lipsync_bench.datamodules.files.disk import remove_leftovers, write_atomic
from lipsync_bench.datamodules.files.parts import Parts, part_files
from lipsync_bench.datamodules.files.texts import few, read_json, read_text
from lipsync_bench.datamodules.slices import Slice

_COLUMNS = ("id", "source", "error", "reason", "part")

logger = logging.getLogger(__name__)

__all__ = ["Record"]


def _entries(path: Path) -> dict[str, dict[str, Any]]:
    try:
        content = read_json(path, "the manifest of prepared clips", "It is made anew")
        return {entry["id"]: {**entry} for entry in content["clips"]}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("%s: unreadable (%r), made anew", path, error)
        return {}


def _failures(path: Path) -> list[tuple[str, ...]]:
    try:
        rows = list(csv.reader(read_text(path, "the failures of bench prepare", "Remove it").splitlines()))
    except (FileNotFoundError, ValueError, csv.Error):
        return []
    return [tuple(map(unquoted, [*row, ""][: len(_COLUMNS)])) for row in rows[1:]]  # earlier ones have no part


def _of_clips(failures: Iterable[Sequence[str]]) -> list[Sequence[str]]:
    """Those of whole clips, not of a part beside one."""
    return [row for row in failures if not row[-1]]


def _counts(entries: Mapping[str, dict[str, Any]], failures: Iterable[Sequence[str]]) -> dict[str, Any]:
    """Of each track and each detector's boxes: how many clips have it, and of how many it failed."""
    counts: dict[str, dict[str, dict[str, Any]]] = {"tracks": {}, "boxes": {}}
    for name, kind in counts.items():
        for entry in entries.values():
            for part, facts in entry.get(name, {}).items():
                told = {"cut": facts["cut"]} if name == "tracks" else {}
                kind.setdefault(part, {**told, "clips": 0, "failed": 0})["clips"] += 1
    for row in failures:
        name, _, part = row[-1].partition(" ")
        if part:
            kind = counts["tracks" if name == "track" else name]
            kind.setdefault(part, {"clips": 0, "failed": 0})["failed"] += 1
    return {name: dict(sorted(kind.items())) for name, kind in counts.items() if kind}


class Record:
    """What is known of the videos of a run, or of its slice.

    Args:
        out: The prepared folder.
        head: What the manifest says of all clips.
        sources: Id and place of every video, of all slices.
        part: The slice.
    """

    def __init__(self, out: Path, head: Mapping[str, Any], sources: Sequence[tuple[str, str]], part: Slice) -> None:
        self.entries: dict[str, dict[str, Any]] = {}
        self.failures: list[tuple[str, ...]] = []
        self._out, self._head, self._part, self._sources = out, dict(head), part, sources
        self.listed = "failures.csv" if part.count == 1 else f"failures.{part.suffix}.csv"
        listed = hashlib.sha256(json.dumps(sources).encode()).hexdigest()
        self._parts = Parts(out, "manifest", {**head, "sources_sha256": listed})

    def old_entries(self) -> dict[str, dict[str, Any]]:
        """The entries of earlier runs, by id; whether they still hold is to be looked at."""
        paths = [self._out / "manifest.json", *(path for path, _ in part_files(self._out, "manifest"))]
        return {name: entry for path in paths for name, entry in _entries(path).items()}

    def begin(self, anything_to_do: bool) -> None:
        """Say in the manifest that it is not complete; the slice's own part comes first, so that nobody joins it."""
        if self._part.count == 1:
            if anything_to_do:
                self._write_manifest(False, self.entries, self.failures)
            return
        self._write_part(False)
        self._take_apart()
        if not self._is_ours() or self._manifest().get("complete"):
            self._write_manifest(False, _entries(self._out / "manifest.json") if self._is_ours() else {}, ())

    def write(self, complete: bool) -> None:
        """Write the lists, and join the slices if this was the last one."""
        remove_leftovers(self._out)
        if self._part.count > 1:
            write_csv(self._out / self.listed, _COLUMNS, sorted(self.failures))
            self._write_part(complete)
            if complete:
                self._join_if_last()
        else:
            self._write_lists(complete, self.entries, self.failures)

    def join_finished(self) -> None:
        """Join the slices of a run that have all ended; their entries and failures are then this record's.

        Raises:
            ValueError: There are none, or some are missing.
        """
        wanting = []
        for count in self._parts.counts():
            found, missing = self._parts.read(count)
            if not missing:
                self._join(found)
                return
            wanting.append(f"slices {few(missing)} are missing")
        if not wanting and self._manifest().get("complete"):
            self.entries = _entries(self._out / "manifest.json")
            self.failures = _failures(self._out / "failures.csv")
            return
        raise ValueError(
            f"{self._out}: {'; '.join(wanting) or 'no slices to join'}. Expected the parts of all slices of bench "
            "prepare with these options. Run those that are missing, or bench prepare without --slice and --join"
        )

    def _join_if_last(self) -> None:
        found, missing = self._parts.read(self._part.count)
        if missing and self._is_joined():  # by another that ended just now
            return
        if missing and self._take_apart():  # another joined all when this one had just begun
            found, missing = self._parts.read(self._part.count)
        if not missing:
            self._join(found)
            logger.info("%s: all %d slices are joined in manifest.json", self._out, self._part.count)
        else:
            logger.info(
                "%s: slice %s is done. Missing: %s. The one that ends last joins all; bench prepare without --slice "
                "does what no slice does",
                *(self._out, self._part, few(missing)),
            )

    def _is_joined(self) -> bool:
        """Whether the manifest is complete and has all of this slice."""
        if not (self._manifest().get("complete") and self._is_ours()):
            return False
        entries, sources = _entries(self._out / "manifest.json"), self._part.of(self._sources)
        failures = [row for row in _failures(self._out / "failures.csv") if row[:2] in sources]
        return self.entries == {name: entries[name] for name, _ in sources if name in entries} and failures == sorted(
            self.failures
        )

    def _take_apart(self) -> bool:
        """Make parts of a manifest that is complete, for the other slices: one that runs again is joined with them."""
        manifest = self._manifest()
        if not (manifest.get("complete") and self._is_ours()):
            return False
        entries, failures = _entries(self._out / "manifest.json"), _failures(self._out / "failures.csv")
        for part in (Slice(index, self._part.count) for index in range(self._part.count)):
            sources = part.of(self._sources)
            clips = [entries[name] for name in sorted(name for name, _ in sources) if name in entries]
            failed = sorted(row for row in failures if row[:2] in sources)
            if len(clips) + len(_of_clips(failed)) == len(sources) and not self._parts.path(part).is_file():
                self._parts.write(part, True, {"failures": failed, "clips": clips})
        return True

    def _is_ours(self) -> bool:
        """Whether the manifest is of a run like this one."""
        old = self._manifest()
        return all(old.get(name) == value for name, value in self._head.items() if name != "complete")

    def _join(self, parts: Sequence[Mapping[str, Any]]) -> None:
        entries = {entry["id"]: entry for part in parts for entry in part["clips"]}
        failures = [tuple(row) for part in parts for row in part["failures"]]
        if self._part.count == 1:
            self.entries, self.failures = entries, failures
        self._write_lists(True, entries, failures)

    def _write_lists(
        self, complete: bool, entries: Mapping[str, dict[str, Any]], failures: Sequence[tuple[str, ...]]
    ) -> None:
        write_csv(self._out / "failures.csv", _COLUMNS, sorted(failures))
        self._write_manifest(complete, entries, failures)
        if complete:
            for path, _ in part_files(self._out, "failures"):
                path.unlink(missing_ok=True)
            self._parts.remove()

    def _manifest(self) -> dict[str, Any]:
        try:
            content = read_json(self._out / "manifest.json", "the manifest of prepared clips", "It is made anew")
        except (FileNotFoundError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def _write_manifest(
        self, complete: bool, entries: Mapping[str, dict[str, Any]], failures: Sequence[tuple[str, ...]]
    ) -> None:
        clips = [entries[name] for name in sorted(entries)]
        failed, counts = len(_of_clips(failures)), _counts(entries, failures)
        content = {**self._head, "complete": complete, "failed": failed, **counts, "clips": clips}
        write_atomic(self._out / "manifest.json", (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())

    def _write_part(self, complete: bool) -> None:
        clips = [self.entries[name] for name in sorted(self.entries)]
        self._parts.write(self._part, complete, {"failures": sorted(self.failures), "clips": clips})
