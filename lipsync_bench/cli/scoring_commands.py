# SPDX-License-Identifier: Apache-2.0
"""The subcommands of `bench` that score, rank and show; heavy imports happen inside, so that help is quick."""

import logging
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lipsync_bench.cli.command_line import From1
from lipsync_bench.datamodules.option_types import Words
from lipsync_bench.datamodules.recipes.options import RecipeOptions
from lipsync_bench.datamodules.splitting import Splitting
from lipsync_bench.datamodules.weights.options import WeightOptions
from lipsync_bench.evaluation.options import Inputs, MetricOptions, Rules, Running, Selection
from lipsync_bench.papers.options import RunOptions, TableOptions

__all__ = ["evaluate", "export", "leaderboard_merge", "report", "sync", "table"]


def evaluate(
    *,
    dataset: str | None = None,
    target: Path | None = None,
    out: Path | None = None,
    workers: From1 | None = None,
    inputs: Inputs = Inputs(),
    rules: Rules = Rules(),
    recipe: RecipeOptions = RecipeOptions(),
    metrics: MetricOptions = MetricOptions(),
    weights: WeightOptions = WeightOptions(),
    select: Selection = Selection(),
    running: Running = Running(),
    splitting: Splitting = Splitting(),
) -> int:
    """Rank methods on a data set, or score your own videos.

    The one with --dataset NAME, the other with --pred DIR --target DIR. Resumes where an interrupted run stopped; what
    failed is tried again, and rows of files that have changed are made anew. The ground truth always takes part, and
    the repeated reference frame.

    Args:
        dataset: Name of a YAML in experiments/benchmarks/, or the path of one.
        target: Folder of the real videos, with which those of --pred are compared; matched by name.
        out: Results folder; if not given results/NAME, with another than the usual protocol results/NAME-PROTOCOL.
        workers: With --target: processes that prepare the targets; one for each core if not given.
    """
    if (dataset is None) == (target is None) or (target is not None and not inputs.pred):
        raise ValueError("expected either --dataset NAME, or both --pred DIR and --target DIR")
    from rich.console import Console

    from lipsync_bench.datamodules.files.disk import printable
    from lipsync_bench.evaluation import evaluate_dataset, evaluate_videos
    from lipsync_bench.evaluation.task.protocol import PAIRED_FACE_BOX, VIDEO_PAIRS
    from lipsync_bench.results.leaderboard import rich_table

    usual = VIDEO_PAIRS if dataset is None else PAIRED_FACE_BOX
    name = next(iter(inputs.pred)) if dataset is None else Path(dataset).stem
    suffix = "" if rules.protocol in (None, usual) else f"-{Path(str(rules.protocol)).stem}"
    out = out or Path("results") / f"{name}{suffix}"
    if dataset is not None:
        run = partial(evaluate_dataset, dataset, out, inputs=inputs, recipe=recipe)
    else:
        assert target is not None
        if recipe:
            raise ValueError("--recipe with --target: videos made elsewhere are fed by nobody here. Leave it out")
        run = partial(evaluate_videos, inputs.pred, target, out, workers=workers)
    result = run(rules=rules, metrics=metrics, weights=weights, select=select, running=running, splitting=splitting)
    if result.missing:
        return 0
    console = Console()
    if len(result.leaderboard):
        console.print(rich_table(result.leaderboard, str(result.folder)))
    places = f"rows: {result.folder / 'clips.csv'}   table: {result.folder / 'leaderboard.csv'}"
    console.print(printable(places), markup=False)
    if result.without_any_score:
        logging.getLogger(__name__).error("every clip failed for %s", ", ".join(result.without_any_score))
        return 1
    return 0


def export(
    *,
    dataset: str,
    out: Path,
    root: Path | None = None,
    rules: Rules = Rules(),
    select: Selection = Selection(),
    splitting: Splitting = Splitting(),
) -> int:
    """Write the pairs of a protocol as files, for methods that run elsewhere.

    Videos (mp4, 25 fps), audio (wav, 16 kHz), pairs.csv with the names under which bench evaluate --pred expects what
    the method makes of them, and README.txt. Resumes where an interrupted run stopped.

    Args:
        dataset: Name of a YAML in experiments/benchmarks/, or the path of one.
        out: Folder for the files.
        root: Folder of prepared clips, instead of the benchmark's.
    """
    from lipsync_bench.evaluation.elsewhere.export import export as run

    report = run(dataset, out, root=root, rules=rules, select=select, splitting=splitting)
    logging.getLogger(__name__).info("%s", report.summary())
    return 1 if report.done + report.skipped == 0 and splitting.part().count == 1 else 0


def sync(
    video: Path, /, *, whole_frames: bool = False, weights: WeightOptions = WeightOptions(), device: str = "auto"
) -> int:
    """Ask SyncNet whether a video's lips follow its audio.

    Offset in frames of 25 fps, positive where the matching audio comes earlier; least distance; confidence. Each face
    track is scored by itself where the weights of the pipeline's detector are here (bench weights fetch sfd_face), else
    whole frames. For the authors' example.avi it says whether their numbers were met.

    Args:
        video: With audio.
        whole_frames: Score whole frames, which a face should fill.
        device: auto, cpu or cuda:N.
    """
    from lipsync_bench.datamodules.files.disk import printable
    from lipsync_bench.evaluation.sync_check import check_sync

    result = check_sync(video, weights.store, whole_frames=whole_frames, device=device)
    sys.stdout.write("".join(f"{printable(line)}\n" for line in result.lines()))
    return 0


def leaderboard_merge(paths: Annotated[list[Path], Parameter(json_list=False)], /, *, out: Path) -> int:
    """Join the results of several runs in one leaderboard.

    Refused are results of another protocol, other weights of metric networks, another data set or other clips. What is
    there twice counts once. Ranks are computed anew if every part has its rows, and are left empty if one has none.

    Args:
        paths: Results folders, their clips.csv, or leaderboard.csv files.
        out: The CSV file to write.
    """
    from rich.console import Console

    from lipsync_bench.datamodules.files.disk import printable, write_atomic
    from lipsync_bench.results.csv_tables import csv_text
    from lipsync_bench.results.leaderboard import rich_table
    from lipsync_bench.results.merge import merge_leaderboards, read_input

    if out.is_dir() or any(path.exists() and out.resolve() == path.resolve() for path in paths):
        raise ValueError(f"--out {out} is a folder or one of the results. Expected a new file, such as --out all.csv")
    table = merge_leaderboards(*(read_input(path) for path in paths))
    write_atomic(out, csv_text(table))
    console = Console()
    console.print(rich_table(table, str(out)))
    console.print(f"table: {printable(str(out))}", markup=False)
    return 0


def table(id: str, /, *, show: TableOptions = TableOptions(), options: RunOptions = RunOptions()) -> int:
    """Print a paper's table with ours beside it.

    Args:
        id: Of the table, as experiments/tables/ID.yaml; list prints all ids.
    """
    from lipsync_bench.papers import table as run

    return run(id, show, options)


def report(
    results: Path,
    /,
    *,
    out: Path = Path("report"),
    tables: Words = (),
    title: str | None = None,
    ratings: Path | None = None,
    votes: Path | None = None,
) -> int:
    """Make a results folder into a site that opens from the disk.

    Leaderboard, plots, comparison with papers, players side by side (with the videos that bench evaluate --save-videos
    keeps), failures and manifest. Needs no network. An older report is replaced, any other folder refused.

    Args:
        results: Results folder of bench evaluate.
        out: Folder of the site.
        tables: Papers' tables beside those of the results' data set, as --tables g4g-1,hyperlips-2, or all.
        title: Of the site; the data set's name if not given.
        ratings: CSV of people's scores, as for bench table, to be shown beside the papers' user studies.
        votes: CSV of people's votes, as for bench table, to be shown beside HyperLips' user study.
    """
    from lipsync_bench.report import write_report

    write_report(results, out, tables, title, ratings=ratings, votes=votes)
    return 0
