# SPDX-License-Identifier: Apache-2.0
"""`bench table`: a paper's table with our results beside it."""

import io
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lipsync_bench.datamodules.files.disk import printable, write_atomic
from lipsync_bench.papers.cells import Comparison
from lipsync_bench.papers.comparison import compare
from lipsync_bench.papers.leaderboards import read_sources
from lipsync_bench.papers.options import RunOptions, TableOptions
from lipsync_bench.papers.printed.paper_table import PaperTable
from lipsync_bench.papers.printed.table_files import list_tables, load_table
from lipsync_bench.papers.ratings import STUDIES, study_sources
from lipsync_bench.papers.render import to_csv, to_latex, to_markdown, to_text
from lipsync_bench.papers.running.runs import run_table
from lipsync_bench.papers.scores import ScoreSource

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


def _sources(paper: PaperTable, show: TableOptions) -> Sequence[ScoreSource]:
    results = None if show.run else show.results
    if paper.study and results is not None:
        raise ValueError(f"{paper.id} is a user study; {results} holds measurements. Expected {_wanted(paper)}")
    for name in STUDIES:
        file = getattr(show, name)
        if file is not None and name != paper.study:
            what = "is a user study of other answers" if paper.study else "is not a user study"
            raise ValueError(f"{paper.id} {what}; {file} holds {name}. Expected {_wanted(paper)}")
    if paper.study:
        return study_sources(paper, show.ratings, show.votes)
    return () if results is None else read_sources(results)


def _wanted(paper: PaperTable) -> str:
    """What a table is compared with, and the option that names it."""
    return f"people's {paper.study}: --{paper.study} FILE" if paper.study else "a results folder: --results DIR"


def _refuse_run(paper: PaperTable, show: TableOptions, options: RunOptions) -> None:
    """Refuse arguments that contradict --run, and options that need it."""
    run, results = show.run, show.results
    if options.given and not run:
        raise ValueError(
            f"{', '.join(options.given)} without --run. Expected --run, because the option is for an evaluation. Add "
            "--run, or show finished results with --results DIR alone"
        )
    if run and paper.study:
        raise ValueError(
            f"--run with {paper.id}, a user study. Expected people's {paper.study}, which cannot be computed: "
            f"--{paper.study} FILE"
        )
    if run and show.paper_only:
        raise ValueError("--run with --paper-only. Expected one of the two. Leave out --paper-only to see ours")
    if run and results is not None and results.is_file():
        raise ValueError(f"--run with --results {results}, a file. Expected a folder for results. Give another")


def table(id: str, show: TableOptions = TableOptions(), options: RunOptions = RunOptions()) -> int:
    """Print a paper's table with our results beside it.

    Args:
        id: Id of the table; "list" prints all ids with their captions.
        show: What the table contains and where it is written.
        options: Options of the evaluations that `show.run` runs first; see `runs`.

    Returns:
        0; 1 if every clip failed for a method that was run.

    Raises:
        FileNotFoundError: No such table (the message lists all), results, ratings or votes; or nothing can be run.
        ValueError: A file is damaged, or options contradict each other.
    """
    failed: tuple[str, ...] = ()
    width = FILE_WIDTH if show.out is not None else Console().width
    if id == "list":
        text = _listing(width)
    else:
        paper = load_table(id)
        given = show.results or show.ratings or show.votes
        if show.paper_only and given is not None:
            raise ValueError(
                f"--paper-only with {given}. Expected one of the two. Leave out --paper-only to "
                "see ours beside the paper"
            )
        _refuse_run(paper, show, options)
        sources, notes = _sources(paper, show), tuple[str, ...]()
        if show.run:
            finished = run_table(paper, show.results or RESULTS, options)
            if finished is None:  # the first rank prints
                return 0
            sources, notes, failed = finished.sources, finished.notes, finished.failed
        comparison = compare(paper, sources, notes)
        text = to_text(comparison, width) if show.format == "text" else _RENDER[show.format](comparison)
        if not comparison.sources and not show.paper_only:
            way = f"--{paper.study} FILE" if paper.study else "--results DIR, as bench evaluate left it, or with --run"
            _log.info("the paper's side alone; ours comes beside it with %s", way)
    if show.out is not None:
        write_atomic(show.out, text)
        _log.info("wrote %s", show.out)
    else:
        sys.stdout.write("\n".join(map(printable, text.split("\n"))))  # names come from users' files
    if failed:
        _log.error("every clip failed for %s", ", ".join(failed))
        return 1
    return 0
