# SPDX-License-Identifier: Apache-2.0
"""`bench table`: a paper's table with our results beside it."""

import io
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lipsync_bench.datamodules.files import printable, write_atomic
from lipsync_bench.papers.cells import Comparison
from lipsync_bench.papers.comparison import compare
from lipsync_bench.papers.printed.paper_table import PaperTable
from lipsync_bench.papers.printed.table_files import list_tables, load_table
from lipsync_bench.papers.ratings import Ratings
from lipsync_bench.papers.render import to_csv, to_latex, to_markdown, to_text
from lipsync_bench.papers.results import read_sources
from lipsync_bench.papers.running.needs import RunOptions
from lipsync_bench.papers.running.runs import run_table
from lipsync_bench.papers.sources import Source

_log = logging.getLogger(__name__)
_RENDER: dict[str, Callable[[Comparison], str]] = {"csv": to_csv, "markdown": to_markdown, "latex": to_latex}
FILE_WIDTH = 120  # characters in a line of a text file
RESULTS = Path("results")

__all__ = ["table"]


def _listing(width: int) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    shown = Table("id", "data", "what it shows")
    for name, known in list_tables().items():
        shown.add_row(Text(name), Text(", ".join(known.datasets)), Text(known.caption))
    console.print(shown)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _sources(paper: PaperTable, results: Path | None, ratings: Path | None) -> Sequence[Source]:
    if paper.user_study and results is not None:
        raise ValueError(
            f"{paper.id} is a user study; {results} holds measurements. Expected people's scores: --ratings FILE"
        )
    if not paper.user_study and ratings is not None:
        raise ValueError(
            f"{paper.id} is not a user study; {ratings} holds ratings. Expected a results folder: --results DIR"
        )
    if ratings is not None:
        return (Ratings(ratings),)
    return () if results is None else read_sources(results)


def _refuse_run(paper: PaperTable, results: Path | None, paper_only: bool, run: bool, options: RunOptions) -> None:
    """Refuse arguments that contradict --run, and options that need it."""
    if options.given and not run:
        raise ValueError(
            f"{', '.join(options.given)} without --run. Expected --run, because the option is for an evaluation. Add "
            "--run, or show finished results with --results DIR alone"
        )
    if run and paper.user_study:
        raise ValueError(
            f"--run with {paper.id}, a user study. Expected people's scores, which cannot be computed: --ratings FILE"
        )
    if run and paper_only:
        raise ValueError("--run with --paper-only. Expected one of the two. Leave out --paper-only to see ours")
    if run and results is not None and results.is_file():
        raise ValueError(f"--run with --results {results}, a file. Expected a folder for results. Give another")


def table(
    id: str,
    results: Path | None = None,
    paper_only: bool = False,
    format: Literal["text", "csv", "markdown", "latex"] = "text",
    out: Path | None = None,
    ratings: Path | None = None,
    run: bool = False,
    options: RunOptions | None = None,
) -> int:
    """Print a paper's table with our results beside it.

    Args:
        id: Id of the table; "list" prints all ids with their captions.
        results: Results folder of `bench evaluate`, a folder of such folders, or a leaderboard.csv. With `run` the
            folder that results folders are written into; results/ if not given.
        paper_only: Print only the paper's values.
        format: Format of the output.
        out: File to write instead of the screen.
        ratings: For a user study: CSV with the columns video, method, rater, question (visual, sync or realness) and
            score (1 to 5).
        run: First run the evaluations that the table needs and that are not finished; see `runs`.
        options: Options of these evaluations.

    Returns:
        0; 1 if every clip failed for a method that was run.

    Raises:
        FileNotFoundError: No such table (the message lists all), results or ratings; or nothing can be run.
        ValueError: A file is damaged, or options contradict each other.
    """
    options = options or RunOptions()
    failed: tuple[str, ...] = ()
    width = FILE_WIDTH if out is not None else Console().width
    if id == "list":
        text = _listing(width)
    else:
        paper = load_table(id)
        if paper_only and (results is not None or ratings is not None):
            raise ValueError(
                f"--paper-only with {results or ratings}. Expected one of the two. Leave out --paper-only to see ours "
                "beside the paper"
            )
        _refuse_run(paper, results, paper_only, run, options)
        sources, notes = _sources(paper, None if run else results, ratings), tuple[str, ...]()
        if run:
            finished = run_table(paper, results or RESULTS, options)
            if finished is None:  # the first rank prints
                return 0
            sources, notes, failed = finished.sources, finished.notes, finished.failed
        comparison = compare(paper, sources, notes)
        text = to_text(comparison, width) if format == "text" else _RENDER[format](comparison)
        if not comparison.sources and not paper_only:
            way = "--ratings FILE" if paper.user_study else "--results DIR, as bench evaluate left it, or with --run"
            _log.info("the paper's side alone; ours comes beside it with %s", way)
    if out is not None:
        write_atomic(out, text)
        _log.info("wrote %s", out)
    else:
        sys.stdout.write("\n".join(map(printable, text.split("\n"))))  # names come from users' files
    if failed:
        _log.error("every clip failed for %s", ", ".join(failed))
        return 1
    return 0
