# SPDX-License-Identifier: Apache-2.0
"""An evaluation by several processes leaves what one process leaves; base frames too."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from lipsync_bench.datamodules.splitting import Splitting
from lipsync_bench.evaluation.evaluate import evaluate_dataset
from lipsync_bench.evaluation.options import Inputs, Running, Selection
from lipsync_bench.inference.base_frames import FAILURES, make_base_frames
from lipsync_bench.models import HyperLipsBase
from lipsync_bench.models.core.checkpoints import save_module
from lipsync_bench.on_devices import on_devices
from lipsync_bench.results.rows import join_rows, read_rows
from tests.commands import run_bench
from tests.datamodules.preparation import alive_in_group, contents
from tests.lipsync_bench.killing import ROOT
from tests.ray_here import two_ray_workers


@pytest.fixture(scope="module")
def given(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """All clips, and predictions of one method, one of which is broken. Those of one speaker are evaluated."""
    folder = tmp_path_factory.mktemp("benchmark")
    arguments = {"root": str(corpus / "clips"), "source": str(corpus / "videos"), "overfit": True}
    path = folder / "all_clips.yaml"
    path.write_text(
        f"data: {{class_path: lipsync_bench.datamodules.ClipFolder, init_args: {arguments}}}\n".replace("True", "true")
    )
    shutil.copytree(corpus / "videos" / "main", folder / "mine" / "main")
    sorted((folder / "mine").rglob("*.mp4"))[1].write_bytes(b"broken")
    return str(path), folder / "mine"


def evaluate(given: tuple[str, Path], out: Path, running: Running = Running(), part: Splitting = Splitting()) -> Any:
    inputs = Inputs(pred={"mine": given[1]})
    select = Selection(only=["mine"], clips=["s01/*"])
    return evaluate_dataset(
        given[0], out, inputs=inputs, select=select, running=running, splitting=part, progress=False
    )


@pytest.fixture(scope="module")
def whole(given: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "out"
    evaluate(given, out)
    assert (read_rows(out)["status"] == "failed").sum() == 1
    return without_times(out)


def without_times(out: Path) -> dict[str, bytes]:
    """All files of a results folder but for the manifest's sessions and the seconds in rows, which are of that run."""
    files = contents(out)
    rows = pd.read_csv(out / "clips.csv", dtype=str, keep_default_na=False)
    files["clips.csv"] = rows.drop(columns=["seconds", "generate_seconds"]).to_csv().encode()
    manifest = json.loads(files["manifest.json"])
    assert {session["outcome"] for session in manifest.pop("sessions")} == {"done"}
    board = pd.read_csv(out / "leaderboard.csv", dtype=str, keep_default_na=False)
    files["leaderboard.csv"] = board[[name for name in board if "seconds" not in name]].to_csv().encode()
    return {**files, "manifest.json": json.dumps(manifest).encode()}


def test_processes_of_this_machine(given: tuple[str, Path], whole: dict[str, bytes], tmp_path: Path) -> None:
    result = evaluate(given, tmp_path, Running(devices=2))
    assert result.leaderboard["clips"].tolist() == [3, 2]
    assert without_times(tmp_path) == whole
    (session,) = json.loads((tmp_path / "manifest.json").read_text())["sessions"]
    assert session["processes"] == 2


def test_slices_one_after_the_other(
    given: tuple[str, Path], whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later slice leaves the failed row of an earlier one alone."""
    shares = []
    for index in (3, 1, 2):
        monkeypatch.setenv("SLURM_PROCID", str(index - 1))  # counts less than the option
        monkeypatch.setenv("SLURM_NTASKS", "7")
        result = evaluate(given, tmp_path, part=Splitting(f"{index}/3"))
        shares.append(result.missing)
    assert shares == [4, 2, 0]
    assert without_times(tmp_path) == whole


def test_ray(given: tuple[str, Path], whole: dict[str, bytes], tmp_path: Path) -> None:
    with two_ray_workers(tmp_path / "home"):
        result = evaluate(given, tmp_path / "out", Running(devices=3), Splitting(executor="ray"))
        assert result.leaderboard["clips"].tolist() == [3, 2]
        assert without_times(tmp_path / "out") == whole
        with pytest.raises(FileNotFoundError, match=r"--pred mine=.*none is no folder"):
            evaluate((given[0], tmp_path / "none"), tmp_path / "out", Running(devices=2), Splitting(executor="ray"))


def test_what_splits_twice_is_refused(given: tuple[str, Path], tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(ValueError, match=r"--devices 2 with --slice 1/2\. Expected one of the two"):
        evaluate(given, tmp_path, Running(devices=2), Splitting("1/2"))
    with pytest.raises(ValueError, match=r"--executor ray with --slice 1/2"):
        evaluate(given, tmp_path, part=Splitting("1/2", "ray"))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"--devices 2 in one of 2 processes of torchrun"):
        evaluate(given, tmp_path, Running(devices=2))
    assert not list(tmp_path.iterdir())


def test_rows_are_not_joined_while_somebody_appends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lipsync_bench.results import rows

    monkeypatch.setattr(rows, "_JOIN_WAIT_S", 0.0)
    files = [rows.RowFile(tmp_path / f"clips.rank{k}.csv") for k in range(2)]
    row = {"protocol": "p-v1", "generator_sha256": "", "paste": "", "audio_clip": "a", "status": "ok"}
    for k in (1, 0):
        files[k].append({**row, "method": f"m{k}", "clip": "a"})
    files[0].close()
    join_rows(tmp_path, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips.rank0.csv", "clips.rank1.csv"]
    files[1].close()
    join_rows(tmp_path, [("p-v1", "m1", "", "", "", "a", "a")])
    assert [path.name for path in tmp_path.iterdir()] == ["clips.csv"]
    assert [line.split(",")[1] for line in (tmp_path / "clips.csv").read_text().splitlines()[1:]] == ["m1", "m0"]


def _die(how: str) -> str:
    rank = int(os.environ["RANK"])
    assert os.environ["LOCAL_RANK"] == os.environ["RANK"]
    assert os.environ["MASTER_ADDR"] == "127.0.0.1"
    if rank == 1:
        if how == "error":
            raise ValueError("what is wrong")
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)
    return "never"


@pytest.mark.parametrize(
    ("how", "message"), [("error", "^what is wrong$"), ("death", "process 2 of 3 ended with status -9 .* resumes")]
)
def test_one_process_that_fails_ends_all(how: str, message: str) -> None:
    began = time.monotonic()
    with pytest.raises((ValueError, RuntimeError), match=message):
        on_devices(3, _die, how=how)
    assert time.monotonic() - began < 100


@pytest.mark.slow
def test_ctrl_c_ends_all_processes(given: tuple[str, Path], whole: dict[str, bytes], tmp_path: Path) -> None:
    words = ["evaluate", "--dataset", given[0], "--pred", f"mine={given[1]}", "--only", "mine"]
    command = [sys.executable, "-m", "lipsync_bench.bench", *words, "--out", str(tmp_path), "--devices", "2"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # jobs in the background ignore it
    )
    deadline = time.monotonic() + 120
    while not any(path.read_bytes().count(b"\n") > 1 for path in tmp_path.glob("clips*.csv")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)  # to the parent alone, which tells the others
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; the same command resumes" in messages
    assert not alive_in_group(process.pid)
    assert run_bench(*words, "--out", tmp_path) == 0
    rows = read_rows(tmp_path)
    assert len(rows) == 12


@pytest.fixture
def prepared(corpus: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Copies of the prepared corpus, one clip of which is broken."""

    def copy(name: str) -> Path:
        root = Path(shutil.copytree(corpus / "clips", tmp_path / name))
        broken = sorted(root.glob("*/*.safetensors"))[2]
        broken.write_bytes(broken.read_bytes()[:5000])
        return root

    return copy


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "base.ckpt"
    torch.manual_seed(0)
    save_module(HyperLipsBase(width=0.125, recipe={"crop": "mesh"}), path)
    return path


def test_base_frames_by_slices_and_on_ray(prepared: Callable[[str], Path], base: Path, tmp_path: Path) -> None:
    root = prepared("one")
    report = make_base_frames(base, root)
    assert (report.done, report.failed) == (5, 1)
    expected = [(name, data.replace(bytes(root), b"")) for name, data in contents(root).items()]
    sliced = prepared("sliced")
    for part in ("2/2", "1/2"):
        assert not (sliced / FAILURES).exists()
        assert run_bench("base-frames", "--checkpoint", base, "--root", sliced, "--slice", part) == 0
    assert [(name, data.replace(bytes(sliced), b"")) for name, data in contents(sliced).items()] == expected
    with (sliced / FAILURES).open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 1
    with two_ray_workers(tmp_path / "home"):
        root = prepared("ray")
        make_base_frames(base, root, splitting=Splitting(executor="ray"), workers=2)
        assert [(name, data.replace(bytes(root), b"")) for name, data in contents(root).items()] == expected
