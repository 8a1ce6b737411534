# SPDX-License-Identifier: Apache-2.0
"""What the slices of a command leave on a shared disk, and the joining of it; no process waits and there is no server.

A slice writes its part, `<stem>.<I>-of-<N>.json`, and looks then whether all are there. If so it writes what one
process would have written, and removes the parts afterwards. Several slices that end at once write the same bytes.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lipsync_bench.datamodules.files.disk import write_atomic
from lipsync_bench.datamodules.files.texts import TextError, read_json
from lipsync_bench.datamodules.slices import Slice

__all__ = ["Parts", "part_files"]


def part_files(folder: Path, stem: str) -> Iterator[tuple[Path, int]]:
    """All parts of a folder, each with the number of its slices."""
    for path in sorted(folder.glob(f"{stem}.*-of-*.*")):
        match = re.fullmatch(rf"{re.escape(stem)}\.\d+-of-(\d+)\.(json|csv)", path.name)
        if match:
            yield path, int(match[1])


class Parts:
    """The parts of one run.

    Args:
        folder: Where they are.
        stem: How their names begin.
        key: Plain values that all parts of the run have in common; parts of other runs are not joined with them.
    """

    def __init__(self, folder: Path, stem: str, key: Mapping[str, object]) -> None:
        self.folder, self.stem, self.key = folder, stem, json.loads(json.dumps(key))

    def path(self, part: Slice, suffix: str = ".json") -> Path:
        """Of one part; also of a further file beside it."""
        return self.folder / f"{self.stem}.{part.suffix}{suffix}"

    def write(self, part: Slice, complete: bool, content: Mapping[str, object]) -> None:
        """Write a part, complete or as it is so far."""
        whole = {"complete": complete, "key": self.key, **content}
        write_atomic(self.path(part), (json.dumps(whole, indent=1, ensure_ascii=False) + "\n").encode())

    def read(self, count: int) -> tuple[list[dict[str, Any]], list[str]]:
        """The complete parts of a run of `count` slices, and the slices that are missing, as 2/8."""
        found, missing = [], []
        for part in (Slice(index, count) for index in range(count)):
            try:
                content = read_json(self.path(part), "the part of a slice", "Remove it, and run its slice again")
            except FileNotFoundError:
                missing.append(str(part))
                continue
            except TextError:
                content = {}
            if content.get("key") != self.key:
                missing.append(f"{part} (its part was made with other options, or of other files)")
            elif content.get("complete") is not True:
                missing.append(f"{part} (not finished)")
            else:
                found.append(content)
        return found, missing

    def counts(self) -> list[int]:
        """The numbers of slices of which there are parts."""
        return sorted({count for _, count in part_files(self.folder, self.stem)})

    def remove(self) -> None:
        """Remove all parts, also those of earlier runs."""
        for path, _ in part_files(self.folder, self.stem):
            path.unlink(missing_ok=True)  # another slice may be removing it too
