# SPDX-License-Identifier: Apache-2.0
"""`bench prepare`, time a frame, against decoding the same videos and running the detector on every frame."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.tools.comparison import Aim, Comparison
from lipsync_bench.datamodules.faces.detectors import make_detector
from lipsync_bench.datamodules.media.video import read_frames
from lipsync_bench.datamodules.prepare.options import PrepareOptions
from lipsync_bench.datamodules.prepare.prepare import prepare

__all__: list[str] = []


def _decode(videos: Sequence[Path]) -> int:
    return sum(1 for video in videos for _ in read_frames(video))


def _decode_and_detect(videos: Sequence[Path]) -> None:
    for video in videos:
        with make_detector("mediapipe") as detector:  # a new one for each video, as in `prepare`
            for frame in read_frames(video):
                detector.detect(frame)


@pytest.mark.parametrize("material", ["small", "large"])
@pytest.mark.usefixtures("one_thread_opencv")
def test_prepare(comparison: Comparison, tmp_path: Path, material: str, request: pytest.FixtureRequest) -> None:
    source: Path = request.getfixturevalue(f"{material}_videos")
    files = sorted(source.rglob("*.mp4"))
    frames = _decode(files)
    height, width, _ = next(read_frames(files[0])).shape
    folders = (tmp_path / str(k) for k in itertools.count())

    def prepare_all() -> None:
        report = prepare(source, next(folders), PrepareOptions(workers=1), progress=False)
        assert (report.done, report.failed) == (len(files), 0)

    own, others = comparison.alternate(
        prepare_all,
        {"decode": lambda: _decode(files), "both": lambda: _decode_and_detect(files)},
        rounds=5,
    )
    own, decode, both = (rounds.each(lambda s: 1000 * s / frames) for rounds in (own, others["decode"], others["both"]))
    name = f"`bench prepare`, {width} x {height}"
    comparison.record(name, "ms a frame", own, "decoding + detector", both, Aim("ratio", "<", 1.5))
    comparison.note(
        f"{name}: {len(files)} videos, {frames} frames, 1 process; decoding {decode.median:.1f} ms, detector "
        f"{both.median - decode.median:.1f} ms, all the rest {own.median - both.median:.1f} ms a frame."
    )
