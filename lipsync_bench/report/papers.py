# SPDX-License-Identifier: Apache-2.0
"""The papers' tables with our results beside them."""

import logging
from collections.abc import Container, Sequence
from pathlib import Path

from lipsync_bench.papers import Comparison, compare, list_tables, load_table, read_sources
from lipsync_bench.papers.comparable import name_in_papers
from lipsync_bench.papers.printed.paper_table import PaperTable
from lipsync_bench.papers.ratings import study_sources
from lipsync_bench.papers.scores import ScoreSource
from lipsync_bench.report.contents import Results

ALL = "all"

_log = logging.getLogger(__name__)

__all__ = ["ALL", "comparisons"]


def _chosen(results: Results, tables: Sequence[str], studies: Container[str]) -> list[PaperTable]:
    known = list_tables()
    own = name_in_papers(results.dataset)
    # A user study is not comparable with a results folder: people rated other videos.
    names = [n for n, table in known.items() if (table.study in studies if table.study else own in table.datasets)]
    for name in tables:
        names += list(known) if name == ALL else [load_table(name).id]
    return [known[name] for name in dict.fromkeys(names)]


def comparisons(
    results: Results, tables: Sequence[str] = (), ratings: Path | None = None, votes: Path | None = None
) -> tuple[list[Comparison], str]:
    """The tables of the results' data set, and others by their ids.

    Args:
        results: Our results.
        tables: Ids, or "all".
        ratings: People's, beside the user studies with scores.
        votes: People's, beside the user studies with votes.

    Returns:
        The tables, and the reason why our results are not in them; "" if they are.

    Raises:
        FileNotFoundError: No table of that id, no such file.
        ValueError: A file of ratings or votes is damaged.
    """
    given = {name for name, file in (("ratings", ratings), ("votes", votes)) if file is not None}
    chosen, problem = _chosen(results, tables, given), ""
    sources: Sequence[ScoreSource] = ()
    if chosen:
        try:
            sources = read_sources(results.folder.path)
        except ValueError as error:  # such as two weights of one method, which cannot both be in a paper's row
            problem = str(error)
            _log.warning("the papers' tables are shown without ours: %s", error)
    return [
        compare(table, study_sources(table, ratings, votes) if table.study else sources) for table in chosen
    ], problem
