# SPDX-License-Identifier: Apache-2.0
"""Files that are kept open, so that one that comes up again is not opened again."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from lipsync_bench.datamodules.clips.tensor_reader import TensorReader

OPEN_FILES = 16  # of one kind, held open by one worker
KNOWN_FILES = 4096  # of one kind, whose heads are remembered by one worker: 20 MB of clips and tracks
_Reader = TypeVar("_Reader", bound=TensorReader[Any])

__all__ = ["OPEN_FILES", "OpenFiles"]


class OpenFiles(Generic[_Reader]):
    """Files of one kind that were used last: the last `OPEN_FILES` are open, of `KNOWN_FILES` the head is remembered.

    They may be forked or pickled; every process opens its own.

    Args:
        reader: Makes the reader of a file from the path that `get` is given.
    """

    def __init__(self, reader: Callable[[Path], _Reader]) -> None:
        self._reader = reader
        self._known: OrderedDict[Path, _Reader] = OrderedDict()
        self._open: OrderedDict[Path, _Reader] = OrderedDict()

    def get(self, path: Path) -> _Reader:
        file = self._known.pop(path, None)
        if file is None:
            file = self._reader(path)
        self._known[path] = self._open[path] = file
        self._open.move_to_end(path)
        if len(self._open) > OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        if len(self._known) > KNOWN_FILES:
            self._known.popitem(last=False)
        return file
