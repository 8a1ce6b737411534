# SPDX-License-Identifier: Apache-2.0
"""Preparing clips when something goes wrong: interruptions, unusable videos, workers that die. The other clips go on,
and what is there is whole.
"""

import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from lipsync_bench.datamodules.clips.clip import read_header
from lipsync_bench.datamodules.faces.options import FaceOptions
from lipsync_bench.datamodules.files.disk import temporary_path
from lipsync_bench.datamodules.prepare import prepare as prepare_module
from lipsync_bench.datamodules.prepare.options import PrepareOptions
from lipsync_bench.datamodules.prepare.pool import WorkerDied, run_jobs
from lipsync_bench.datamodules.prepare.prepare import prepare
from tests.datamodules.preparation import alive_in_group, contents, failures, manifest, run, write_video
from tests.leftovers import left_by_the_dead

REPOSITORY = Path(__file__).parents[3]


def test_an_interrupted_run_is_taken_up_again(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = source.parent / "out"
    whole: Callable[[Any], Any] = prepare_module.prepare_one

    def interrupted(job: Any) -> Any:
        if job.source.id == "bob/1":
            raise KeyboardInterrupt
        return whole(job)

    monkeypatch.setattr(prepare_module, "prepare_one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(source)
    assert contents(out).keys() == {"anna/1.safetensors", "failures.csv", "manifest.json"}
    assert manifest(out)["complete"] is False
    assert [entry["id"] for entry in manifest(out)["clips"]] == ["anna/1"]
    monkeypatch.setattr(prepare_module, "prepare_one", whole)
    report = run(source)
    assert (report.done, report.skipped) == (2, 1)
    assert manifest(out)["complete"] is True


def test_a_damaged_source_is_told_of_and_stands_in_the_manifest(source: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = next(path for path in sorted(source.rglob("*.mp4")))
    with av.open(str(path)) as container:
        packet = next(bytes(packet) for packet in container.demux(video=0) if packet.size)
    content = bytearray(path.read_bytes())
    at = content.index(packet) + len(packet) * 3 // 4
    content[at : at + len(packet) // 8] = np.random.default_rng(0).bytes(len(packet) // 8)
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        report = run(source)
    assert report.failed == 0
    entries = {entry["id"]: entry.get("damaged_frames", 0) for entry in manifest(source.parent / "out")["clips"]}
    damaged = [name for name, count in entries.items() if count]
    assert damaged == [path.relative_to(source).with_suffix("").as_posix()]
    told = [record.getMessage() for record in caplog.records if "damaged frames" in record.getMessage()]
    assert told
    assert all(str(path) in text and f"{entries[damaged[0]]} damaged frames" in text for text in told)


def test_leftovers_of_killed_runs_are_removed(source: Path) -> None:
    out = source.parent / "out"
    (out / "anna").mkdir(parents=True)
    leftover = left_by_the_dead(out / "anna" / "1.safetensors")
    of_another = temporary_path(out / "anna" / "2.safetensors")
    leftover.touch()
    of_another.touch()
    run(source)
    assert not leftover.exists()
    assert of_another.exists()


def test_bad_videos_are_listed_and_harm_no_other(tmp_path: Path, good: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    shutil.copy(good, source / "good.mp4")
    (source / "broken.mp4").write_bytes(np.random.default_rng(0).bytes(20000))
    (source / "empty.mkv").touch()
    write_video(source / "silent.mp4", sound=False)
    write_video(source / "nobody.mp4", face=False)
    write_video(source / "short.mp4", 4)
    write_video(source / "away.mp4", 30, dark=range(10, 25))
    (source / "notes.txt").write_text("not a video")
    with caplog.at_level(logging.WARNING):
        report = prepare(source, out, PrepareOptions(workers=1))
    assert (report.done, report.failed) == (1, 6)
    assert "failures.csv" in report.summary()
    rows = failures(out)
    assert [(row["id"], row["source"], row["error"]) for row in rows] == [
        ("clips/away", "away.mp4", "FaceError"),
        ("clips/broken", "broken.mp4", "MediaError"),
        ("clips/empty", "empty.mkv", "MediaError"),
        ("clips/nobody", "nobody.mp4", "FaceError"),
        ("clips/short", "short.mp4", "MediaError"),
        ("clips/silent", "silent.mp4", "MediaError"),
    ]
    reasons = {row["id"].partition("/")[2]: row["reason"] for row in rows}
    assert "15 in a row from frame 10" in reasons["away"]
    assert "no face in any of 22 frames" in reasons["nobody"]
    assert "expected at least" in reasons["short"]
    assert "no audio track" in reasons["silent"]
    assert all("\n" not in reason and reason for reason in reasons.values())
    assert [path.name for path in (out / "clips").iterdir()] == ["good.safetensors"]
    assert manifest(out)["failed"] == 6
    # Failures are tried again, and may be bridged by another setting.
    write_video(source / "nobody.mp4")
    report = prepare(source, out, PrepareOptions(workers=1))
    assert (report.done, report.skipped, report.failed) == (1, 1, 5)
    assert prepare(source, out, PrepareOptions(workers=1), faces=FaceOptions(max_gap_frames=15)).failed == 4
    with pytest.raises(RuntimeError, match=r"4 failed.*at most 50% failures \(--max-failures\)"):
        prepare(source, out, PrepareOptions(workers=1, max_failures=0.5), faces=FaceOptions(max_gap_frames=15))


def test_a_clip_whose_source_became_unusable_goes(source: Path) -> None:
    run(source)
    out = source.parent / "out"
    write_video(source / "anna" / "1.mp4", face=False)
    (source / "bob" / "1.mp4").unlink()
    assert run(source).failed == 1
    assert not (out / "anna" / "1.safetensors").exists()
    assert (out / "bob" / "1.safetensors").exists()  # not in the manifest any more, but not ours to delete
    assert [entry["id"] for entry in manifest(out)["clips"]] == ["zoë/клип_7"]


def test_what_cannot_be_prepared(tmp_path: Path, source: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--source"):
        run(tmp_path / "absent")
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match="no videos"):
        run(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no folder main"):
        run(source, dataset="lrs2")
    with pytest.raises(ValueError, match="--dataset"):
        run(source, dataset="voxceleb")
    with pytest.raises(ValueError, match="--max-failures"):
        run(source, max_failures=2)
    with pytest.raises(ValueError, match="--workers"):
        run(source, workers=0)


def test_a_dead_worker_costs_one_job() -> None:
    # eval stands for work that any process can import; os._exit for a crash in a codec.
    jobs = ["1 + 1", "__import__('os')._exit(9)", "__import__('os').kill(__import__('os').getpid(), 9)", "2 * 3", "7"]
    results = dict(run_jobs(eval, jobs, 2))
    assert results.keys() == set(jobs)
    assert [results[job] for job in ("1 + 1", "2 * 3", "7")] == [2, 6, 7]
    deaths = [results[jobs[1]], results[jobs[2]]]
    assert all(isinstance(death, WorkerDied) for death in deaths)
    assert [str(death).rpartition(" ")[2] for death in deaths] == ["9", "-9"]


def test_a_worker_that_dies_in_the_middle_of_its_answer_costs_one_job() -> None:
    large = "__import__('time').sleep(1) or bytes(10_000_000)"  # more than a pipe takes before somebody reads
    results = run_jobs(eval, ["1", large], 2)
    assert next(results) == ("1", 1)
    time.sleep(2)  # nobody reads meanwhile
    (sending,) = multiprocessing.active_children()
    sending.kill()
    ((job, death),) = results
    assert job == large
    assert isinstance(death, WorkerDied)


def test_a_dead_worker_is_a_failed_clip(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def died(function: Any, jobs: Any, *_: Any) -> Iterator[Any]:
        for job in jobs:
            yield job, (WorkerDied("status -9") if job.source.id == "bob/1" else function(job))

    monkeypatch.setattr(prepare_module, "run_jobs", died)
    assert run(source).failed == 1
    assert failures(source.parent / "out")[0]["error"] == "WorkerDied"
    assert manifest(source.parent / "out")["complete"] is True


@pytest.mark.slow
def test_ctrl_c_leaves_whole_files_and_no_processes(tmp_path: Path, good: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for k in range(60):
        shutil.copy(good, source / f"{k:02d}.mp4")
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom lipsync_bench.datamodules.prepare.options import PrepareOptions\n"
        "from lipsync_bench.datamodules.prepare.prepare import prepare\n"
        "if __name__ == '__main__':\n"
        f"    prepare(Path({str(source)!r}), Path({str(out)!r}), PrepareOptions(workers=2))\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # jobs in the background ignore it
    )
    deadline = time.monotonic() + 120
    while len(list(out.glob("*/*.safetensors"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, messages = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in messages
    assert not alive_in_group(process.pid)
    made = sorted(path.name for path in (out / "clips").iterdir())
    assert 2 <= len(made) < 60
    assert all(name.endswith(".safetensors") and not name.startswith(".") for name in made)
    for name in made:
        assert read_header(out / "clips" / name).frames == 22
    content = manifest(out)
    assert content["complete"] is False
    assert {f"{Path(entry['id']).name}.safetensors" for entry in content["clips"]} <= set(made)
