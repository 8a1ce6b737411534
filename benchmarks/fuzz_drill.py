# SPDX-License-Identifier: Apache-2.0
"""The fuzz drill: reads spoilt files of every kind that the product reads.

    python -m benchmarks.fuzz_drill --inputs 2000 --seed 0
    python -m benchmarks.fuzz_drill --only clip --number 17 --keep /tmp/kept     # one input again, its file kept

A spoilt file must be read, or refused by a ValueError or FileNotFoundError that names it (an OSError if a folder or a
pipe is at its path). Another type of exception, a hang, the end of the process, or more memory than the limit is a
fault; with any fault the drill returns 1. Input K of a kind depends only on the seed, the kind and K (except for a few
bytes of TorchScript and of the old format of torch.save, which contain addresses); input 0 is the intact file.
"""

import os

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # forked: no threads

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.fuzz import media, prepared, results, weights
from benchmarks.fuzz.runner import Input, Limits, Outcome, make_intact, run_all

KINDS = {kind.name: kind for kind in (*prepared.KINDS, *results.KINDS, *weights.KINDS, *media.KINDS)}

__all__ = ["KINDS", "main"]


def _arguments(args: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="fuzz_drill", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=2000, help="number of inputs, divided evenly among the kinds")
    parser.add_argument("--seed", type=int, default=0, help="seed of all inputs")
    parser.add_argument("--only", choices=sorted(KINDS), metavar="KIND", help=f"one of {', '.join(sorted(KINDS))}")
    parser.add_argument("--number", type=int, help="read only this input, with --only")
    parser.add_argument("--memory-mb", type=int, default=512, help="memory limit of a reader")
    parser.add_argument("--seconds", type=float, default=20.0, help="time limit of a reader")
    parser.add_argument("--keep", type=Path, help="folder for the files that caused a fault")
    chosen = parser.parse_args(args)
    if chosen.inputs < 1 or chosen.seconds <= 0 or chosen.memory_mb < 1:
        parser.error("--inputs, --seconds and --memory-mb are 1 or more")
    if chosen.number is not None and chosen.only is None:
        parser.error("--number is of one kind: --only KIND")
    return chosen


def _inputs(chosen: argparse.Namespace) -> list[Input]:
    kinds = [KINDS[chosen.only]] if chosen.only else list(KINDS.values())
    if chosen.number is not None:
        return [Input(kinds[0], chosen.number)]
    return [Input(kinds[k % len(kinds)], k // len(kinds)) for k in range(chosen.inputs)]


def _table(outcomes: Sequence[Outcome], seconds: float) -> Table:
    table = Table(title=f"{len(outcomes)} spoilt files in {seconds:.0f} s")
    for name in ("kind", "inputs", "read", "refused", "faults", "MB at most", "s at most"):
        table.add_column(name, justify="left" if name == "kind" else "right", no_wrap=name == "kind")
    groups = {name: [o for o in outcomes if o.input.kind.name == name] for name in KINDS}
    for name, own in {**groups, "all": list(outcomes)}.items():
        if own:
            counts = [sum(o.verdict == verdict for o in own) for verdict in ("read", "refused", "fault")]
            most = f"{max(o.memory_mb for o in own):.0f}", f"{max(o.seconds for o in own):.1f}"
            table.add_row(name, str(len(own)), *map(str, counts), *most)
    return table


def _groups(faults: Sequence[Outcome]) -> list[list[Outcome]]:
    """Groups of equal faults, the most frequent first."""
    found: dict[tuple[str, ...], list[Outcome]] = {}
    for fault in faults:
        key = (fault.input.kind.name, fault.fault, fault.message.partition(":")[0], fault.place)
        found.setdefault(key, []).append(fault)
    return sorted(found.values(), key=lambda group: (group[0].input.kind.name, -len(group)))


def _show(faults: Sequence[Outcome], seed: int, console: Console) -> None:
    for group in _groups(faults):
        one = min(group, key=lambda fault: fault.input.number)
        repeat = f"--seed {seed} --only {one.input.kind.name} --number {one.input.number}"
        lines = [
            f"{len(group)} x {one.fault}: {one.message or 'no error'}",
            f"at {one.place or '?'}",
            repeat,
            one.spoilt,
        ]
        console.print(escape("\n    ".join(line.replace("\n", " ")[:500] for line in lines)), soft_wrap=True)


def main(args: Sequence[str] | None = None) -> int:
    """Run the drill; 1 if there was any fault."""
    chosen = _arguments(args)
    console, start = Console(), time.monotonic()
    inputs = _inputs(chosen)

    def keep(outcome: Outcome, folder: Path) -> None:
        if chosen.keep is not None and (outcome.verdict == "fault" or chosen.number is not None):
            shutil.rmtree(chosen.keep / folder.name, ignore_errors=True)
            shutil.copytree(folder, chosen.keep / folder.name, symlinks=True, ignore=_pipes)

    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        intact, scratch = Path(name) / "intact", Path(name) / "spoilt"
        make_intact([kind for kind in KINDS.values() if kind in {i.kind for i in inputs}], intact)
        limits = Limits(chosen.memory_mb, chosen.seconds)
        outcomes = list(run_all(inputs, chosen.seed, intact, scratch, limits, keep))
    if chosen.number is not None:
        console.print(escape(str(outcomes[0])), soft_wrap=True)
    console.print(_table(outcomes, time.monotonic() - start))
    faults = [outcome for outcome in outcomes if outcome.verdict == "fault"]
    _show(faults, chosen.seed, console)
    return 1 if faults else 0


def _pipes(folder: str, names: list[str]) -> list[str]:
    """The pipes in a folder, which cannot be copied."""
    return [name for name in names if (Path(folder) / name).is_fifo()]


if __name__ == "__main__":
    sys.exit(main())
