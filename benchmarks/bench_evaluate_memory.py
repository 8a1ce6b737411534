# SPDX-License-Identifier: Apache-2.0
"""The memory of `bench evaluate --pred --target` on a short and a long 720p clip, all judges at work.

LIPSYNC_BENCH_EVALUATE_SECONDS says how long the long one is; 15 if not set. The aim, the same memory for 60 s as for
5, needs 60 to be set. LIPSYNC_BENCH_EVALUATE_JUDGES names the networks, with commas between; all but FID's Inception
if not set, which alone takes as long as the others together. Their weights are random.

The prediction is a copy of the target: it is read, searched and judged like any other file.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from benchmarks.comparison import Aim, Comparison, Rounds
from benchmarks.random_judges import JUDGES, Judge, write_random_judges
from benchmarks.wide_video import write_wide_video
from datamodules.video import FPS
from lipsync_bench.evaluation import ScorerFiles
from lipsync_bench.evaluation.rows import read_rows

SECONDS = "LIPSYNC_BENCH_EVALUATE_SECONDS"
CHOSEN = "LIPSYNC_BENCH_EVALUATE_JUDGES"
SHORT_S = 5.0
LIMIT_MB = 1500
GROWTH = 1.1
SAMPLE_S = 0.5
IMPORTS = "import lipsync_bench.evaluation.evaluate; print(open('/proc/self/status').read())"

__all__: list[str] = []


@dataclass(frozen=True)
class _Watched:
    """A command's memory in MB and its time.

    Args:
        peak: Of the whole run.
        start: The peak up to the first scored chunk: imports, preparation of the target, weights.
        seconds: Of the whole run.
    """

    peak: float
    start: float
    seconds: float


def _megabytes(status: str) -> float:
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


def _watch(command: Sequence[str], begun: Path, log: Path) -> _Watched:
    """Run a command and look at /proc/<pid>/status until it ends; not `ru_maxrss`, which begins at its parent's peak.

    Args:
        command: Started without a shell.
        begun: The file that is there when scoring begins.
        log: For its output.
    """
    first = time.perf_counter()
    peak = start = 0.0
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            if "VmHWM:" in status:  # a process that is just ending has no memory left
                peak = _megabytes(status)
                start = start if begun.is_file() else peak
            time.sleep(SAMPLE_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, log.read_text()
    return _Watched(peak, start, time.perf_counter() - first)


def _seconds() -> float:
    text = os.environ.get(SECONDS, "15")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not SHORT_S < seconds < float("inf"):
        raise ValueError(f"{SECONDS} is {text!r}. Expected seconds above {SHORT_S:g}. Set 60, or unset it for 15.")
    return seconds


def _judges() -> tuple[Judge, ...]:
    text = os.environ.get(CHOSEN, "syncnet,expert,lpips")
    names = tuple(name for name in text.split(",") if name)
    if not set(names) <= set(JUDGES):
        raise ValueError(f"{CHOSEN} is {text!r}. Expected some of {','.join(JUDGES)}. Unset it for all but inception.")
    return cast(tuple[Judge, ...], names)


def _evaluate(seconds: float, folder: Path, judges: ScorerFiles) -> _Watched:
    """`bench evaluate` in a process of its own on one clip of this length, preparation and all."""
    target, pred, out = (folder / name for name in ("target", "mine", "out"))
    write_wide_video(target / "a.mp4", (720, 1280), seconds)
    pred.mkdir()
    shutil.copy(target / "a.mp4", pred / "a.mp4")
    flags = {"pred": pred, "target": target, "out": out, "only": "mine", "device": "cpu", "workers": 1}
    weights = {name: path for name, path in asdict(judges).items() if path is not None}
    listed = [f"--{flag}={value}" for flag, value in {**flags, **weights}.items()]
    watched = _watch(
        [sys.executable, "-m", "lipsync_bench.bench", "evaluate", *listed], out / "clips.csv", folder / "log"
    )
    rows = read_rows(out).set_index("method")
    assert rows["status"].to_dict() == {"ground_truth": "ok", "mine": "ok"}
    assert set(rows["frames"]) == {round(seconds * FPS)}
    assert rows["lse_d_wav2lip_lrs"].notna().all() == (judges.syncnet is not None)
    assert rows["expert_cosine"].notna().all() == (judges.expert is not None)
    assert rows["lpips_alex"].notna().all() == (judges.lpips is not None)
    assert any(out.rglob("*.f32")) == (judges.inception is not None)
    return watched


def test_memory(comparison: Comparison, tmp_path: Path) -> None:
    seconds, chosen = _seconds(), _judges()
    (tmp_path / "weights").mkdir()
    judges = write_random_judges(tmp_path / "weights", chosen)
    imports = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
    alone = Rounds((_megabytes(imports.stdout),))
    runs: dict[float, _Watched] = {}

    def both() -> None:
        for length in (SHORT_S, seconds):
            folder = tmp_path / f"{length:g}"
            runs[length] = _evaluate(length, folder, judges)

    comparison.benchmark.pedantic(both, rounds=1)
    short, long = runs[SHORT_S], runs[seconds]
    limit = Aim("value", "<", LIMIT_MB)
    name = "`bench evaluate`, 720p, {:g} s, peak"
    comparison.record(name.format(SHORT_S), "MB", Rounds((short.peak,)), "its imports alone", alone, limit)
    comparison.record(name.format(seconds), "MB", Rounds((long.peak,)), "its imports alone", alone, limit)
    comparison.record(
        name.format(seconds),
        "MB",
        Rounds((long.peak,)),
        f"of {SHORT_S:g} s",
        Rounds((short.peak,)),
        Aim("ratio", "<", GROWTH),
    )
    judging = ", ".join(chosen) or "no network"
    comparison.note(
        f"{name.format(seconds)}: one pair of files, ground truth and prediction, with {judging}; {long.seconds:.0f} s "
        f"in all ({SHORT_S:g} s: {short.seconds:.0f} s); peak before the first chunk is scored {long.start:.0f} MB "
        f"({short.start:.0f} MB)."
    )
