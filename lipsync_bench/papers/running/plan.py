# SPDX-License-Identifier: Apache-2.0
"""Plan of `bench table --run`: required evaluations, which of them can run, and why the others cannot."""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lipsync_bench.evaluation.elsewhere.command import Command
from lipsync_bench.evaluation.task.protocol import Protocol, list_protocols, load_protocol
from lipsync_bench.experiment_files import experiment_file, experiment_names
from lipsync_bench.papers.comparable import name_in_papers
from lipsync_bench.papers.leaderboards import methods_in
from lipsync_bench.papers.options import RunOptions
from lipsync_bench.papers.printed.paper_metrics import PAPER_METRICS
from lipsync_bench.papers.printed.paper_table import PaperTable
from lipsync_bench.results.folder import ResultsFolder
from lipsync_bench.results.rows import GROUND_TRUTH
from lipsync_bench.weights.methods import file_here, method_file

if TYPE_CHECKING:
    from lipsync_bench.evaluation.task.benchmark import Benchmark

__all__ = ["DatasetPlan", "benchmark_name", "check_options", "plan_of", "protocols_of", "skip_label", "split_of"]


@dataclass(frozen=True)
class DatasetPlan:
    """The part of a table on one data set.

    Args:
        dataset: The paper's name of the data set.
        benchmark: The name of our benchmark.
        checkpoints: Checkpoint of each method, by the name of its row in the paper's table.
        pred: Folder of videos of each method, by the same name.
        commands: Of the benchmark's methods of other repositories, by the same name.
        notes: What is not run, and why.
        ready: Whether its clips are prepared.
    """

    dataset: str
    benchmark: str
    checkpoints: Mapping[str, Path]
    pred: Mapping[str, Path]
    commands: Mapping[str, Command]
    notes: tuple[str, ...]
    ready: bool


def check_options(table: PaperTable, options: RunOptions) -> None:
    """Refuse options that fit no row, before anything is computed.

    Raises:
        FileNotFoundError: A given checkpoint or folder is missing.
        ValueError: A method is in no row or was given twice; one root is given for several data sets; a split is given
            and the paper scores test.
    """
    rows = list(dict.fromkeys(row.name for row in table.rows if row.name != GROUND_TRUTH))
    methods, pred, only = options.inputs.methods, options.inputs.pred, {*options.select.only} - {GROUND_TRUTH}
    for flag, names in (("--methods", methods), ("--pred", pred), ("--only", only)):
        unknown = sorted(set(names) - set(rows))
        if unknown:
            raise ValueError(
                f"{flag}: no row {', '.join(unknown)} in {table.id}. Expected some of {', '.join(rows)}. Evaluate "
                "others with: bench evaluate"
            )
    both = sorted(set(methods) & set(pred))
    if both:
        raise ValueError(
            f"{', '.join(both)} with a checkpoint and with videos. Expected one of the two. Leave out "
            f"--methods.{both[0]} or --pred {both[0]}=DIR"
        )
    for name, path in methods.items():
        if not method_file(name, path, options.weights.store).is_file():
            raise FileNotFoundError(
                f"{name}: no checkpoint at {path}. Expected the file that training writes. Correct --methods.{name}"
            )
    for name, folder in pred.items():
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{name}: {folder} is not a folder. Expected one that holds its videos. Correct --pred {name}=DIR"
            )
    _check_root(table, options.inputs.root)
    if options.split is not None and not table.split_not_stated:
        raise ValueError(
            f"--split {options.split} with {table.id}, whose paper scores test. Expected a table whose paper does not "
            "say which split it scores. Leave out --split, or score other clips with bench evaluate --split"
        )


def split_of(table: PaperTable, dataset: str, options: RunOptions) -> Literal["val", "test"] | None:
    """The split that is scored instead of the benchmark's: an option where the paper leaves it open."""
    return options.split if dataset in table.split_not_stated else None


def protocols_of(table: PaperTable, options: RunOptions) -> dict[str, tuple[Protocol, str]]:
    """The protocols of the table's paper that have metrics of the table, by name, each with its missing requirement.

    Raises:
        ValueError: There is no such protocol.
    """
    chosen, store = {}, options.weights.store
    for protocol in map(load_protocol, list_protocols()):
        metrics = [m for m in table.metrics if table.protocol.pairing.get(m) == protocol.pairing]
        if protocol.paper != table.paper.key or not metrics:
            continue
        missing = ""
        # Without its metric networks a protocol would fill no cell, and its folder would refuse them later.
        needs = [PAPER_METRICS[m].files(table.paper.key, (dataset,)) for m in metrics for dataset in table.datasets]
        if not any(all(store.find(file) for file in files) for files in needs):
            titles = ", ".join(PAPER_METRICS[m].title for m in metrics)
            missing = (
                f"{protocol.key}, of which this table has only {titles}. Run: bench weights fetch "
                f"{' '.join(dict.fromkeys(file for files in needs for file in files))}."
            )
        elif protocol.boxes == "s3fd" and store.find("s3fd") is None:
            missing = f"{protocol.key}, whose boxes are S3FD's. Run: bench weights fetch s3fd."
        chosen[protocol.name] = (protocol, missing)
    if not chosen:
        raise ValueError(
            f"{table.id}: no protocol in experiments/protocols/ says paper: {table.paper.key} with the table's pairs "
            f"({', '.join(sorted(set(table.protocol.pairing.values()))) or 'not stated'}). Expected one. Write it, or "
            "evaluate under another with bench evaluate and show that with --results DIR"
        )
    return chosen


def benchmark_name(dataset: str) -> str:
    """Our name of a paper's data set; a benchmark with the paper's own name takes precedence."""
    ours = [name for name in experiment_names("benchmarks") if name_in_papers(name) == dataset]
    return ours[0] if ours and not _has_benchmark(dataset) else dataset


def _has_benchmark(name: str) -> bool:
    return experiment_file("benchmarks", name) is not None


def _check_root(table: PaperTable, root: Path | None) -> None:
    """Refuse one folder of clips for several data sets."""
    several = [dataset for dataset in table.datasets if _has_benchmark(benchmark_name(dataset))]
    if root is not None and len(several) > 1:
        raise ValueError(
            f"--root {root} with {table.id}, which is of {' and '.join(several)}. Expected a table of one data set. "
            "Leave out --root and set root in their YAML in experiments/benchmarks/"
        )


def _unprepared(benchmark: "Benchmark") -> str:
    """Why its clips cannot be scored; empty if they can."""
    try:
        benchmark.data.prepare_data()
        benchmark.data.clips("test")
        _ = benchmark.data.source_root
    except FileNotFoundError as error:
        return str(error)
    return ""


def _absent_note(table: PaperTable, name: str, path: Path) -> str:
    """The note on a checkpoint that a benchmark names and that does not exist."""
    methods = [name, *(row.method for row in table.rows if row.name == name)]
    known = [method for method in methods if experiment_file("", method) is not None]
    train = f"Train one with: lightning fit -c experiments/{known[0]}.yaml, or name" if known else "Name"
    return f"no checkpoint of {name} at {path}. {train} another with --methods.{name} CKPT."


def _without_weights(
    table: PaperTable, part: DatasetPlan, names: Container[str], finished: Container[str]
) -> Iterator[str]:
    """The notes on those of the named rows that have neither checkpoint nor videos."""
    rows = [row for row in table.rows if row.dataset == part.dataset and row.name in names]
    rows = [row for row in rows if row.name not in {*part.checkpoints, *part.pred, *part.commands}]
    found = [row.name for row in rows if row.name in finished]
    rows = [row for row in rows if row.name not in finished]
    if found:
        yield f"On {part.dataset}, earlier results are shown, not of this run: {', '.join(found)}."
    ours = [row.name for row in rows if row.method in table.trained_here]
    others = [row.name for row in rows if row.method not in table.trained_here]
    if ours:
        yield (
            f"Not run on {part.dataset}: {', '.join(ours)}: the benchmark {part.benchmark} names no checkpoint. "
            f"Give one with --methods.{ours[0]} CKPT."
        )
    if others:
        yield (
            f"Paper only on {part.dataset}: {', '.join(others)}. Show a method by its videos with "
            f"--pred {others[0]}=DIR."
        )


def skip_label(folders: Sequence[Path]) -> str:
    """'Not run', or 'Shown as found, not run' if earlier results exist."""
    return "Shown as found, not run" if any(ResultsFolder(folder).is_begun for folder in folders) else "Not run"


def plan_of(table: PaperTable, dataset: str, options: RunOptions, folders: Sequence[Path]) -> DatasetPlan:
    """The part of a data set and what of it can be run; `folders` are its results, one for each protocol."""
    from lipsync_bench.evaluation.task.benchmark import load_benchmark

    name = benchmark_name(dataset)
    if not _has_benchmark(name):
        note = (
            f"{skip_label(folders)} on {dataset}: it has no benchmark. Write "
            f"experiments/benchmarks/{name}.yaml with its clips, as lrs2.yaml there."
        )
        return DatasetPlan(dataset, name, {}, {}, {}, (note,), ready=False)
    benchmark = load_benchmark(name, options.inputs.root, None, split_of(table, dataset, options))
    problem = _unprepared(benchmark)
    if problem:
        return DatasetPlan(dataset, name, {}, {}, {}, (f"{skip_label(folders)} on {dataset}: {problem}",), ready=False)
    names = {row.name for row in table.rows if row.dataset == dataset} - {GROUND_TRUTH}
    names &= {*options.select.only} or names
    pred = {method: folder for method, folder in options.inputs.pred.items() if method in names}
    known = {name: Path(path) for name, path in {**benchmark.methods, **options.inputs.methods}.items()}
    wanted = {method: path for method, path in known.items() if method in names and method not in pred}
    here = {method: file_here(method, path, options.weights.store) for method, path in wanted.items()}
    existing = {method: path for method, path in here.items() if path is not None}
    commands = {x: command for x, command in benchmark.commands.items() if x in names - {*wanted, *pred}}
    finished = frozenset.intersection(*map(methods_in, folders))
    absent = {method: path for method, path in wanted.items() if method not in existing and method not in finished}
    notes = [f"Not run on {dataset}: {_absent_note(table, method, path)}" for method, path in absent.items()]
    part = DatasetPlan(dataset, name, existing, pred, commands, (), ready=True)
    return replace(part, notes=(*notes, *_without_weights(table, part, names - set(absent), finished)))
