# SPDX-License-Identifier: Apache-2.0
"""The papers' tables (experiments/tables/) with our results beside them.

```python
frame = compare(load_table("hyperlips-1"), read_sources(Path("results/lrs2"))).frame()
```
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lipsync_bench.papers.cells import Comparison
    from lipsync_bench.papers.command import table
    from lipsync_bench.papers.comparison import compare
    from lipsync_bench.papers.leaderboards import LeaderboardSource, read_sources
    from lipsync_bench.papers.options import RunOptions, TableOptions
    from lipsync_bench.papers.printed.table_files import list_tables, load_table, read_table
    from lipsync_bench.papers.ratings import Ratings, Votes, opinion_scores, read_ratings, read_votes, vote_shares
    from lipsync_bench.papers.running.runs import run_table

_HOMES = {
    "cells": ("Comparison",),
    "command": ("table",),
    "comparison": ("compare",),
    "options": ("RunOptions", "TableOptions"),
    "printed.table_files": ("list_tables", "load_table", "read_table"),
    "ratings": ("Ratings", "Votes", "opinion_scores", "read_ratings", "read_votes", "vote_shares"),
    "leaderboards": ("LeaderboardSource", "read_sources"),
    "running.runs": ("run_table",),
}

__all__ = [
    "Comparison",
    "LeaderboardSource",
    "Ratings",
    "RunOptions",
    "TableOptions",
    "Votes",
    "compare",
    "list_tables",
    "load_table",
    "opinion_scores",
    "read_ratings",
    "read_sources",
    "read_table",
    "read_votes",
    "run_table",
    "table",
    "vote_shares",
]


def __getattr__(name: str) -> Any:
    """Imported when first asked for: `bench table --help` needs the options alone."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__} has no attribute {name!r}")
