# SPDX-License-Identifier: Apache-2.0
"""All metrics: the descriptions at the ends of the files of this folder, in a stable order.

The folder is the list, with the modules that other packages announce (`lipsync_bench.metrics`). Only the last statement
of a file, `METRIC = Description(...)`, is evaluated here, with the names of `lipsync_bench.metrics.metric`: its imports
(torch, torchmetrics, dlib ...) wait until something is computed.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from lipsync_bench.datamodules.foreign import Foreign, foreign, joined
from lipsync_bench.metrics import __name__ as PACKAGE
from lipsync_bench.metrics import __path__ as FOLDERS
from lipsync_bench.metrics import metric
from lipsync_bench.metrics.metric import Column, Description, Network

CLAUSE = "\nMETRIC = "
OTHER_FIELDS = (
    *("protocol", "method", "generator_sha256", "paste", "recipe", "clip", "audio_clip", "speaker", "status", "reason"),
    *("prediction_sha256", "target_sha256", "audio_sha256", "faces_sha256", "frames", "frames_target"),
    *("boxless_frames", "fallback_frames", "damaged_frames", "generate_seconds", "seconds", "command_seconds"),
    *("generator_weights", "recipe_text", "published", "trained_otherwise", "steps_left_out", "passed_through_frames"),
    *("split", "method_version", "package_version", "unenhanced_frames"),
)
"""The fields of a row that no metric computes; no metric of another package may use these names."""

__all__ = [
    "CLIP_COLUMNS",
    "COLUMNS",
    "COUNTS",
    "CURVES",
    "METRICS",
    "NETWORKS",
    "OTHER_FIELDS",
    "RANKED",
    "column",
    "describe",
]


def describe(path: Path, folder: Path, package: str = PACKAGE) -> Description | None:
    """The description of a metric's file; None for a file without one.

    Args:
        path: The file.
        folder: The folder of `package` that contains it, at any depth.
        package: Its name.

    Raises:
        ValueError: The last statement is not a description.
    """
    _, clause, text = f"\n{path.read_text(encoding='utf-8')}".rpartition(CLAUSE)
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
    return replace(found, module=".".join((package, *path.relative_to(folder).with_suffix("").parts)))


def _foreign() -> Iterator[tuple[Foreign, Description]]:
    for entry in foreign(PACKAGE):
        with entry.warned():
            files = ((path, name.rpartition(".")[0]) for name, path in entry.modules.items())
            found = [d for path, home in files if (d := describe(path, path.parent, home)) is not None]
            if not found:
                raise ValueError("no file of it ends with METRIC = Description(...)")
            yield from ((entry, replace(description, entry=entry)) for description in found)


def _all() -> tuple[Description, ...]:
    files = sorted((path.name, path, Path(folder)) for folder in FOLDERS for path in Path(folder).rglob("*.py"))
    found = [description for _, path, folder in files if (description := describe(path, folder)) is not None]
    names = [c.name for description in found for c in description.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"several metrics are called {', '.join(twice)}. Expected one file for each name: rename one")
    ours: dict[str, Description | None] = dict.fromkeys(OTHER_FIELDS)
    ours |= {name: description for description in found for name in description.fields}
    theirs: list[tuple[str, Foreign, Description | None]] = []
    for entry, description in _foreign():  # of which one name is ours is left out as a whole
        shadowing = [name for name in sorted(description.fields) if name in ours]
        theirs += [(name, entry, description) for name in shadowing[:1] or description.fields]
    taken = joined("metric", ours, theirs).values()
    found += dict.fromkeys(d for d in taken if d is not None and d.entry is not None)
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
