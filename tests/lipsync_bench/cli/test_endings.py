# SPDX-License-Identifier: Apache-2.0
"""How both commands end on errors of users and of the system: one line, status 1; wrong usage: status 2."""

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lipsync_bench.cli import lightning as cli
from lipsync_bench.cli.endings import DEBUG, errors_in_a_line, told
from lipsync_bench.cli.logs import show_logs
from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.faces.options import FaceOptions
from lipsync_bench.datamodules.prepare import prepare as preparing
from lipsync_bench.datamodules.prepare.make_clip import prepare_one
from lipsync_bench.datamodules.prepare.options import PrepareOptions
from lipsync_bench.evaluation import Selection
from lipsync_bench.evaluation.task.protocol import load_protocol
from lipsync_bench.inference.cutting import cut_by_time
from lipsync_bench.processes import device_of
from tests.commands import run_bench

SYSTEM = ["ENOSPC", "EDQUOT", "EROFS", "EACCES", "ENOTDIR", "EISDIR", "EMFILE", "ELOOP", "ENAMETOOLONG", "EIO", "EXDEV"]


@pytest.mark.parametrize("name", SYSTEM)
def test_every_error_of_the_system_is_a_line_with_path_and_way_out(name, caplog):
    with pytest.raises(SystemExit) as ended, errors_in_a_line():
        raise OSError(getattr(errno, name), "x", "folder/a\nb.csv")
    assert ended.value.code == 1
    (record,) = caplog.records
    assert record.getMessage().startswith("error: folder/a b.csv: ")
    assert "Traceback" not in caplog.text
    assert len(record.getMessage().split(": ", 2)[2]) > 20


def test_of_others_only_what_is_the_users_side_is_a_line(monkeypatch, caplog):
    assert told(torch.OutOfMemoryError("x")).startswith("the GPU has not enough memory")
    assert told(MemoryError()).startswith("not enough memory")
    assert told(MediaError("a.mp4: broken")) == "a.mp4: broken"
    in_worker = MediaError("Caught MediaError in DataLoader worker process 0.\nOriginal Traceback:\n  x\na.mp4: broken")
    assert told(in_worker) == "a.mp4: broken"
    for fault in (KeyError("x"), RuntimeError("x"), TypeError("x"), AssertionError()):
        assert told(fault) is None
        with pytest.raises(type(fault)), errors_in_a_line():
            raise fault
    monkeypatch.setenv(DEBUG, "1")
    with pytest.raises(SystemExit), errors_in_a_line():
        raise ValueError("x")
    assert "Traceback" in caplog.text


def test_names_neither_steer_the_terminal_nor_make_lines(capsys):
    show_logs()
    logger = logging.getLogger("lipsync_bench.x")
    handler = logging.getLogger("lipsync_bench").handlers[0]
    record = logger.makeRecord("x", logging.INFO, "", 1, "%s", ("a\x1b[2J\nerror: b\u202e",), None)
    assert handler.format(record) == "a\\x1b[2J\\nerror: b\\u202e"


@pytest.mark.parametrize("name", ["x", "cuda:99", "meta", "cpu:1", "cuda:-1", "mps:7"])
def test_a_device_that_is_not_there_is_named_with_those_that_are(name):
    with pytest.raises(ValueError, match=rf"device '{name}': not there\. Expected auto or one of cpu.*--device"):
        device_of(name)
    assert device_of("cpu") == "cpu"


@pytest.mark.parametrize(
    "words",
    [
        "evaluate --pred a --target b --limit 0",
        "evaluate --pred a --target b --limit -1",
        "evaluate --pred a --target b --workers 0",
        "table lipformer-1 --limit 0",
        "prepare --source a --out b --workers -1",
        "prepare --source a --out b --max-gap-frames -1",
        "prepare --source a --out b --max-crop-px 0",
        "prepare --source a --out b --max-failures nan",
        "prepare --source a --out b --max-failures 1.5",
        "cut --video a --out b --val-seconds nan",
        "cut --video a --out b --test-seconds inf",
        "synthetic --out b --seconds nan",
        "synthetic --out b --speakers 0",
        "synthetic --out b --seed -1",
        "demo --seed -1",
        "dub --checkpoint a --video b --audio c --out d --max-gap-frames -1",
    ],
)
def test_numbers_without_sense_are_wrong_usage_before_anything_is_written(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_bench(*words.split()) == 2
    assert list(tmp_path.iterdir()) == []


def test_groups_refuse_them_in_python_too():
    for limit in (0, -1):
        with pytest.raises(ValueError, match=r"limit is .*--limit"):
            Selection(limit=limit)
    for bad in ({"max_crop_px": 10**6}, {"workers": 0}, {"max_failures": float("nan")}):
        with pytest.raises(ValueError, match=r"Expected .*--(max|workers)"):
            PrepareOptions(**bad)
    for bad in ({"max_gap_frames": -1}, {"face": -1}):
        with pytest.raises(ValueError, match=r"Expected 0 or more.*--(max|face)"):
            FaceOptions(**bad)


def test_a_cut_of_no_length_is_refused(corpus, tmp_path):
    video = corpus / "videos" / "main" / "s01" / "00001.mp4"
    for seconds in (float("nan"), float("inf"), -1.0):
        with pytest.raises(ValueError, match=r"--test_seconds .*Expected 2 to"):
            cut_by_time(video, tmp_path / "out", test_seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        "size_hw: [0, 0]",
        "size_hw: [-1, 160]",
        "size_hw: [1, 1]",
        "size_hw: [100000, 100000]",
        "mouth_margin: .nan",
        "mouth_margin: -9",
        "mouth_margin: 1e308",
        "seconds: {synthetic: .nan}",
        "seconds: {synthetic: .inf}",
        "seconds: {synthetic: -1}",
        "pairs: {synthetic: 0}",
        "seed: -1",
        "crf: 52",
        "version: 0",
        "seed: " + ":".join(["1"] * 5000),
    ],
)
def test_protocols_without_sense_name_file_and_key(text, tmp_path):
    body = text if text.startswith("version") else f"version: 1\n{text}"
    (tmp_path / "p.yaml").write_text(f"{body}\n")
    with pytest.raises(ValueError, match=rf"p\.yaml: .*{text.partition(':')[0]}.* Expected a protocol"):
        load_protocol(str(tmp_path / "p.yaml"))


def _full(job):
    outcome = prepare_one(job)
    return type(outcome)(error="OSError", reason="x", system=OSError(errno.ENOSPC, "full", str(job.target)))


@pytest.mark.parametrize("workers", [1, 2])
def test_preparing_stops_at_a_full_disk(workers, tmp_path, monkeypatch, caplog, capfd):
    for number in range(9):
        (tmp_path / f"{number}.mp4").write_bytes(b"broken")
    monkeypatch.setattr(preparing, "prepare_one", _full)
    caplog.set_level(logging.ERROR)
    assert run_bench("prepare", "--source", tmp_path, "--out", tmp_path / "out", "--workers", workers) == 1
    (record,) = caplog.records
    assert "safetensors: the disk is full" in record.getMessage()
    assert (tmp_path / "out" / "failures.csv").read_text().count("\n") == 1


def test_lightning_refuses_a_bomb_and_a_text_of_another_kind_at_once(tmp_path, caplog, monkeypatch):
    bomb = tmp_path / "bomb.yaml"
    bomb.write_text("a: &a [1, 1, 1, 1]\n" + "".join(f"b{i}: &b{i} [{'*a, ' * 99}*a]\n" for i in range(99)))
    (tmp_path / "latin.yaml").write_bytes(b"seed_everything: 1 # \xe9\n")
    for name, found in (("bomb", "20,000 values"), ("latin", "not UTF-8")):
        caplog.clear()
        with pytest.raises(SystemExit) as ended:
            cli.main(["fit", "-c", str(tmp_path / f"{name}.yaml")])
        assert ended.value.code == 1
        assert f"{name}.yaml: " in caplog.text
        assert found in caplog.text


def test_bench_refuses_a_bomb_of_arguments(tmp_path, caplog):
    (tmp_path / "bomb.yaml").write_text("[" * 100_000)
    assert run_bench("evaluate", "--config", tmp_path / "bomb.yaml") == 1
    assert "bomb.yaml: not valid YAML (more than 40 levels" in caplog.text


def test_lightning_says_in_which_file_wrong_arguments_are(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("trainer:\n  max_epochs: x1\n")
    with pytest.raises(SystemExit) as ended:
        cli.main(["fit", "-c", str(tmp_path / "mine.yaml")])
    assert ended.value.code == 2
    assert f"error: {tmp_path / 'mine.yaml'}: " in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_below_the_standard_output_is_a_line():
    command = [sys.executable, "-m", "lipsync_bench.bench", "table", "list"]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env={**os.environ}, check=False)
    assert ended.returncode == 1
    assert "error: the disk is full" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_every_value_of_a_cached_target_fits_or_it_is_computed_again(tmp_path, caplog):
    from lipsync_bench.datamodules.files.disk import write_arrays
    from lipsync_bench.evaluation.target.chunks import _Cache
    from lipsync_bench.evaluation.task.protocol import Protocol

    class Found:
        protocol = Protocol(1)

        def key(self, header):
            return "r"

    class Clip:
        class header:
            source_sha256 = "s"

    facts = {"source": "s", "faces": "r"}
    good = {"landmarks": np.zeros((3, 68, 2), np.float32), "boxes": np.zeros((3, 4)), "seen": np.zeros(3, bool)}
    path = tmp_path / "a.npz"
    for arrays, covers in ((good, True), ({**good, "boxes": np.zeros((2, 4))}, False), ({"seen": good["seen"]}, False)):
        write_arrays(path, **arrays, **facts)
        assert _Cache(path, Clip(), Found()).covers(3) == covers  # type: ignore[arg-type]
    path.write_bytes(b"damaged")
    assert not _Cache(path, Clip(), Found()).covers(1)  # type: ignore[arg-type]
    assert "It is computed again" in caplog.text
