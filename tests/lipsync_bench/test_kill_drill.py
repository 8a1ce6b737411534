# SPDX-License-Identifier: Apache-2.0
"""The kill drill: commands that are killed again and again and started again, until they end as if nobody had.

100 videos, among them one of each kind of broken ones; LIPSYNC_KILL_DRILL_FILES sets another number.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lipsync_bench.datamodules.prepare.options import PrepareOptions
from lipsync_bench.datamodules.prepare.prepare import prepare
from lipsync_bench.models import Wav2Lip
from lipsync_bench.models.core.checkpoints import save_module
from lipsync_bench.results.rows import IDENTITY, read_rows
from tests.commands import run_bench
from tests.datamodules.preparation import alive_in_group, failures, manifest, write_video
from tests.lipsync_bench.killing import digests, kill_when

FILES = int(os.environ.get("LIPSYNC_KILL_DRILL_FILES", "100"))
BROKEN = FILES // 20
KILLS = 5


def write_folder(folder: Path, scratch: Path) -> set[str]:
    """Videos of a moment each, and broken ones among them; returns the ids of these."""
    good = [write_video(scratch / f"{frames}.mp4", frames) for frames in (5, 6, 7)]
    whole = good[0].read_bytes()
    bad = [scratch / name for name in ("empty.mp4", "cut.mp4", "noise.mp4")]
    for path, content in zip(bad, (b"", whole[: len(whole) // 3], np.random.default_rng(0).bytes(9000)), strict=True):
        path.write_bytes(content)
    bad += [write_video(scratch / "nobody.mp4", 6, face=False), write_video(scratch / "silent.mp4", 6, sound=False)]
    broken = set()
    for k in range(FILES):
        number, left = divmod(k, 20)
        source = good[k % len(good)] if left else bad[number % len(bad)]
        path = folder / f"speaker{k % 7}" / f"{k:03d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, path)
        if not left:
            broken.add(f"speaker{k % 7}/{k:03d}")
    return broken


@pytest.mark.slow
def test_prepare_killed_five_times(tmp_path: Path) -> None:
    source, out, whole = tmp_path / "in", tmp_path / "out", tmp_path / "whole"
    broken = write_folder(source, tmp_path / "material")
    arguments = ("prepare", "--source", source, "--out", out, "--workers", 2)

    for kill in range(KILLS):
        wanted = (2 * kill + 1) * FILES // (2 * KILLS)
        kill_when(lambda wanted=wanted: len(list(out.glob("*/*.safetensors"))) >= wanted, *arguments)
        assert manifest(out)["complete"] is False
    # The last time nobody kills the workers: they notice, and end with whole files.
    made = len(list(out.glob("*/*.safetensors")))
    group = kill_when(lambda: len(list(out.glob("*/*.safetensors"))) > made, *arguments, alone=True)
    assert not alive_in_group(group)
    assert run_bench(*arguments) == 0

    report = prepare(source, whole, PrepareOptions(workers=2), progress=False)
    assert (report.done, report.failed) == (FILES - BROKEN, BROKEN)
    assert digests(out) == digests(whole)  # clips, manifest.json, failures.csv, and nothing else
    assert {row["id"] for row in failures(out)} == broken
    assert len(manifest(out)["clips"]) == FILES - BROKEN


@pytest.mark.slow
def test_evaluate_killed_three_times(corpus: Path, tmp_path: Path) -> None:
    checkpoint, benchmark = tmp_path / "wav2lip.ckpt", tmp_path / "all_clips.yaml"
    torch.manual_seed(0)
    save_module(Wav2Lip(width=0.25, recipe={"crop": "mesh"}), checkpoint)
    arguments = {"root": str(corpus / "clips"), "source": str(corpus / "videos"), "overfit": True}
    benchmark.write_text(
        f"data: {{class_path: lipsync_bench.datamodules.ClipFolder, init_args: {arguments}}}\n".replace("True", "true")
    )
    command = ("evaluate", "--dataset", benchmark, "--methods.wav2lip", checkpoint, "--clips", "s01/*")
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    rows = killed / "clips.csv"

    def lines() -> list[bytes]:
        """Whole rows, without the head."""
        content = rows.read_bytes().splitlines(keepends=True)[1:] if rows.is_file() else []
        return [line for line in content if line.endswith(b"\n")]

    measured: list[bytes] = []
    for wanted in (1, 4, 7):
        kill_when(lambda wanted=wanted: len(lines()) >= wanted, *command, "--out", killed)
        assert lines()[: len(measured)] == measured  # not measured again
        measured = lines()
    for out in (killed, whole):
        assert run_bench(*command, "--out", out) == 0
    assert lines()[: len(measured)] == measured
    assert len(lines()) == 9  # three candidates on three clips
    ours, expected = (read_rows(out).drop(columns=["seconds", "generate_seconds"]) for out in (killed, whole))
    assert not ours.duplicated(list(IDENTITY)).any()
    pd.testing.assert_frame_equal(ours, expected, check_exact=True)
    assert (killed / "leaderboard.csv").read_bytes() == (whole / "leaderboard.csv").read_bytes()
    assert sorted(digests(killed)) == sorted(digests(whole))  # no temporary file is left
