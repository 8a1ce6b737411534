# SPDX-License-Identifier: Apache-2.0
"""What the tests of preparation share: videos to prepare, a run, and what it left behind."""

import csv
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from skimage.data import astronaut

from lipsync_bench.datamodules.media.video import VideoWriter
from lipsync_bench.datamodules.prepare.options import PrepareOptions
from lipsync_bench.datamodules.prepare.prepare import PrepareReport, prepare

SIZE_HW = (220, 240)

__all__ = ["SIZE_HW", "alive_in_group", "contents", "failures", "manifest", "run", "write_video"]


def tone(seconds: float) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(int(16000 * seconds)) / 16000)).astype(np.float32)


def write_video(path: Path, frames: int = 22, *, dark: range = range(0), face: bool = True, sound: bool = True) -> Path:
    """The photograph's head, moving to the left by 1 px a frame; `dark` frames are black."""
    path.parent.mkdir(parents=True, exist_ok=True)
    photo = astronaut() if face else np.full((512, 512, 3), 90, np.uint8)
    with VideoWriter(path, 25.0, SIZE_HW, audio=tone(frames / 25) if sound else None, preset="ultrafast") as video:
        for k in range(frames):
            frame = photo[20:240, 110 + k % 60 : 350 + k % 60]
            video.write(np.zeros_like(frame) if k in dark else np.ascontiguousarray(frame))
    return path


def run(source: Path, *, progress: bool = True, **options: Any) -> PrepareReport:
    """Prepare into the folder `out` beside the source."""
    return prepare(source, source.parent / "out", PrepareOptions(**{"workers": 1, **options}), progress=progress)


def manifest(out: Path) -> dict[str, Any]:
    return json.loads((out / "manifest.json").read_text("utf-8"))


def failures(out: Path) -> list[dict[str, str]]:
    with (out / "failures.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def contents(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def alive_in_group(group: int) -> list[str]:
    """Processes of a group that have not ended after 5 s; dead ones that nobody has waited for do not count."""
    found: list[str] = []
    for _ in range(50):
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                text = path.read_text()
            except OSError:
                continue
            state, _, its_group = text.rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                found.append(text)
        if not found:
            break
        time.sleep(0.1)
    return found
