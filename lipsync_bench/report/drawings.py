# SPDX-License-Identifier: Apache-2.0
"""Drawings as SVG inside a page: text stays text, lines take the page's colour, the same data give the same bytes."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

_INK = "#010203"  # replaced by the page's own colour
_FAINT = 0.18  # opacity of grid lines
_POINTS = 80  # shown of a method in a distribution
COLOURS = ("#2f7fc1", "#c8553d", "#3f9464", "#a8780f", "#8868b5", "#1d9a9a", "#b5527f", "#7a8288")
"""Of lines, readable on white and on black."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
_DASHES = ("-", "--", "-.", ":")
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _INK,
    "grid.alpha": _FAINT,
    "grid.linewidth": 0.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
    "text.parse_math": False,  # a method called $x$ is no formula
}

__all__ = ["COLOURS", "MARKERS", "Point", "Series", "curves", "distribution", "scatter"]


@dataclass(frozen=True)
class Point:
    """A method in a scatter plot.

    Args:
        label: Of the method.
        number: Its colour and marker.
        x: Value and 95% interval (low, high), NaN where there is none.
        y: The same.
        floor: The real video.
    """

    label: str
    number: int
    x: tuple[float, float, float]
    y: tuple[float, float, float]
    floor: bool = False


@dataclass(frozen=True)
class Series:
    """Values of a method: one a clip, or one a shift."""

    label: str
    number: int
    values: np.ndarray
    floor: bool = False


def _colour(number: int, floor: bool) -> str:
    return _INK if floor else COLOURS[number % len(COLOURS)]


def _marker(number: int, floor: bool) -> str:
    # The second eight lines have the same colours with other markers.
    return "*" if floor else MARKERS[(number + number // len(COLOURS)) % len(MARKERS)]


def _svg(figure: Figure, name: str, title: str) -> Markup:
    """SVG element of a figure. `name` keeps ids apart from those of other drawings of a page."""
    out = io.StringIO()
    FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r"(?<=font: )([0-9.]+px) [^;\"]+", r"\1 system-ui, sans-serif", text)
    width, height = (value * 72 for value in figure.get_size_inches())
    label = escape(title.replace("\n", ", "))
    head = (
        f'<svg class="drawing" role="img" aria-label="{label}" xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 {width:g} {height:g}">'
    )
    return Markup(head + text[text.index(">") + 1 :].replace(_INK, "currentColor"))


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(True)
    axes.set_axisbelow(True)
    return figure, axes


def _context(name: str) -> Any:
    return mpl.rc_context({**_STYLE, "svg.hashsalt": name})


def _spread(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Lengths of the error bars below and above, 0 where there is no interval."""
    ends = np.array([[value - low for value in values], [high - value for value in values]])
    return np.maximum(np.nan_to_num(ends), 0)


def _name(figure: Figure, axes: Any, points: Sequence[Point]) -> None:
    """Names beside their marks, from the top down, each at the nearest place that no mark and no other name has taken.

    static/plots.js does the same where axes are chosen.
    """
    figure.draw_without_rendering()  # only then is it known where a point lies
    figure.set_layout_engine("none")
    unit = figure.dpi / 72
    marks = axes.transData.transform(np.reshape([(point.x[0], point.y[0]) for point in points], (-1, 2)))
    taken = [Bbox.from_bounds(x - 4 * unit, y - 4 * unit, 8 * unit, 8 * unit) for x, y in marks]
    for i in np.argsort(-marks[:, 1], kind="stable"):
        text = {"text": points[i].label, "xy": (points[i].x[0], points[i].y[0]), "textcoords": "offset points"}
        probe = axes.annotate(**text, xytext=(0, 0))
        size = probe.get_window_extent().size
        probe.remove()
        steps = [(step + 1) // 2 * (-1) ** step for step in range(2 * len(points) + 1)]
        places = [(x, 5 - 12 * step) for step in steps for x in (7, -7 - size[0] / unit)]  # points from the mark
        boxes = [Bbox.from_bounds(*(marks[i] + np.array(place) * unit), *size) for place in places]
        inside = [k for k, box in enumerate(boxes) if all(axes.bbox.contains(*corner) for corner in box.get_points())]
        free = [k for k in inside if not boxes[k].count_overlaps(taken)]
        chosen = next(iter([*free, *inside]), 0)
        far = boxes[chosen].y0 - marks[i][1] > 6 * unit or marks[i][1] - boxes[chosen].y1 > 0
        line = {"arrowstyle": "-", "alpha": 0.4, "linewidth": 0.6, "color": _INK} if far else None
        axes.annotate(**text, xytext=places[chosen], arrowprops=line)
        taken.append(boxes[chosen])


def scatter(points: Sequence[Point], x: str, y: str, name: str, log_x: bool = False) -> Markup:
    """Methods by two numbers, with their intervals.

    Args:
        points: With finite values.
        x: Heading of the axis.
        y: Heading of the axis.
        name: Of the drawing on its page.
        log_x: Logarithmic x axis.
    """
    with _context(name):
        figure, axes = _figure(6.4, 4.2)
        if log_x:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
            axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        for point in points:
            colour = _colour(point.number, point.floor)
            ends = [_spread(np.array([value]), low, high) for value, low, high in (point.x, point.y)]
            axes.errorbar(
                point.x[0],
                point.y[0],
                xerr=ends[0],
                yerr=ends[1],
                color=colour,
                marker=_marker(point.number, point.floor),
                markersize=7,
                linewidth=1,
            )
        axes.margins(0.12)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        _name(figure, axes, points)
        return _svg(figure, name, f"{y} against {x} of {len(points)} methods")


def _box(axes: Any, values: np.ndarray, place: int, colour: str) -> None:
    """One lying box of sorted values. Axes.boxplot calls its orientation differently from version to version."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    inside = values[(values >= low - 1.5 * (high - low)) & (values <= high + 1.5 * (high - low))]
    half, edge = 0.25, {"color": colour, "linewidth": 1.2}
    axes.plot([low, high, high, low, low], [place + half * k for k in (-1, -1, 1, 1, -1)], **edge)
    for box, end in ((low, inside[0]), (high, inside[-1])):
        axes.plot([box, end], [place, place], **edge)
        axes.plot([end, end], [place - half / 2, place + half / 2], **edge)
    axes.plot([middle, middle], [place - half, place + half], color=_INK, linewidth=1.6)


def distribution(series: Sequence[Series], heading: str, name: str) -> Markup:
    """Boxes (quartiles, whiskers to 1.5 times their distance) over the clips, with at most 80 of them as points.

    Args:
        series: Methods, each with its finite values, one a clip.
        heading: Of the axis.
        name: Of the drawing on its page.
    """
    with _context(name):
        figure, axes = _figure(6.4, 0.6 + 0.42 * len(series))
        for place, own in enumerate(series):
            colour = _colour(own.number, own.floor)
            values = np.sort(own.values)
            if not len(values):
                axes.text(0.01, place, "no finite value", transform=axes.get_yaxis_transform(), va="center", alpha=0.7)
                continue
            _box(axes, values, place, colour)
            # Equally many between shown ones; both ends are always there.
            shown = values[np.unique(np.linspace(0, len(values) - 1, _POINTS).round().astype(int))]
            offset = ((np.arange(len(shown)) * 0.618) % 1 - 0.5) * 0.36
            axes.plot(shown, place + offset, "o", color=colour, alpha=0.7, markersize=3.2, markeredgewidth=0)
        axes.set_yticks(range(len(series)), [own.label for own in series])
        axes.set_ylim(len(series) - 0.4, -0.6)
        axes.set_xlabel(heading)
        return _svg(figure, name, f"{heading} of each clip, a box for each of {len(series)} methods")


def curves(series: Sequence[Series], shifts: Sequence[int], heading: str, name: str) -> Markup:
    """Means over the shift between picture and sound, a line for each method.

    Args:
        series: Methods, each with a value for each shift.
        shifts: In frames.
        heading: Of the y axis.
        name: Of the drawing on its page.
    """
    with _context(name):
        figure, axes = _figure(6.4, 3.8)
        axes.axvline(0, color=_INK, alpha=0.4, linewidth=0.8)
        for own in series:
            axes.plot(
                shifts,
                own.values,
                color=_colour(own.number, own.floor),
                linestyle=_DASHES[own.number % len(_DASHES)],
                marker=_marker(own.number, own.floor),
                markevery=5,
                markersize=4.5,
                linewidth=1.4,
                label=own.label,
            )
        axes.set_xlabel("shift of the sound (frames)")
        axes.set_ylabel(heading)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
        return _svg(figure, name, f"{heading} over the shift of the sound, {len(series)} methods")
