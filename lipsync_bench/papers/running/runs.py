# SPDX-License-Identifier: Apache-2.0
"""`bench table ID --run`: runs the evaluations that a paper's table needs and that are not finished.

A table needs each of its data sets that has a benchmark, under each protocol of its paper whose pairs a metric of the
table uses. Results are in RESULTS/DATASET-PROTOCOL, with -val behind it for that split, as of `bench evaluate`, whose
rows are reused.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lipsync_bench.datamodules.weights.store import Store
from lipsync_bench.evaluation.elsewhere.command import stated_version
from lipsync_bench.evaluation.options import Rules
from lipsync_bench.evaluation.task.protocol import Protocol
from lipsync_bench.papers.leaderboards import LeaderboardSource, WeightsInUse, read_folders
from lipsync_bench.papers.options import RunOptions
from lipsync_bench.papers.printed.paper_table import PaperTable
from lipsync_bench.papers.running.plan import (
    DatasetPlan,
    benchmark_name,
    check_options,
    plan_of,
    protocols_of,
    skip_label,
    split_of,
)
from lipsync_bench.results.errors import OtherResultsError
from lipsync_bench.results.folder import ResultsFolder
from lipsync_bench.results.rows import GROUND_TRUTH
from lipsync_bench.weights.methods import weights_sha256

_log = logging.getLogger(__name__)

__all__ = ["Finished", "run_table"]


@dataclass(frozen=True)
class Finished:
    """The finished evaluations.

    Args:
        sources: The results.
        notes: Sentences on what was not run, and why.
        failed: Methods of which every clip failed, each with its results folder.
    """

    sources: tuple[LeaderboardSource, ...]
    notes: tuple[str, ...]
    failed: tuple[str, ...]


@dataclass(frozen=True)
class _Step:
    """One results folder.

    Args:
        part: Its data set.
        protocol: Its protocol.
        out: The folder.
        split: Its split, instead of the benchmark's.
        run: Resume it; otherwise show existing results.
    """

    part: DatasetPlan
    protocol: Protocol
    out: Path
    split: Literal["val", "test"] | None
    run: bool


def _evaluate(step: _Step, options: RunOptions) -> tuple[list[str], list[str]]:
    """Run or resume one evaluation until it is finished.

    Returns:
        The methods of which every clip failed, and notes on those that were left out.
    """
    from lipsync_bench.evaluation.evaluate import evaluate_dataset

    part, out = step.part, step.out
    names = [GROUND_TRUTH, *part.checkpoints, *part.pred, *part.commands]
    _log.info("%s under %s: %s -> %s", part.benchmark, step.protocol.key, ", ".join(names), out)
    try:
        result = evaluate_dataset(
            part.benchmark,
            out,
            inputs=replace(options.inputs, methods=dict(part.checkpoints), pred=dict(part.pred)),
            rules=Rules(step.protocol.name, split=step.split),
            recipe=options.recipe,
            metrics=options.metrics,
            weights=options.weights,
            select=replace(options.select, only=names),
            running=options.running,
            wanted={*options.inputs.methods, *options.select.only},
        )
    except OtherResultsError as error:
        raise OtherResultsError(
            f"{error} With bench table --run that is --results; existing results are shown without --run."
        ) from error
    failed = [f"{name} ({out})" for name in result.without_any_score if name in names]
    return failed, [f"Not run on {part.dataset}: {why}" for why in result.left_out.values()]


def _in_use(part: DatasetPlan, store: Store) -> WeightsInUse:
    """The weights of this run, so that rows of earlier weights are not in the table."""
    return {
        **dict.fromkeys(part.pred, ""),
        **{name: command.sha256(stated_version(name, command)) for name, command in part.commands.items()},
        **{name: weights_sha256(path, store) for name, path in part.checkpoints.items()},
    }


def run_table(table: PaperTable, results: Path, options: RunOptions) -> Finished | None:
    """Run the evaluations that a table needs and that are not finished, and read the results.

    Args:
        table: A paper's table of measurements.
        results: Folder of results folders. Existing results of a data set that cannot be run here are shown.
        options: The evaluations' options.

    Returns:
        The finished evaluations; None on all ranks of torchrun but the first.

    Raises:
        FileNotFoundError: A given checkpoint, folder or weight file is missing, or nothing can be run.
        ValueError: A method is in no row; one root is given for several data sets; results of other metric networks.
    """
    from lipsync_bench.datamodules.slices import rank_and_world, slice_of
    from lipsync_bench.processes import has_meeting_place

    if slice_of().count > (rank_and_world()[1] if has_meeting_place() else 1):
        raise ValueError(
            f"--run on several processes ({slice_of().said_by}) that have no MASTER_ADDR and MASTER_PORT. Expected "
            "both, because the table waits for all. Start with torchrun or --devices N, or run bench evaluate first, "
            "then show its results without --run"
        )
    check_options(table, options)
    protocols = protocols_of(table, options)
    steps: list[_Step] = []
    notes: list[str] = []
    for dataset in table.datasets:
        split = split_of(table, dataset, options)
        ending = "-val" if split == "val" else ""
        folders = {name: results / f"{benchmark_name(dataset)}-{name}{ending}" for name in protocols}
        wanted = [folders[name] for name, (_, missing) in protocols.items() if not missing] or list(folders.values())
        part = plan_of(table, dataset, options, wanted)
        notes += part.notes
        for name, (protocol, missing) in protocols.items():
            if missing:
                notes.append(f"{skip_label([folders[name]])} on {dataset}: {missing}")
            if (part.ready and not missing) or ResultsFolder(folders[name]).is_begun:
                steps.append(_Step(part, protocol, folders[name], split, part.ready and not missing))
    if not steps:
        raise FileNotFoundError(
            f"{table.id}: nothing can be run, and {results} has no results of it. Expected a prepared data set and "
            "what its metrics need.\n" + "\n".join(notes)
        )
    for note in notes:
        _log.warning("%s", note)
    failed: list[str] = []
    for step in steps:
        if step.run:
            without_score, left_out = _evaluate(step, options)
            failed += without_score
            notes += [note for note in left_out if note not in notes]
    if rank_and_world()[0] != 0:
        return None
    in_use = {step.part.dataset: _in_use(step.part, options.weights.store) for step in steps if step.run}
    sources = read_folders((step.out, in_use.get(step.part.dataset, {})) for step in steps)
    return Finished(sources, tuple(notes), tuple(failed))
