# SPDX-License-Identifier: Apache-2.0
"""`kill -9` in the middle of the real commands, then the same command again: the result is that of an uninterrupted
run, nothing is there twice, and nothing is left over. (`bench dub` is killed in test_dubbing.py.)
"""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from lipsync_bench.datamodules.clips.clip import read_header
from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.models import Wav2Lip
from lipsync_bench.models.core.checkpoints import save_module
from lipsync_bench.results.rows import read_rows
from tests.commands import run_bench
from tests.leftovers import left_by_the_dead
from tests.lipsync_bench.killing import digests, kill_when


@pytest.mark.slow
def test_prepare(corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    common = ("prepare", "--dataset", "synthetic", "--source", corpus / "videos", "--workers", 2)
    common = (*common, "--for", "wav2lip", "--recipe.crop", "mesh")
    assert run_bench(*common, "--out", tmp_path / "whole") == 0
    out, whole = tmp_path / "out", digests(tmp_path / "whole")
    arguments = (*common, "--out", out)
    process = kill_when(lambda: any(out.glob("*/*.safetensors")), *arguments)

    made = [path.relative_to(out).as_posix() for path in out.glob("*/*.safetensors")]
    assert 1 <= len(made) < 6
    for name in made:  # what bears its name is whole
        assert sha256(out / name) == whole[name]
        assert read_header(out / name).frames == 40
    assert json.loads((out / "manifest.json").read_text())["complete"] is False
    (out / "s02").mkdir(exist_ok=True)
    # had it been killed a little later
    left_by_the_dead(out / "s02" / "00003.safetensors", process).write_bytes(b"half")

    caplog.clear()
    assert run_bench(*arguments) == 0
    assert f"{6 - len(made)} clips prepared, {len(made)} already there, 0 failed" in caplog.text
    assert digests(out) == whole  # the manifest among them: it holds no time of the run
    times = {path: path.stat().st_mtime_ns for path in out.glob("*/*.safetensors")}
    assert run_bench(*arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/*.safetensors")} == times


@pytest.mark.slow
def test_evaluate(corpus: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "wav2lip.ckpt"
    torch.manual_seed(0)
    save_module(Wav2Lip(width=0.25, recipe={"crop": "mesh"}), checkpoint)
    arguments = ("evaluate", "--dataset", "synthetic", "--root", corpus / "clips", "--methods.wav2lip", checkpoint)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    rows = killed / "clips.csv"

    def lines() -> list[bytes]:
        """Whole rows, without the head."""
        content = rows.read_bytes().splitlines(keepends=True)[1:] if rows.is_file() else []
        return [line for line in content if line.endswith(b"\n")]

    process = kill_when(lambda: bool(lines()), *arguments, "--out", killed)
    there = lines()
    assert 1 <= len(there) < 6
    assert not (killed / "leaderboard.csv").exists()
    # had it been killed a little later
    leftover = left_by_the_dead(killed / "ground_truth" / "s02" / "00003.npz", process)
    leftover.parent.mkdir(parents=True, exist_ok=True)
    leftover.write_bytes(b"half")

    for out in (killed, whole):
        assert run_bench(*arguments, "--out", out) == 0
    assert lines()[: len(there)] == there  # not measured again
    assert len(lines()) == 6
    ours, expected = (read_rows(out).drop(columns=["seconds", "generate_seconds"]) for out in (killed, whole))
    pd.testing.assert_frame_equal(ours, expected, check_exact=True)
    assert (killed / "leaderboard.csv").read_bytes() == (whole / "leaderboard.csv").read_bytes()
    before = rows.read_bytes()
    assert run_bench(*arguments, "--out", killed) == 0
    assert rows.read_bytes() == before
    assert sorted(digests(killed)) == sorted(digests(whole))  # no temporary file is left
