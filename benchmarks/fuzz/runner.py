# SPDX-License-Identifier: Apache-2.0
"""Reads each spoilt file in its own process, under limits, and classifies the outcome.

The process is forked from one that has imported everything and has no other thread, so that it starts in milliseconds.
"""

import ctypes
import json
import logging
import os
import resource
import select
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.fuzz.kinds import Kind
from benchmarks.fuzz.mutations import PLACES, malform
from lipsync_bench.datamodules.cores import usable_cores

SLACK_MB = 768  # of address space: stacks and arenas of decoders' threads, of which little is used
INTACT = "nothing is spoilt"

__all__ = ["Input", "Limits", "Outcome", "make_intact", "run_all", "spoil"]


@dataclass(frozen=True)
class Input:
    """A file of a kind: number 0 is intact, the others are spoilt; it depends only on the seed and these two."""

    kind: Kind
    number: int


@dataclass(frozen=True)
class Limits:
    """Limits of a reader: additional memory in MB, and seconds."""

    memory_mb: int
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """The outcome of reading an input.

    Args:
        input: the input.
        spoilt: how it was spoilt, as text.
        verdict: read, refused (an expected error that names the file), or fault.
        fault: short description of a fault.
        message: type and text of the error.
        place: the innermost line of the product in the traceback.
        memory_mb: peak of additional memory.
        seconds: duration.
    """

    input: Input
    spoilt: str
    verdict: str
    fault: str = ""
    message: str = ""
    place: str = ""
    memory_mb: float = 0.0
    seconds: float = 0.0


def make_intact(kinds: Sequence[Kind], folder: Path) -> None:
    """Make an intact folder of each kind, in a separate process, because encoders leave threads running.

    Raises:
        RuntimeError: one could not be made.
    """
    pid = os.fork()
    if pid == 0:
        code = 1
        warnings.simplefilter("ignore")
        try:
            for kind in kinds:
                (folder / kind.name).mkdir(parents=True)
                kind.make(folder / kind.name)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if os.waitpid(pid, 0)[1] != 0:
        raise RuntimeError(f"the intact files in {folder} could not be made; see above. Expected all. Fix the drill")


def spoil(input: Input, seed: int, intact: Path, folder: Path) -> tuple[Path, str]:
    """Write the spoilt file, with the files it needs, into a new folder; returns its path and a description."""
    kind = input.kind
    shutil.copytree(intact / kind.name, folder, copy_function=os.link)
    path = folder / kind.file
    data = path.read_bytes()
    path.unlink()  # removes only this link: the intact file has another one
    spoilt, content = INTACT, data
    if input.number > 0:
        spoilt, content = malform(Random(f"{seed} {kind.name} {input.number}"), data, kind.form)
    if content is not None:
        path.write_bytes(content)
    elif spoilt == "empty file":
        path.touch()
    elif spoilt == "directory":
        path.mkdir()
    elif spoilt == "fifo":
        os.mkfifo(path)
    elif spoilt != "nothing":
        path.symlink_to("nowhere" if spoilt == "broken link" else path.name)
    return path, spoilt


def _memory_kb(name: str) -> int:
    with open("/proc/self/status") as file:  # noqa: PTH123
        return next(int(line.split()[1]) for line in file if line.startswith(f"{name}:"))


def _quiet() -> None:
    """Discard all output of readers and native libraries."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    logging.disable()
    warnings.simplefilter("ignore")


def _place(error: BaseException) -> str:
    """The innermost line of the product in a traceback."""
    found = ""
    for frame in traceback.extract_tb(error.__traceback__):
        parts = Path(frame.filename).parts
        if "lipsync_bench" in parts and "site-packages" not in parts:
            name = "/".join(parts[len(parts) - parts[::-1].index("lipsync_bench") - 1 :])
            found = f"{name}:{frame.lineno} {frame.name}"
    return found


def _fault_of(error: BaseException, path: Path, folder: Path, spoilt: str) -> str:
    """What is wrong with an error; empty for an expected one that names the file or its folder."""
    expected = isinstance(error, ValueError | FileNotFoundError)
    if isinstance(error, OSError) and spoilt in PLACES:  # the system's own error for a folder or a pipe
        expected = True
    if isinstance(error, MemoryError):
        return "out of memory"
    if not expected:
        return "unexpected type"
    return "" if path.name in str(error) or str(folder) in str(error) else "does not name the file"


def _read(input: Input, path: Path, folder: Path, spoilt: str, limits: Limits) -> dict[str, Any]:
    """In the forked process: read the file and return the outcome."""
    start, before = time.monotonic(), _memory_kb("VmRSS")
    result: dict[str, Any] = {"verdict": "read"}
    try:
        input.kind.read(path)
    except BaseException as error:
        fault = _fault_of(error, path, folder, spoilt)
        if not fault and spoilt == INTACT and input.kind.accepted:
            fault = "an intact file is refused"
        result = {"verdict": "fault" if fault else "refused", "fault": fault, "place": _place(error)}
        result["message"] = f"{type(error).__name__}: {str(error)[:600]}"
    result["memory_mb"] = (_memory_kb("VmHWM") - before) / 1024
    result["seconds"] = time.monotonic() - start
    if result["memory_mb"] > limits.memory_mb and result["verdict"] != "fault":
        result |= {"verdict": "fault", "fault": "memory above the bound"}
    return result


def _child(input: Input, seed: int, intact: Path, folder: Path, limits: Limits, pipe: int) -> None:
    """Never returns."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: end with the drill
    with open(pipe, "w") as out:
        try:
            _quiet()
            size = _memory_kb("VmSize") * 1024 + (limits.memory_mb + SLACK_MB) * 1024**2
            path, spoilt = spoil(input, seed, intact, folder)
            out.write(json.dumps({"spoilt": spoilt}) + "\n")
            out.flush()
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_AS, (size, size))
            out.write(json.dumps(_read(input, path, folder, spoilt, limits)))
        except BaseException:
            out.write(json.dumps({"verdict": "fault", "fault": "of the drill", "message": traceback.format_exc()}))
        finally:
            out.flush()
            os._exit(0)


@dataclass
class _Running:
    input: Input
    pid: int
    pipe: int
    folder: Path
    start: float
    text: bytes = b""


def _start(input: Input, seed: int, intact: Path, scratch: Path, limits: Limits) -> _Running:
    folder = scratch / f"{input.kind.name}-{input.number}"
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        _child(input, seed, intact, folder, limits, theirs)
    os.close(theirs)
    return _Running(input, pid, ours, folder, time.monotonic())


def _end(one: _Running, hung: bool) -> Outcome:
    if hung:
        os.kill(one.pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(one.pid, 0)[1])
    os.close(one.pipe)
    result: dict[str, Any] = {}
    for line in one.text.decode().splitlines():
        result |= json.loads(line)
    seconds = time.monotonic() - one.start
    if hung:
        result |= {"verdict": "fault", "fault": "hang", "seconds": seconds}
    elif "verdict" not in result:
        name = signal.Signals(-status).name if status < 0 else f"status {status}"
        result |= {"verdict": "fault", "fault": f"killed: {name}", "seconds": seconds}
    return Outcome(one.input, result.pop("spoilt", "?"), **result)


def run_all(
    inputs: Sequence[Input],
    seed: int,
    intact: Path,
    scratch: Path,
    limits: Limits,
    keep: Callable[[Outcome, Path], None] | None = None,
) -> Iterator[Outcome]:
    """Read every input, as many at once as there are cores; outcomes come in the order in which they end.

    Args:
        inputs: the inputs.
        seed: seed of the drill.
        intact: the folder of `make_intact`.
        scratch: a folder for the spoilt files while they are read.
        limits: limits of each reader.
        keep: called with each outcome and the folder of its file, before that is removed.

    Raises:
        RuntimeError: this process has other threads, so that it cannot be forked safely.
    """
    threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208
    if threads > 1:
        raise RuntimeError(f"{threads} threads. Expected one. Start the drill as: python -m benchmarks.fuzz_drill")
    waiting, cores = list(reversed(inputs)), usable_cores()
    running: dict[int, _Running] = {}
    try:
        while waiting or running:
            while waiting and len(running) < cores:
                one = _start(waiting.pop(), seed, intact, scratch, limits)
                running[one.pipe] = one
            ready, _, _ = select.select(list(running), [], [], 0.5)
            for pipe in list(running):
                one = running[pipe]
                hung = time.monotonic() - one.start > limits.seconds
                if pipe in ready and (piece := os.read(pipe, 1 << 16)):
                    one.text += piece
                elif pipe in ready or hung:
                    del running[pipe]
                    outcome = _end(one, hung and pipe not in ready)
                    if keep is not None:
                        keep(outcome, one.folder)
                    shutil.rmtree(one.folder, ignore_errors=True)
                    yield outcome
    finally:
        for one in running.values():
            os.kill(one.pid, signal.SIGKILL)
            os.waitpid(one.pid, 0)
