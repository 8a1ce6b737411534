# SPDX-License-Identifier: Apache-2.0
"""The table of metrics in docs/evaluation.md, made of their descriptions.

`python -m lipsync_bench.cli.metric_table docs/evaluation.md` renews it there, between its two comments.
"""

import re
import sys
from pathlib import Path

from lipsync_bench.datamodules.files.disk import write_atomic
from lipsync_bench.evaluation.networks import way_to
from lipsync_bench.metrics.registry import METRICS

_PLACE = re.compile(r"(<!-- metrics.*?-->\n\n).*?(\n\n<!-- end of metrics -->)", re.DOTALL)
_ARROWS = {True: " ↑", False: " ↓", None: ""}

__all__ = ["metric_table", "with_table"]


def metric_table() -> str:
    """Markdown: a line for each metric's file. An arrow points to the better side of a column."""
    lines = ["| column | needs | checked against |", "|---|---|---|"]
    for metric in METRICS:
        columns = ", ".join(f"`{column.name}`{_ARROWS[column.higher_is_better]}" for column in metric.columns)
        needs = dict.fromkeys(f"`{way_to(network)}`" for network in metric.networks)
        lines.append(f"| {columns} | {', '.join(needs) or '–'} | {metric.checked} |")
    return "\n".join(lines)


def with_table(text: str) -> str:
    """A document with its table renewed.

    Raises:
        ValueError: It has no place for the table.
    """
    if not _PLACE.search(text):
        raise ValueError("no comments <!-- metrics ... --> and <!-- end of metrics --> around the table")
    return _PLACE.sub(lambda match: match[1] + metric_table() + match[2], text)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    write_atomic(path, with_table(path.read_text(encoding="utf-8")))
