# SPDX-License-Identifier: Apache-2.0
"""Draws docs/metrics/images/NAME.svg: how each metric answers to the degradations of docs/results/degraded_clips.md.

    python -m benchmarks.draw_metric_curves

The numbers are those of that page's two tables, which `benchmarks.degraded_clips` measured.
"""

import re
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

from lipsync_bench.metrics.metric import Column
from lipsync_bench.metrics.registry import METRICS

ROOT = Path(__file__).parents[1]
STUDY = ROOT / "docs" / "results" / "degraded_clips.md"
IMAGES = ROOT / "docs" / "metrics" / "images"
SERIES = {
    "blur, standard deviation (px)": {"0": "copy", "1": "blur_1", "2": "blur_2", "4": "blur_4"},
    "x264, crf": {"1": "copy", "23": "h264_23", "35": "h264_35", "45": "h264_45"},
    "audio late by (frames)": {"0": "copy", "2": "late_2", "5": "late_5", "10": "late_10"},
    "mouth": {"own": "copy", "frozen": "frozen"},
}
CLIPS = {"real clips": "#0072b2", "synthetic corpus": "#d55e00"}
_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "metrics", "font.family": "sans-serif", "font.size": 9}

__all__ = ["drawn_metrics", "study"]

Values = dict[str, dict[str, float]]


def study() -> dict[str, Values]:
    """Of each kind of clips: the mean by column's heading and variant; `identical` is missing."""
    tables = re.findall(r"(?:^\|.*\n)+", STUDY.read_text(encoding="utf-8"), re.MULTILINE)
    found = {}
    for name, table in zip(CLIPS, tables, strict=True):
        head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
        found[name] = {
            heading: {row[0]: float(row[i]) for row in rows if row[i] != "identical"}
            for i, heading in enumerate(head)
            if heading
        }
    return found


def drawn_metrics() -> dict[str, list[Column]]:
    """The columns that the study has, by the name of the metric's file."""
    measured = study()["real clips"]
    shown = {m.module.rpartition(".")[2]: [c for c in m.columns if c.heading in measured] for m in METRICS}
    return {name: columns for name, columns in shown.items() if columns}


def _draw(name: str, columns: list[Column], found: dict[str, Values]) -> None:
    size = (9.0, 1.9 * len(columns) + 0.5)
    figure, axes = plt.subplots(
        len(columns), len(SERIES), figsize=size, squeeze=False, sharey="row", width_ratios=[3, 3, 3, 2]
    )
    for row, column in zip(axes, columns, strict=True):
        for axis, (title, points) in zip(row, SERIES.items(), strict=True):
            for clips, colour in CLIPS.items():
                values = [found[clips][column.heading][variant] for variant in points.values()]
                axis.plot(list(points), values, "o-", markersize=4, color=colour, label=clips)
            axis.margins(x=0.12)
            axis.grid(alpha=0.25)
            axis.spines[["top", "right"]].set_visible(False)
            if column is columns[-1]:
                axis.set_xlabel(title)
        row[0].set_ylabel(column.heading)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="upper center", ncols=2, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.3 / size[1]))
    figure.savefig(IMAGES / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    IMAGES.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(_STYLE):
        for metric, shown in drawn_metrics().items():
            _draw(metric, shown, study())
