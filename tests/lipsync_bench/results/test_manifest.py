# SPDX-License-Identifier: Apache-2.0
"""The manifest: its content, successive sessions, what it leaves out, and a run repeated from it."""

import hashlib
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest

from lipsync_bench.datamodules.clips.clip import read_header
from lipsync_bench.datamodules.weights.options import WeightOptions
from lipsync_bench.evaluation.evaluate import evaluate_dataset
from lipsync_bench.evaluation.options import Inputs, MetricOptions, Rules, Running, Selection
from lipsync_bench.results.errors import OtherResultsError
from lipsync_bench.results.manifest import (
    Run,
    clip_list_sha256,
    commit,
    machine,
    read_manifest,
    session,
    uncommitted_changes,
)

REPOSITORY = Path(__file__).parents[3]


def run(**changes) -> Run:
    values = {
        "identity": {"protocol": "p-v1", "scorers": {"lse_sha256": ""}, "dataset": "lrs2", "split": "test"},
        "protocol": {"name": "p", "version": 1},
        "methods": {"wav2lip": "ab" * 32},
        "config": {"dataset": "lrs2", "limit": 3, "root": Path("data/lrs2"), "methods": {"wav2lip": Path("w.ckpt")}},
        "clips": {"a/1": "11" * 32, "a/2": "22" * 32},
        "weights": {"expert": ""},
        "seeds": {"bootstrap": 0},
        "command": ["bench", "evaluate", "--dataset", "lrs2"],
    }
    return Run(**{**values, **changes})


def test_a_session_records_everything_that_a_repetition_needs(tmp_path):
    with session(tmp_path / "results", run()):
        during = read_manifest(tmp_path / "results")["sessions"][0]
        assert (during["outcome"], during["ended"]) == ("running", None)
    manifest = read_manifest(tmp_path / "results")
    assert manifest["identity"]["dataset"] == "lrs2"
    assert manifest["protocol"] == {"name": "p", "version": 1}
    assert manifest["methods"] == {"wav2lip": "ab" * 32}
    (entry,) = manifest["sessions"]
    assert entry["outcome"] == "done"
    assert datetime.fromisoformat(entry["started"]) <= datetime.fromisoformat(entry["ended"])
    assert datetime.fromisoformat(entry["started"]).utcoffset().total_seconds() == 0
    assert entry["command"] == ["bench", "evaluate", "--dataset", "lrs2"]
    assert entry["config"] == {
        "dataset": "lrs2",
        "limit": 3,
        "root": "data/lrs2",
        "methods": {"wav2lip": "w.ckpt"},
    }
    assert entry["weights"] == {"wav2lip": "ab" * 32, "expert": ""}
    assert entry["seeds"] == {"bootstrap": 0}
    assert entry["clips"] == {"count": 2, "sha256": clip_list_sha256(run().clips)}
    assert entry["versions"]["torch"] == version("torch")
    assert entry["versions"]["libavcodec"].count(".") == 2
    assert entry["machine"]["cores"] >= 1
    assert entry["machine"]["memory_gib"] > 0.1
    assert entry["processes"] == 1
    assert re.fullmatch(r"[0-9a-f]{64}", entry["code"]["sources_sha256"])
    assert set(entry["code"]) == {"version", "commit", "uncommitted_changes", "sources_sha256"}
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["manifest.json"]


def test_a_resumed_run_appends_a_session_and_keeps_the_earlier_ones(tmp_path):
    with session(tmp_path, run()):
        pass
    first = read_manifest(tmp_path)["sessions"][0]
    with session(tmp_path, run(methods={"hyperlips": "cd" * 32}, clips={"a/1": "11" * 32})):
        pass
    manifest = read_manifest(tmp_path)
    assert manifest["sessions"][0] == first
    assert [entry["clips"]["count"] for entry in manifest["sessions"]] == [2, 1]
    assert manifest["methods"] == {"wav2lip": "ab" * 32, "hyperlips": "cd" * 32}
    assert len({entry["id"] for entry in manifest["sessions"]}) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_stopped_session_records_the_exception(tmp_path, error):
    with pytest.raises(error), session(tmp_path, run()):
        raise error
    (entry,) = read_manifest(tmp_path)["sessions"]
    assert entry["outcome"] == f"stopped: {error.__name__}"
    assert entry["ended"] is not None


def test_two_sessions_at_once_keep_each_others_entries(tmp_path):
    with session(tmp_path, run()):
        with session(tmp_path, run()):
            pass
        assert [entry["outcome"] for entry in read_manifest(tmp_path)["sessions"]] == ["running", "done"]
    assert [entry["outcome"] for entry in read_manifest(tmp_path)["sessions"]] == ["done", "done"]


def test_another_identity_is_refused_and_nothing_is_written(tmp_path):
    with session(tmp_path, run()):
        pass
    before = (tmp_path / "manifest.json").read_bytes()
    other = {**run().identity, "scorers": {"lse_sha256": "ee"}}
    with (
        pytest.raises(OtherResultsError, match=r"another scorers.*'ee'.*--out"),
        session(tmp_path, run(identity=other)),
    ):
        pytest.fail("the session began")
    without = {key: value for key, value in run().identity.items() if key != "dataset"}
    with pytest.raises(ValueError, match="another dataset"), session(tmp_path, run(identity=without)):
        pytest.fail("the session began")
    assert (tmp_path / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"manifest\.json: not JSON"),
        ('{"identity": {}, "methods": {}}', "another version"),
        ("[]", r"manifest\.json: holds a list"),
    ],
)
def test_a_damaged_or_foreign_manifest_is_refused(tmp_path, content, message):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(OtherResultsError, match=rf"{message}.*--out"), session(tmp_path, run()):
        pytest.fail("the session began")
    assert (tmp_path / "manifest.json").read_text() == content
    with pytest.raises(FileNotFoundError, match="bench evaluate"):
        read_manifest(tmp_path / "none")


def test_paths_that_the_user_did_not_type_are_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = {
        "typed": Path("/data/lrs2"),
        "below": tmp_path / "clips" / "a",
        "elsewhere": Path("/home/somebody/secret/expert.ckpt"),
        "list": [Path("/home/somebody/x"), 1.5, True, None],
    }
    command = ["bench", "evaluate", "--root=/data/lrs2"]
    with session(tmp_path / "out", run(config=config, command=command)):
        pass
    entry = read_manifest(tmp_path / "out")["sessions"][0]
    assert entry["config"] == {
        "typed": "/data/lrs2",
        "below": "clips/a",
        "elsewhere": "expert.ckpt",
        "list": ["x", 1.5, True, None],
    }
    text = (tmp_path / "out" / "manifest.json").read_text()
    assert "somebody" not in text
    assert str(tmp_path) not in text
    assert str(REPOSITORY) not in text


def test_the_command_is_this_processs_without_the_scripts_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/opt/env/bin/bench", "evaluate", "--root", "/data/x"])
    with session(tmp_path / "a", run(command=None)):
        pass
    assert read_manifest(tmp_path / "a")["sessions"][0]["command"] == ["bench", "evaluate", "--root", "/data/x"]
    monkeypatch.setattr(sys, "argv", ["/x/ipykernel_launcher.py", "-f", "/home/somebody/kernel.json"])
    with session(tmp_path / "b", run(command=None)):
        pass
    assert read_manifest(tmp_path / "b")["sessions"][0]["command"] == ["notebook"]


def test_the_list_of_clips_is_hashed_independent_of_its_order():
    clips = {"b": "2", "a": "1"}
    assert clip_list_sha256(clips) == clip_list_sha256({"a": "1", "b": "2"})
    assert clip_list_sha256(clips) == hashlib.sha256(b'"a" 1\n"b" 2\n').hexdigest()
    assert clip_list_sha256(clips) != clip_list_sha256({"a": "1", "b": "3"})
    assert clip_list_sha256(clips) != clip_list_sha256({"a": "1"})


def git(folder: Path, *arguments: str) -> str:
    name = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "init.defaultBranch=main"]
    return subprocess.run(
        ["git", "-C", str(folder), *name, *arguments], check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_the_commit_is_read_from_every_kind_of_checkout(tmp_path, monkeypatch):
    plain = tmp_path / "plain"
    plain.mkdir()
    assert (commit(plain), uncommitted_changes(plain)) == (None, None)
    git(plain, "init")
    assert commit(plain) is None  # no commit yet
    (plain / "a.py").write_text("a = 1\n")
    git(plain, "add", ".")
    git(plain, "commit", "-m", "first")
    sha = git(plain, "rev-parse", "HEAD").strip()
    assert re.fullmatch(r"[0-9a-f]{40}", sha)
    assert (commit(plain), uncommitted_changes(plain)) == (sha, False)
    (plain / "new.py").write_text("b = 1\n")
    assert uncommitted_changes(plain) is False
    (plain / "a.py").write_text("a = 2\n")
    assert (commit(plain), uncommitted_changes(plain)) == (sha, True)
    git(plain, "worktree", "add", str(tmp_path / "two"))
    git(plain, "checkout", "--detach")
    assert commit(plain) == commit(tmp_path / "two") == sha
    (plain / "inside").mkdir()  # as an installed package in somebody's repository
    assert commit(plain / "inside") is None
    (plain / "inside" / ".git").mkdir()
    assert commit(plain / "inside") is None
    monkeypatch.setenv("GIT_DIR", str(plain / ".git"))  # as in a hook of git
    assert commit(tmp_path) is None


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (commit(REPOSITORY), uncommitted_changes(REPOSITORY)) == (None, None)


def test_the_machine_has_no_name():
    import platform

    assert platform.node() not in [str(value) for value in machine().values()]


def test_an_evaluation_is_repeated_from_the_manifest(corpus, tmp_path, monkeypatch):
    """Every argument goes through the file; the repeated run has the same rows and the same list of clips."""
    monkeypatch.chdir(corpus)
    first = evaluate_dataset(
        "synthetic",
        tmp_path / "first",
        inputs=Inputs(Path("clips")),
        select=Selection(limit=1),
        running=Running(device="cpu"),
        progress=False,
    )
    (entry,) = read_manifest(first.folder)["sessions"]
    config = {**entry["config"], "root": Path(entry["config"]["root"])}
    groups = {"inputs": Inputs, "rules": Rules, "running": Running, "weights": WeightOptions}
    again = {name: group(**{f.name: config.pop(f.name) for f in fields(group)}) for name, group in groups.items()}
    again |= {"metrics": MetricOptions(**config.pop("metrics")), "select": Selection(**config.pop("select"))}
    assert config.keys() == {"dataset", "out"}
    second = evaluate_dataset(config["dataset"], tmp_path / "second", progress=False, **again)
    rows = [result.rows.drop(columns=["seconds", "generate_seconds"]) for result in (first, second)]
    pd.testing.assert_frame_equal(*rows)
    (repeated,) = read_manifest(second.folder)["sessions"]
    scored = set(first.rows["clip"])
    headers = map(read_header, sorted((corpus / "clips").glob("*/*.safetensors")))
    clips = {header.id: header.source_sha256 for header in headers if header.id in scored}
    assert entry["clips"] == repeated["clips"] == {"count": 1, "sha256": clip_list_sha256(clips)}
    assert entry["outcome"] == "done"
