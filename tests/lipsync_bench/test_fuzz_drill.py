# SPDX-License-Identifier: Apache-2.0
"""The fuzz drill (benchmarks/fuzz_drill.py) with few inputs, and a check that it finds each kind of fault."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
READERS = """
import json, os, sys, time
from pathlib import Path
from benchmarks.fuzz.kinds import Kind
from benchmarks.fuzz.runner import Input, Limits, make_intact, run_all

def fail(error):
    def read(path):
        raise error if isinstance(error, BaseException) else error(path)
    return read

READERS = {
    "read": lambda path: path.name,
    "refused": fail(lambda path: ValueError(f"{path}: no such thing")),
    "unnamed": fail(ValueError("broken")),
    "type": fail(KeyError("a")),
    "system": fail(lambda path: PermissionError(13, "Permission denied", str(path))),
    "hang": lambda path: time.sleep(60),
    "killed": lambda path: os.kill(os.getpid(), 11),
    "exit": lambda path: os._exit(3),
    "memory": lambda path: bytearray(b"x") * (300 << 20),
    "more memory": lambda path: bytearray(b"x") * (3 << 30),
}
kinds = [Kind(name, "a", lambda folder: (folder / "a").write_bytes(b"intact"), read) for name, read in READERS.items()]
intact, spoilt = Path(sys.argv[1], "intact"), Path(sys.argv[1], "spoilt")
make_intact(kinds, intact)
outcomes = run_all([Input(kind, 0) for kind in kinds], 0, intact, spoilt, Limits(200, 2))
print(json.dumps({outcome.input.kind.name: outcome.fault or outcome.verdict for outcome in outcomes}))
assert not list(spoilt.iterdir())
"""


def run_python(*args: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *map(str, args)], cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_no_file_of_any_kind_makes_its_reader_fail() -> None:
    drill = run_python("-m", "benchmarks.fuzz_drill", "--inputs", 4 * 67, "--seed", 0)
    assert drill.returncode == 0, drill.stdout + drill.stderr


def test_the_drill_finds_every_fault(tmp_path: Path) -> None:
    run = run_python("-c", READERS, tmp_path)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == {
        "read": "read",
        "refused": "an intact file is refused",
        "unnamed": "does not name the file",
        "type": "unexpected type",
        "system": "unexpected type",
        "hang": "hang",
        "killed": "killed: SIGSEGV",
        "exit": "killed: status 3",
        "memory": "memory above the bound",
        "more memory": "out of memory",
    }


@pytest.mark.slow
def test_an_input_repeats_by_its_number(tmp_path: Path) -> None:
    kept = []
    for name in ("a", "b"):
        one = run_python("-m", "benchmarks.fuzz_drill", "--only", "png", "--number", 7, "--keep", tmp_path / name)
        assert "1 spoilt files" in one.stdout, one.stderr
        kept.append({path.name: path.read_bytes() for path in (tmp_path / name / "png-7").iterdir()})
    assert kept[0] == kept[1]
    assert kept[0].keys() == {"a.png"}
