# SPDX-License-Identifier: Apache-2.0
"""The papers' tables with our results beside them."""

import logging
from collections.abc import Sequence

from lipsync_bench.papers import Comparison, compare, list_tables, load_table, read_sources
from lipsync_bench.papers.comparable import name_in_papers
from lipsync_bench.papers.printed.paper_table import PaperTable
from lipsync_bench.papers.scores import ScoreSource
from lipsync_bench.report.contents import Results

ALL = "all"

_log = logging.getLogger(__name__)

__all__ = ["ALL", "comparisons"]


def _chosen(results: Results, tables: Sequence[str]) -> list[PaperTable]:
    known = list_tables()
    own = name_in_papers(results.dataset)
    # A user study is not comparable with a results folder: people rated other videos.
    names = [name for name, table in known.items() if own in table.datasets and not table.user_study]
    for name in tables:
        names += list(known) if name == ALL else [load_table(name).id]
    return [known[name] for name in dict.fromkeys(names)]


def comparisons(results: Results, tables: Sequence[str] = ()) -> tuple[list[Comparison], str]:
    """The tables of the results' data set, and others by their ids.

    Args:
        results: Our results.
        tables: Ids, or "all".

    Returns:
        The tables, and the reason why our results are not in them; "" if they are.

    Raises:
        FileNotFoundError: No table of that id.
    """
    chosen, problem = _chosen(results, tables), ""
    sources: Sequence[ScoreSource] = ()
    if chosen:
        try:
            sources = read_sources(results.folder.path)
        except ValueError as error:  # such as two weights of one method, which cannot both be in a paper's row
            problem = str(error)
            _log.warning("the papers' tables are shown without ours: %s", error)
    return [compare(table, () if table.user_study else sources) for table in chosen], problem
