# SPDX-License-Identifier: Apache-2.0
"""The papers' tables (experiments/tables/) with our results beside them.

```python
frame = compare(load_table("hyperlips-1"), read_sources(Path("results/lrs2"))).frame()
```
"""

from lipsync_bench.papers.cells import Comparison
from lipsync_bench.papers.command import table
from lipsync_bench.papers.comparison import compare
from lipsync_bench.papers.printed.table_files import list_tables, load_table, read_table
from lipsync_bench.papers.ratings import Ratings, opinion_scores, read_ratings
from lipsync_bench.papers.results import LeaderboardSource, read_sources
from lipsync_bench.papers.running.needs import RunOptions
from lipsync_bench.papers.running.runs import run_table

__all__ = [
    "Comparison",
    "LeaderboardSource",
    "Ratings",
    "RunOptions",
    "compare",
    "list_tables",
    "load_table",
    "opinion_scores",
    "read_ratings",
    "read_sources",
    "read_table",
    "run_table",
    "table",
]
