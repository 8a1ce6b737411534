# SPDX-License-Identifier: Apache-2.0
"""Methods of other repositories: their commands are run over the pairs, and what goes wrong is a counted row."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import av
import pytest
import yaml

from lipsync_bench.datamodules.media.audio import load_audio
from lipsync_bench.datamodules.media.video import VideoWriter, read_frames
from lipsync_bench.evaluation import Result, evaluate_dataset
from lipsync_bench.evaluation.elsewhere.candidate import _check
from lipsync_bench.evaluation.elsewhere.command import Command, stated_version
from lipsync_bench.evaluation.elsewhere.pair_files import is_as_compared
from lipsync_bench.evaluation.elsewhere.processes import Processes, Stopped
from lipsync_bench.evaluation.options import Rules, Running, Selection
from lipsync_bench.evaluation.task.benchmark import load_benchmark
from lipsync_bench.results.rows import FIELDS, RowFile, read_rows
from tests.lipsync_bench.killing import kill_when

COPY = """
import os, pathlib, shutil, subprocess, sys, time
mode, video, audio, out = sys.argv[1:]
with open("calls.txt", "a") as file:
    file.write(f"{os.environ.get('MARK')} {video} {audio}\\n")
print("reading", video, flush=True)
if mode == "hang":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open("children.txt", "a") as file:
        file.write(f"{os.getpid()} {child.pid}\\n")
    time.sleep(600)
data = pathlib.Path(video).read_bytes()
if mode == "half":
    data = data[: len(data) // 2]
if mode == "fail" or (mode == "second" and "s02" in video):
    print(f"no face in {out}", file=sys.stderr)
    sys.exit(1)
if mode == "slow":
    time.sleep(0.7)
if mode != "nothing":
    pathlib.Path(out).write_bytes(data)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder whose name has what shells trip over, with the method's program."""
    folder = tmp_path / 'été d\'Ana "1" $HOME'
    folder.mkdir()
    (folder / "copy it.py").write_text(COPY)
    return folder


def benchmark(place: Path, corpus: Path, **methods: object) -> str:
    path = place / "mine.yaml"
    data = {"class_path": "lipsync_bench.datamodules.Synthetic", "init_args": {"root": str(corpus / "clips")}}
    path.write_text(yaml.safe_dump({"data": data, "methods": methods}, allow_unicode=True))
    return str(path)


def command(place: Path, mode: str, **more: object) -> dict[str, object]:
    words = f"'{sys.executable}' 'copy it.py' {mode} {{video}} {{audio}} {{out}}"
    return {"command": words, "cwd": str(place), "env": {"MARK": "a b"}, "version": "1.0", **more}


def run(place: Path, corpus: Path, out: Path, workers: int = 1, limit: int | None = None, **methods: object) -> Result:
    return evaluate_dataset(
        benchmark(place, corpus, **methods), out, select=Selection(limit=limit, only=tuple(methods)),
        running=Running(device="cpu", command_workers=workers), progress=False,
    )  # fmt: skip


def rows_of(out: Path, method: str) -> list[dict[str, str]]:
    with (out / "clips.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["method"] == method]


def calls(place: Path) -> list[str]:
    path = place / "calls.txt"
    return path.read_text().splitlines() if path.is_file() else []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_command_that_works_is_scored_and_not_run_again(corpus: Path, place: Path) -> None:
    out = place / "results of é"
    run(place, corpus, out, copy=command(place, "copy"))
    rows = rows_of(out, "copy")
    assert [(row["status"], row["psnr"], row["frames"]) for row in rows] == [("ok", "inf", "40")] * 2
    assert [row["method_version"] for row in rows] == ["1.0"] * 2
    assert all(0 < float(row["command_seconds"]) < 60 for row in rows)
    assert all(len(row["generator_sha256"]) == len(row["prediction_sha256"]) == 64 for row in rows)
    first = calls(place)
    assert len(first) == 2
    assert first[0].startswith("a b /")
    assert str(corpus / "videos") in first[0]  # already 25 fps: the source itself
    made = sorted(path.relative_to(out / "generated") for path in (out / "generated").rglob("*") if path.is_file())
    assert [path.parts[0] for path in made] == ["copy"] * 6
    assert [path.name for path in made[:3]] == ["00003.log", "00003.mp4", "00003.mp4.json"]

    before = (out / "clips.csv").read_bytes()
    run(place, corpus, out, copy=command(place, "copy"))
    assert calls(place) == first
    assert (out / "clips.csv").read_bytes() == before
    next(out.rglob("00003.mp4")).write_bytes(b"changed")  # what somebody has touched is made again
    run(place, corpus, out, copy=command(place, "copy"))
    assert len(calls(place)) == 3
    run(place, corpus, out, copy=command(place, "copy", version="1.1", timeout=50))  # the old rows stay
    assert len(calls(place)) == 5
    assert sorted(row["method_version"] for row in rows_of(out, "copy")) == ["1.0", "1.0", "1.1", "1.1"]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["sessions"][-1]["config"]["commands"]["copy"]["env"] == ["MARK"]  # no values, which may be secret


def test_failures_are_counted_rows_that_say_why(corpus: Path, place: Path) -> None:
    out = place / "results"
    methods = {
        "hangs": command(place, "hang", timeout=2.5),
        "half": command(place, "half"),
        "fails": command(place, "fail"),
        "makes nothing": command(place, "nothing"),
        "second": command(place, "second"),
        "absent": {"command": "no_such_program {video} {audio} {out}"},
    }
    result = run(place, corpus, out, workers=2, **methods)
    reasons = {name: [row["reason"] for row in rows_of(out, name)] for name in methods}
    assert [len(found) for found in reasons.values()] == [2] * 6
    for reason in reasons["hangs"]:
        assert "ended at its time limit of 2.5 s" in reason
        assert "its last lines: reading /" in reason
    assert all("2.4" < row["command_seconds"] < "6" for row in rows_of(out, "hangs"))
    ids = [int(word) for line in (place / "children.txt").read_text().splitlines() for word in line.split()]
    assert len(ids) == 4
    wait_for(lambda: not any(map(alive, ids)))  # the whole group
    for reason in reasons["half"]:
        assert "00003.mp4: cannot be opened as media" in reason or "cut off" in reason
        assert ".tmp-" not in reason
    for reason, clip in zip(reasons["fails"], ("s01/00003", "s02/00003"), strict=True):
        assert reason.startswith(
            f"MediaError: {clip}: the command ended with status 1. Expected 0. Correct the command"
        )
        assert reason.endswith("| no face in 00003.mp4")
        assert f"Log generated/fails/{rows_of(out, 'fails')[0]['generator_sha256'][:12]}/{clip}.log" in reason
    assert all("it made no video at {out}" in reason for reason in reasons["makes nothing"])
    assert all("status 127" in r and "no_such_program: cannot be started" in r for r in reasons["absent"])
    assert reasons["second"][0] == ""
    assert "ended with status 1" in reasons["second"][1]
    assert result.without_any_score == ["absent", "fails", "half", "hangs", "makes nothing"]
    assert not list(out.rglob(".*"))
    assert not list((out / "generated").rglob("fails/**/*.mp4*"))

    assert [row["method_version"] for row in rows_of(out, "fails")] == ["1.0"] * 2
    before = len(calls(place))
    run(place, corpus, out, fails=command(place, "fail"), second=command(place, "second"))
    assert len(calls(place)) == before + 3  # failed ones are tried again
    assert len(rows_of(out, "fails")) == 2


def test_several_at_once_give_the_same_rows(corpus: Path, place: Path) -> None:
    methods = {"copy": command(place, "slow"), "fails": command(place, "fail")}
    for workers in (1, 3):
        run(place, corpus, place / f"results{workers}", workers, **methods)
    one, three = (read_rows(place / f"results{workers}") for workers in (1, 3))
    times = ["seconds", "generate_seconds", "command_seconds"]
    assert one.drop(columns=times).equals(three.drop(columns=times))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "interrupt"])
def test_a_run_that_is_ended_leaves_no_process_and_resumes(corpus: Path, place: Path, how: str) -> None:
    out = place / "results"
    name = benchmark(place, corpus, copy=command(place, "slow"), hangs=command(place, "hang"))
    arguments = ("evaluate", "--dataset", name, "--out", out, "--device", "cpu")
    if how == "kill":
        kill_when(lambda: (place / "children.txt").is_file(), *arguments)
    else:
        process = subprocess.Popen(
            [sys.executable, "-m", "lipsync_bench.bench", *map(str, arguments)],
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in background
        )
        wait_for((place / "children.txt").is_file)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    ids = [int(word) for word in (place / "children.txt").read_text().split()]
    wait_for(lambda: not any(map(alive, ids)))
    assert len(calls(place)) == 3
    videos = {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")}
    assert len(videos) == 2
    assert list(out.rglob(".*.tmp-*")) if how == "kill" else True

    run(place, corpus, out, copy=command(place, "slow"))
    assert len(calls(place)) == 3
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")} == videos
    assert [row["status"] for row in rows_of(out, "copy")] == ["ok", "ok"]
    assert not list(out.rglob(".*.tmp-*"))


def test_what_cannot_be_a_command_is_told_before_anything_runs(corpus: Path, place: Path) -> None:
    good = "x {video} {audio} {out}"
    cases: dict[str, object] = {
        r"method m: it does not name \{audio\}, \{out\}": {"command": "x {video}"},
        r"method m: No closing quotation": {"command": f"{good} 'x"},
        r"method m: has the unknown key comand": {"comand": good, "command": good},
        r"method m: has no command": {"cwd": "."},
        r"method m: timeout is 0 ": {"command": good, "timeout": 0},
        r"method m: env.A is True": {"command": good, "env": {"A": True}},
        r"method m: .*is no name of an environment": {"command": good, "env": {"A=B": "1"}},
    }
    for message, method in cases.items():
        with pytest.raises(ValueError, match=rf"mine\.yaml: {message}.*docs/other_methods\.md"):
            load_benchmark(benchmark(place, corpus, m=method))
    with pytest.raises(FileNotFoundError, match=r"m: cwd .*nowhere is no folder"):
        run(place, corpus, place / "out", m={"command": good, "cwd": str(place / "nowhere")})
    loaded = load_benchmark(benchmark(place, corpus, a=str(place / "a.ckpt"), b="official", c={"command": good}))
    assert dict(loaded.methods) == {"a": place / "a.ckpt", "b": "official"}
    assert list(loaded.commands) == ["c"]
    replaced = load_benchmark(benchmark(place, corpus, c={"command": good}), methods={"c": place / "c.ckpt"})
    assert not replaced.commands


def test_placeholders_are_replaced_inside_words_and_nowhere_else() -> None:
    made = Command(command="""run --in={video} '{audio} b' {out} {"a": 1} "{x}" \\{video}""")
    assert made.words(Path("/a {audio}"), Path("/b'"), Path("/c")) == [
        "run", "--in=/a {audio}", "/b' b", "/c", "{a:", "1}", "{x}", "/a {audio}",
    ]  # fmt: skip


def test_launchers_variables_do_not_reach_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("MINE", "2")
    environment = Command(command="x {video} {audio} {out}", env={"RANK": "7"}).environment()
    assert (environment["RANK"], environment["MINE"]) == ("7", "2")
    assert not {"WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "TORCHELASTIC_RUN_ID"} & set(environment)


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_the_version_can_be_the_commit(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.check_output(["git", "-C", str(tmp_path), *identity, *words], text=True).strip()

    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("1")
    made = Command(command="x {video} {audio} {out}", cwd=tmp_path / "src", version="git")
    with pytest.raises(ValueError, match="is no checkout with a commit"):
        stated_version("m", made)
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    head = git("rev-parse", "HEAD")
    assert stated_version("m", made) == head
    dirty = []
    for text in ("2", "3"):
        (tmp_path / "src" / "a.py").write_text(text)
        dirty.append(stated_version("m", made))
    assert all(version.startswith(f"{head}-dirty-") for version in dirty)
    assert dirty[0] != dirty[1]  # other code is another version


def video(path: Path, source: Path, frames: int, fps: float = 25.0) -> Path:
    images = list(read_frames(source))[:40]
    with VideoWriter(path, fps, images[0].shape[:2], crf=30) as writer:
        for index in range(frames):
            writer.write(images[index % 40])
    return path


def test_the_method_is_given_what_is_compared(corpus: Path, place: Path) -> None:
    """A protocol that uses the first second: 25 frames of 40, and as much audio."""
    keep = "import pathlib, shutil, sys; [shutil.copy(p, pathlib.Path(p).name) for p in sys.argv[1:3]]; "
    keep += "shutil.copy(sys.argv[1], sys.argv[3])"
    protocol = place / "short.yaml"
    protocol.write_text("version: 1\nseconds: {mine: 1.0}\n")
    words = f"'{sys.executable}' -c '{keep}' {{video}} {{audio}} {{out}}"
    name = benchmark(place, corpus, copy={"command": words, "cwd": str(place)})
    evaluate_dataset(
        name, place / "out", rules=Rules(str(protocol)), select=Selection(1), running=Running(device="cpu"),
        progress=False,
    )  # fmt: skip
    with av.open(str(place / "video.mp4")) as container:
        assert container.streams.video[0].average_rate == 25
        assert sum(1 for _ in container.decode(video=0)) == 25
    assert len(load_audio(place / "audio.wav")) == 16000
    row = rows_of(place / "out", "copy")[0]
    assert (row["status"], row["frames"]) == ("ok", "25")
    assert float(row["psnr"]) > 40


def test_sources_of_another_rate_or_length_are_not_given_as_they_are(corpus: Path, tmp_path: Path) -> None:
    source = next((corpus / "videos").rglob("00001.mp4"))
    assert is_as_compared(source, 40)
    assert not is_as_compared(source, 39)
    assert not is_as_compared(video(tmp_path / "fast.mp4", source, 80, 50), 40)


@pytest.mark.parametrize(("frames", "accepted"), [(34, False), (35, True), (40, True), (45, True), (46, False)])
def test_the_length_of_a_video_may_be_off_by_five_frames(
    corpus: Path, tmp_path: Path, frames: int, accepted: bool
) -> None:
    made = video(tmp_path / "made.mp4", next((corpus / "videos").rglob("00001.mp4")), frames)
    if accepted:
        assert _check(made, 40) == frames
    else:
        with pytest.raises(Exception, match=r"frames at 25 fps\. Expected 40, or up to 5 more or fewer"):
            _check(made, 40)


def test_a_group_that_outlives_its_command_is_ended(tmp_path: Path) -> None:
    words = ["sh", "-c", "sleep 600 & echo $!"]
    status, _ = Processes().run(words, tmp_path / "log", tmp_path, os.environ, 60)
    assert status == 0
    wait_for(lambda: not alive(int((tmp_path / "log").read_text())))


def test_nothing_starts_after_a_stop(tmp_path: Path) -> None:
    processes = Processes()
    threading.Timer(0.5, processes.stop).start()
    start = time.monotonic()
    for _ in range(2):
        with pytest.raises(Stopped):
            processes.run(["sleep", "600"], tmp_path / "log", tmp_path, os.environ, 60)
    assert time.monotonic() - start < 30


def test_rows_of_a_file_without_the_later_fields_are_read_and_kept(corpus: Path, place: Path) -> None:
    out = place / "results"
    run(place, corpus, out, copy=command(place, "copy"))
    rows = read_rows(out)
    old = [name for name in FIELDS if name not in ("command_seconds", "method_version")]
    rows[old].to_csv(out / "clips.csv", index=False, lineterminator="\n")
    read = read_rows(out)
    assert list(read.columns) == list(FIELDS)
    assert read["command_seconds"].isna().all()
    assert read[old].equals(rows[old])
    RowFile(out / "clips.csv").close()  # what is appended has the fields
    assert (out / "clips.csv").read_text().partition("\n")[0] == ",".join(FIELDS)
    assert read_rows(out)[old].equals(rows[old])
