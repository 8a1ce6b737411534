# SPDX-License-Identifier: Apache-2.0
"""All metrics: the descriptions at the ends of the files of this folder, in a stable order.

The folder is the list. Only the last statement of a file, `METRIC = Description(...)`, is evaluated here, with the
names of `lipsync_bench.metrics.metric`: its imports (torch, torchmetrics, dlib ...) wait until something is computed.
"""

from dataclasses import replace
from pathlib import Path

from lipsync_bench.metrics import __name__ as PACKAGE
from lipsync_bench.metrics import __path__ as FOLDERS
from lipsync_bench.metrics import metric
from lipsync_bench.metrics.metric import Column, Description, Network

CLAUSE = "\nMETRIC = "

__all__ = ["CLIP_COLUMNS", "COLUMNS", "COUNTS", "CURVES", "METRICS", "NETWORKS", "RANKED", "column", "describe"]


def describe(path: Path, folder: Path) -> Description | None:
    """The description of a metric's file; None for a file without one.

    Args:
        path: The file.
        folder: The folder of `metrics.__path__` that contains it, at any depth.

    Raises:
        ValueError: The last statement is not a description.
    """
    _, clause, text = path.read_text(encoding="utf-8").rpartition(CLAUSE)
    if not clause:
        return None
    try:
        found = eval(text, {name: getattr(metric, name) for name in metric.__all__})
    except (NameError, SyntaxError, TypeError) as error:
        raise ValueError(
            f"{path}: the description cannot be read ({error}). Expected METRIC = Description(...) as the last "
            "statement of the file, of literals and the names of lipsync_bench.metrics.metric"
        ) from error
    if not isinstance(found, Description):
        raise ValueError(
            f"{path}: METRIC is {type(found).__name__}. Expected a lipsync_bench.metrics.metric.Description"
        )
    return replace(found, module=".".join((PACKAGE, *path.relative_to(folder).with_suffix("").parts)))


def _all() -> tuple[Description, ...]:
    files = sorted((path.name, path, Path(folder)) for folder in FOLDERS for path in Path(folder).rglob("*.py"))
    found = [description for _, path, folder in files if (description := describe(path, folder)) is not None]
    names = [c.name for description in found for c in description.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"several metrics are called {', '.join(twice)}. Expected one file for each name: rename one")
    return tuple(sorted(found, key=lambda description: min(c.order for c in description.columns)))


METRICS = _all()
"""One description for each file."""
COLUMNS = tuple(sorted((c for metric in METRICS for c in metric.columns), key=lambda c: c.order))
CLIP_COLUMNS = tuple(column for column in COLUMNS if column.kind != "pooled")
"""The columns of a row of clips.csv."""
RANKED = tuple(column for column in COLUMNS if column.kind != "diagnostic")
"""The columns of a leaderboard."""
COUNTS = tuple(field for metric in METRICS for field in metric.counts)
CURVES = tuple(field for metric in METRICS for field in metric.curves)
NETWORKS: tuple[tuple[Description, Network], ...] = tuple(
    (metric, network)
    for metric in sorted(METRICS, key=lambda m: all(c.reference != "audio" for c in m.columns))  # sync comes first
    for network in metric.networks
)
"""Networks with the metric that needs them."""


def column(name: str) -> Column:
    """The column of that name. Raises KeyError for an unknown name."""
    for candidate in COLUMNS:
        if candidate.name == name:
            return candidate
    raise KeyError(f"no metric {name!r}; there are {', '.join(c.name for c in COLUMNS)}")
