# SPDX-License-Identifier: Apache-2.0
"""Slices of a preparation, on one disk: together they leave what one process leaves, to the byte."""

import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lipsync_bench.datamodules.prepare import prepare as prepare_module
from lipsync_bench.datamodules.prepare.options import PrepareOptions
from lipsync_bench.datamodules.prepare.prepare import PrepareReport, prepare
from lipsync_bench.datamodules.prepare.record import Record
from lipsync_bench.datamodules.slices import Slice
from lipsync_bench.datamodules.splitting import Splitting
from tests.commands import run_bench
from tests.datamodules.preparation import contents, failures, manifest, write_video


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five good videos and two broken ones."""
    folder = tmp_path_factory.mktemp("videos")
    for k in range(5):
        write_video(folder / f"s{k % 2}" / f"{k}.mp4", 5 + k)
    (folder / "s0" / "=broken.mp4").write_bytes(b"no, video" * 100)
    write_video(folder / "s1" / "silent.mp4", 5, sound=False)
    return folder


@pytest.fixture(scope="module")
def whole(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process makes of them."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert prepare(videos, out, PrepareOptions(workers=1), progress=False).failed == 2
    return contents(out)


def run(videos: Path, out: Path, part: str | None, **options: Any) -> PrepareReport:
    return prepare(videos, out, PrepareOptions(**{"workers": 1, **options}), splitting=Splitting(part), progress=False)


def test_slices_in_any_order_join_to_the_whole(
    videos: Path, whole: dict[str, bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    reports = [run(videos, tmp_path, "3/3"), run(videos, tmp_path, "1/3")]
    content = manifest(tmp_path)
    assert (content["complete"], content["clips"]) == (False, [])
    assert "slice 1/3 is done. Missing: 2/3." in caplog.text
    assert not (tmp_path / "failures.csv").exists()
    reports.append(run(videos, tmp_path, "2/3"))
    assert contents(tmp_path) == whole
    assert sorted(report.done for report in reports) == [1, 2, 2]
    assert sum(report.failed for report in reports) == 2


def test_more_slices_than_videos(videos: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    for index in range(9):
        words = ("prepare", "--source", videos, "--out", tmp_path, "--workers", 1, "--slice", f"{index + 1}/9")
        assert run_bench(*words) == 0  # also with nothing to do, or with a broken video alone
    assert contents(tmp_path) == whole


def test_tasks_of_srun_do_half_each(
    videos: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    counts = []
    for task in "01":
        monkeypatch.setenv("SLURM_PROCID", task)
        report = run(videos, tmp_path, None)
        counts.append(report.done + report.failed)
    assert sorted(counts) == [3, 4]
    assert contents(tmp_path) == whole


def test_a_slice_that_was_interrupted_is_resumed(
    videos: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = prepare_module.prepare_one

    def interrupted(job: Any) -> Any:
        if job.source.id == "s1/3":
            raise KeyboardInterrupt
        return real(job)

    run(videos, tmp_path, "1/2")
    monkeypatch.setattr(prepare_module, "prepare_one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(videos, tmp_path, "2/2")
    monkeypatch.undo()
    assert manifest(tmp_path)["complete"] is False
    with pytest.raises(ValueError, match=r"slices 2/2 \(not finished\) are missing\. Expected .* without --slice"):
        run(videos, tmp_path, None, join=True)
    assert run(videos, tmp_path, "2/2").skipped == 1
    assert contents(tmp_path) == whole


def test_a_run_without_slices_ends_what_slices_began(
    videos: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(videos, tmp_path, "2/4")
    (tmp_path / "manifest.1-of-4.json").write_text("[")
    report = run(videos, tmp_path, None)
    assert (report.skipped, report.done, report.failed) == (2, 3, 2)
    assert contents(tmp_path) == whole


def test_one_slice_runs_again_after_the_joining(videos: Path, tmp_path: Path) -> None:
    source, out = Path(shutil.copytree(videos, tmp_path / "in")), tmp_path / "out"
    for part in ("1/3", "2/3", "3/3"):
        run(source, out, part)
    before = contents(out)
    for part in ("2/3", "3/3", "1/3"):
        run(source, out, part)
        assert contents(out) == before
    write_video(source / "s1" / "silent.mp4", 5)  # repaired
    for part in ("1/3", "2/3", "3/3"):
        run(source, out, part)
    assert [row["id"] for row in failures(out)] == ["s0/_broken"]
    assert manifest(out)["complete"] is True
    after = contents(out)
    shutil.rmtree(out)
    run(source, out, None)
    assert contents(out) == after


def test_slices_of_other_settings_or_videos_are_not_joined(
    videos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    source, out = Path(shutil.copytree(videos, tmp_path / "in")), tmp_path / "out"
    run(source, out, "1/2")
    run(source, out, "2/2", max_crop_px=64)
    assert "Missing: 1/2 (its part was made with other options, or of other files)." in caplog.text
    assert manifest(out)["complete"] is False
    shutil.copy(source / "s0" / "0.mp4", source / "s0" / "00.mp4")
    run(source, out, "1/2", max_crop_px=64)  # has other videos now
    assert manifest(out)["complete"] is False
    run(source, out, "2/2", max_crop_px=64)
    assert manifest(out)["complete"] is True
    assert len(manifest(out)["clips"]) == 6


def test_joining_by_hand(
    videos: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("prepare", "--source", videos, "--out", tmp_path, "--join")
    monkeypatch.setattr("lipsync_bench.datamodules.prepare.record.Record._join_if_last", lambda self: None)
    run(videos, tmp_path, "1/2")
    assert run_bench(*command) == 1
    run(videos, tmp_path, "2/2")
    monkeypatch.undo()
    assert run_bench(*command) == 0
    assert contents(tmp_path) == whole
    assert run_bench(*command) == 0  # nothing to do
    assert run_bench("prepare", "--source", videos, "--out", tmp_path / "new", "--join") == 1
    assert not (tmp_path / "new").exists()


def test_slices_that_end_at_once_leave_the_whole(tmp_path: Path) -> None:
    sources = [(f"s/{k}", f"s/{k}.mp4") for k in range(11)]

    def one(out: Path, part: Slice) -> None:
        record = Record(out, {"schema": "1", "complete": False}, sources, part)
        record.begin(anything_to_do=True)
        for name, path in part.of(sources):
            if name == "s/7":
                record.failures.append((name, path, "MediaError", "=no video", ""))
            else:
                record.entries[name] = {"id": name, "frames": 5}
        record.write(True)

    one(tmp_path / "whole", Slice())
    whole = contents(tmp_path / "whole")
    with ThreadPoolExecutor(8) as threads:
        for round in range(40):
            out = tmp_path / str(round // 2)  # each folder twice
            list(threads.map(lambda k, out=out: one(out, Slice(k, 8)), range(8)))
            assert contents(out) == whole, round
