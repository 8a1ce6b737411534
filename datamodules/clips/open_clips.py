# SPDX-License-Identifier: Apache-2.0
"""Clips that are kept open, so that one that comes up again is not opened again."""

from collections import OrderedDict
from pathlib import Path
from typing import Literal

from lipsync_bench.datamodules.clips.clip import Clip

OPEN_CLIPS = 16  # files held open by one worker

__all__ = ["OPEN_CLIPS", "OpenClips"]


class OpenClips:
    """The clips used last, open, at most `OPEN_CLIPS`; they may be forked or pickled, every process opens its own."""

    def __init__(self, read: Literal["mmap", "file"]) -> None:
        self._read = read
        self._clips: OrderedDict[Path, Clip] = OrderedDict()

    def get(self, path: Path) -> Clip:
        clip = self._clips.get(path)
        if clip is None:
            clip = self._clips[path] = Clip(path, read=self._read)
            if len(self._clips) > OPEN_CLIPS:
                self._clips.popitem(last=False)[1].close()
        else:
            self._clips.move_to_end(path)
        return clip
