# SPDX-License-Identifier: Apache-2.0
"""Scoring and ranking from Python; everything comes back as a DataFrame. docs/evaluation.md has an example.

```python
result = evaluate_videos(Path("mine"), Path("real"), Path("results/mine"))
result.leaderboard, result.rows, paired_tests(result.rows)
```
"""

from lipsync_bench.evaluation.columns import COLUMNS, Column, column
from lipsync_bench.evaluation.evaluate import Result, ScorerFiles, Selection, evaluate_dataset, evaluate_videos
from lipsync_bench.evaluation.leaderboard import leaderboard
from lipsync_bench.evaluation.protocol import Protocol, list_protocols, load_protocol
from lipsync_bench.evaluation.ranks import intervals, paired_tests, ranks
from lipsync_bench.evaluation.rows import read_rows

__all__ = [
    "COLUMNS",
    "Column",
    "Protocol",
    "Result",
    "ScorerFiles",
    "Selection",
    "column",
    "evaluate_dataset",
    "evaluate_videos",
    "intervals",
    "leaderboard",
    "list_protocols",
    "load_protocol",
    "paired_tests",
    "ranks",
    "read_rows",
]
