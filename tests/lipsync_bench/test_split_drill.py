# SPDX-License-Identifier: Apache-2.0
"""One preparation in every way that work can be split, workers killed in the middle: the same files, to the byte."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lipsync_bench.datamodules.prepare.options import PrepareOptions
from lipsync_bench.datamodules.prepare.pool import WorkerDied, run_jobs
from lipsync_bench.datamodules.prepare.prepare import PrepareReport, prepare
from lipsync_bench.datamodules.splitting import Splitting
from tests.commands import run_bench
from tests.datamodules.preparation import contents, failures, manifest, write_video
from tests.lipsync_bench.killing import kill_when
from tests.ray_here import two_ray_workers

FILES, EVERY = 40, 20


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 short videos, one in twenty broken."""
    folder = tmp_path_factory.mktemp("videos")
    good = write_video(folder.parent / "good.mp4", 5)
    for k in range(FILES):
        path = folder / f"s{k % 3}" / f"{k:02d}.mp4"
        path.parent.mkdir(exist_ok=True)
        if k % EVERY == 7:
            path.write_bytes(good.read_bytes()[: 900 + k])
        else:
            shutil.copy(good, path)
    return folder


@pytest.fixture(scope="module")
def whole(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process makes of them."""
    out = tmp_path_factory.mktemp("whole") / "out"
    report = prepare(videos, out, PrepareOptions(workers=1), progress=False)
    assert (report.done, report.failed) == (FILES - FILES // EVERY, FILES // EVERY)
    return contents(out)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with two_ray_workers(tmp_path_factory.mktemp("home")):
        yield


def clips(out: Path) -> int:
    return len(list(out.glob("*/*.safetensors")))


def kill_a_worker(out: Path, name: bytes) -> None:
    """Wait until some clips are there, then kill a process of ours whose command begins so and that works."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for path in Path("/proc").glob("[0-9]*/cmdline") if clips(out) >= 4 else ():
            try:
                if name in path.read_bytes() and b"_answer" in path.read_bytes():
                    os.kill(int(path.parent.name), signal.SIGKILL)
                    return
            except OSError:
                continue
        time.sleep(0.02)


@pytest.mark.slow
def test_two_processes(videos: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    prepare(videos, tmp_path, PrepareOptions(workers=2), progress=False)
    assert contents(tmp_path) == whole


def test_two_slices_at_once_one_of_them_killed(videos: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    command = ("prepare", "--source", videos, "--out", tmp_path, "--workers", 1, "--slice")
    kill_when(lambda: clips(tmp_path) >= 5, *command, "1/2")
    assert run_bench(*command, "2/2") == 0
    assert manifest(tmp_path)["complete"] is False
    assert run_bench(*command, "1/2") == 0
    assert contents(tmp_path) == whole


def test_ray(cluster: None, videos: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    words = ("prepare", "--source", videos, "--out", tmp_path, "--executor", "ray", "--workers", 2)
    assert run_bench(*words) == 0
    assert contents(tmp_path) == whole


def test_ray_whose_worker_is_killed(cluster: None, videos: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    def run() -> PrepareReport:
        options = PrepareOptions(workers=2)
        return prepare(videos, tmp_path, options, splitting=Splitting(executor="ray"), progress=False)

    with ThreadPoolExecutor(1) as killer:
        killing = killer.submit(kill_a_worker, tmp_path, b"ray::")
        report = run()
        killing.result()
    assert report.failed == FILES // EVERY + 1
    (died,) = (row for row in failures(tmp_path) if row["error"] == "WorkerDied")
    assert "WorkerCrashedError" in died["reason"]
    assert (report := run()).failed == FILES // EVERY
    assert report.done <= 1  # the clip of the dead worker; it may have been written
    assert contents(tmp_path) == whole


def test_a_dead_ray_worker_costs_one_job(cluster: None) -> None:
    jobs = ["1 + 1", "__import__('os')._exit(9)", "__import__('os').kill(__import__('os').getpid(), 9)", "2 * 3", "7"]
    results = dict(run_jobs(eval, [*jobs, "1 / 0"], 2, "ray"))
    assert [results[job] for job in ("1 + 1", "2 * 3", "7")] == [2, 6, 7]
    assert all(isinstance(results[job], WorkerDied) for job in (jobs[1], jobs[2], "1 / 0"))
    assert "division by zero" in str(results["1 / 0"])


def test_gpus_that_the_cluster_lacks_are_refused(cluster: None) -> None:
    with pytest.raises(ValueError, match=r"--ray-gpus 0\.25: the Ray cluster has 0 GPUs"):
        list(run_jobs(eval, ["1"], 2, "ray", 0.25))
    assert list(run_jobs(eval, ["1"], 2, "ray", None)) == [("1", 1)]


def test_without_ray_the_error_says_what_to_install(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    assert run_bench("prepare", "--source", videos, "--out", tmp_path, "--executor", "ray:10.0.0.1:6379") == 1
    assert "ray is not installed. Expected its package. Run: pip install 'lipsync_bench[ray]'" in caplog.text
    assert run_bench("prepare", "--source", videos, "--out", tmp_path, "--executor", "dask") == 2
