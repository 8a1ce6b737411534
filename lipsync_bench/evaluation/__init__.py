# SPDX-License-Identifier: Apache-2.0
"""Scoring and ranking from Python; everything comes back as a DataFrame. docs/evaluation.md has an example.

```python
result = evaluate_videos(Path("mine"), Path("real"), Path("results/mine"))
result.leaderboard, result.rows, paired_tests(result.rows)
```
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lipsync_bench.datamodules.weights.options import WeightOptions
    from lipsync_bench.evaluation.evaluate import evaluate_dataset, evaluate_videos
    from lipsync_bench.evaluation.options import Inputs, MetricOptions, Rules, Running, Selection
    from lipsync_bench.evaluation.task.protocol import Protocol, list_protocols, load_protocol
    from lipsync_bench.evaluation.task.selection import Result
    from lipsync_bench.metrics.metric import Column
    from lipsync_bench.metrics.registry import COLUMNS, column
    from lipsync_bench.results.ranks import intervals, paired_tests
    from lipsync_bench.results.rows import read_rows

_HOMES = {
    ".evaluate": ("evaluate_dataset", "evaluate_videos"),
    ".options": ("Inputs", "Rules", "Running", "MetricOptions", "Selection"),
    ".task.protocol": ("Protocol", "list_protocols", "load_protocol"),
    ".task.selection": ("Result",),
    "lipsync_bench.datamodules.weights.options": ("WeightOptions",),
    "lipsync_bench.metrics.metric": ("Column",),
    "lipsync_bench.metrics.registry": ("COLUMNS", "column"),
    "lipsync_bench.results.ranks": ("intervals", "paired_tests"),
    "lipsync_bench.results.rows": ("read_rows",),
}

__all__ = [
    "COLUMNS",
    "Column",
    "Inputs",
    "MetricOptions",
    "Protocol",
    "Result",
    "Rules",
    "Running",
    "Selection",
    "WeightOptions",
    "column",
    "evaluate_dataset",
    "evaluate_videos",
    "intervals",
    "list_protocols",
    "load_protocol",
    "paired_tests",
    "read_rows",
]


def __getattr__(name: str) -> Any:
    """Imported when first asked for: reading rows needs no networks, and evaluating them takes seconds to import."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home, __name__), name)
    raise AttributeError(f"module {__name__} has no attribute {name!r}")
