# SPDX-License-Identifier: Apache-2.0
"""Data and report of the speed measurements. They are not tests: `make bench` runs them, `make test` does not.

A measurement is a `bench_*.py` whose functions use the fixture `comparison`, which adds its rows to the table.
"""

import os
import platform
import time
from collections import Counter
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from benchmarks.tools.comparison import Comparison, Row, table
from benchmarks.tools.wide_video import write_wide_video
from lipsync_bench.datamodules.cores import usable_cores
from lipsync_bench.datamodules.files.disk import write_atomic
from lipsync_bench.datamodules.prepare.options import PrepareOptions

_ROWS = pytest.StashKey[list[Row]]()
_NOTES = pytest.StashKey[list[str]]()
_START = pytest.StashKey[tuple[float, float]]()
_SUMMARY = Path(".benchmarks") / "latest.md"  # beside pytest-benchmark's own files

__all__ = ["comparison", "large_clips", "large_videos", "one_thread_opencv", "small_clips", "small_videos"]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ROWS], config.stash[_NOTES] = [], []
    config.stash[_START] = time.monotonic(), os.getloadavg()[0]


@pytest.fixture
def comparison(benchmark: Any, request: pytest.FixtureRequest) -> Comparison:
    """Makes a measurement and records it."""
    stash = request.config.stash
    return Comparison(benchmark, stash[_ROWS], stash[_NOTES])


def _prepared(videos: Path, clips: Path) -> Path:
    from lipsync_bench.datamodules.prepare.prepare import prepare

    report = prepare(videos, clips, PrepareOptions("synthetic"), progress=False)
    assert report.done > 0
    assert report.failed == 0
    return clips


@pytest.fixture(scope="session")
def small_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic corpus, frames of 256 x 256: 1 speaker, 3 videos of 5 s, one in each split. Read only."""
    from lipsync_bench.datamodules.datasets.synthetic import make_corpus

    folder = tmp_path_factory.mktemp("small_videos")
    make_corpus(folder, speakers=1, clips_per_speaker=3, seconds=5.0, progress=False)
    return folder


@pytest.fixture(scope="session")
def small_clips(small_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`small_videos`, prepared: faces are about as large as in LRS2. Read only."""
    return _prepared(small_videos, tmp_path_factory.mktemp("small_clips"))


@pytest.fixture(scope="session")
def large_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One video of 5 s in 1280 x 720, in the same folder layout. Read only."""
    folder = tmp_path_factory.mktemp("large_videos")
    write_wide_video(folder / "main" / "s01" / "00001.mp4", (720, 1280), seconds=5.0)
    (folder / "train.txt").write_text("s01/00001\n")
    return folder


@pytest.fixture(scope="session")
def large_clips(large_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`large_videos`, prepared. Read only."""
    return _prepared(large_videos, tmp_path_factory.mktemp("large_clips"))


@pytest.fixture
def one_thread_opencv() -> Iterator[None]:
    """Set OpenCV up as in a worker of the loader or of `bench prepare`."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _conditions(config: pytest.Config) -> list[str]:
    """The conditions of the measurements."""
    began, load = config.stash[_START]
    cores = usable_cores()
    packages = ("torch", "numpy", "opencv-contrib-python", "av", "mediapipe", "dlib-bin", "simplejpeg")
    return [
        f"lipsync_bench {version('lipsync_bench')}, {date.today().isoformat()}, `pytest {' '.join(config.args)}`, "
        f"{time.monotonic() - began:.0f} s.",
        f"{_processor()}, {cores} cores, GPU not used, torch with {torch.get_num_threads()} threads, load before the "
        f"run {load:.1f} (0: nothing else was running).",
        f"Python {platform.python_version()}, {', '.join(f'{name} {version(name)}' for name in packages)}.",
    ]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table and write it to `.benchmarks/latest.md`, ready to be pasted into docs/performance.md."""
    rows, notes = config.stash[_ROWS], config.stash[_NOTES]
    if not rows:
        return
    lines = [*_conditions(config), "", *table(rows)]
    if notes:
        lines += ["", *(f"- {note}" for note in notes)]
    path = config.rootpath / _SUMMARY
    write_atomic(path, "\n".join(lines) + "\n")
    terminalreporter.section("speed, each beside its reference")
    for line in lines:
        terminalreporter.write_line(line)
    counts = Counter(row.verdict for row in rows if row.verdict is not None)
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    terminalreporter.write_line("")
    terminalreporter.write_line(f"{len(rows)} rows; aims: {verdicts or 'none'}. This table: {path}")
    if config.getoption("benchmark_json"):
        terminalreporter.write_line(f"Every round: {config.getoption('benchmark_json')}")
