# SPDX-License-Identifier: Apache-2.0
"""The memory of `bench evaluate --pred --target` on a short and a long 720p clip, with all metric networks.

LIPSYNC_BENCH_EVALUATE_SECONDS sets the length of the long one; 15 by default. The aim, the same memory for 60 s as for
5, needs 60. LIPSYNC_BENCH_EVALUATE_NETWORKS names the networks, separated by commas; by default all but FID's
Inception, which takes as long as the others together. Their weights are random.

The prediction is a copy of the target: it is read, searched and scored like any other file.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import cast

from benchmarks.tools.comparison import Aim, Comparison, Rounds
from benchmarks.tools.random_networks import NETWORKS, NetworkName, RandomNetworks, write_random_networks
from benchmarks.tools.watching import Watched, imports_mb, watch
from benchmarks.tools.wide_video import write_wide_video
from lipsync_bench.datamodules.media.video import FPS
from lipsync_bench.results.rows import read_rows

SECONDS = "LIPSYNC_BENCH_EVALUATE_SECONDS"
CHOSEN = "LIPSYNC_BENCH_EVALUATE_NETWORKS"
SHORT_S = 5.0
LIMIT_MB = 1500
GROWTH = 1.1

__all__: list[str] = []


def _seconds() -> float:
    text = os.environ.get(SECONDS, "15")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not SHORT_S < seconds < float("inf"):
        raise ValueError(f"{SECONDS} is {text!r}. Expected seconds above {SHORT_S:g}. Set 60, or unset it for 15.")
    return seconds


def _networks() -> tuple[NetworkName, ...]:
    text = os.environ.get(CHOSEN, "syncnet_v2,expert,alexnet")
    names = tuple(name for name in text.split(",") if name)
    if not set(names) <= set(NETWORKS):
        raise ValueError(
            f"{CHOSEN} is {text!r}. Expected some of {','.join(NETWORKS)}. Unset it for all but inception_fid."
        )
    return cast(tuple[NetworkName, ...], names)


def _evaluate(seconds: float, folder: Path, networks: RandomNetworks) -> Watched:
    """`bench evaluate` in a separate process on one clip of this length, including its preparation."""
    target, pred, out = (folder / name for name in ("target", "mine", "out"))
    write_wide_video(target / "a.mp4", (720, 1280), seconds)
    pred.mkdir()
    shutil.copy(target / "a.mp4", pred / "a.mp4")
    flags = {"pred": pred, "target": target, "out": out, "only": "mine", "device": "cpu", "workers": 1}
    listed = [f"--{flag}={value}" for flag, value in flags.items()]
    listed += [f"--weights={text}" for text in networks.weights.weights]
    listed += [f"--expert={networks.metrics.expert}"] if networks.metrics.expert else []
    command = [sys.executable, "-m", "lipsync_bench.bench", "evaluate", *listed]
    watched = watch(command, (out / "clips.csv").is_file, folder / "log")  # the file exists once scoring begins
    rows = read_rows(out).set_index("method")
    assert rows["status"].to_dict() == {"ground_truth": "ok", "mine": "ok"}
    assert set(rows["frames"]) == {round(seconds * FPS)}
    assert rows["lse_d_wav2lip_lrs"].notna().all() == ("syncnet_v2" in networks.names)
    assert rows["expert_cosine"].notna().all() == ("expert" in networks.names)
    assert rows["lpips_alex"].notna().all() == ("alexnet" in networks.names)
    assert any(out.rglob("*.f32")) == ("inception_fid" in networks.names)
    return watched


def test_memory(comparison: Comparison, tmp_path: Path) -> None:
    seconds, chosen = _seconds(), _networks()
    (tmp_path / "weights").mkdir()
    networks = write_random_networks(tmp_path / "weights", chosen)
    alone = Rounds((imports_mb("lipsync_bench.evaluation.evaluate"),))
    runs: dict[float, Watched] = {}

    def both() -> None:
        for length in (SHORT_S, seconds):
            folder = tmp_path / f"{length:g}"
            runs[length] = _evaluate(length, folder, networks)

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
    used = ", ".join(chosen) or "no network"
    comparison.note(
        f"{name.format(seconds)}: one pair of files, ground truth and prediction, with {used}; {long.seconds:.0f} s "
        f"in all ({SHORT_S:g} s: {short.seconds:.0f} s); peak before the first chunk is scored "
        f"{long.peak_before:.0f} MB ({short.peak_before:.0f} MB)."
    )
