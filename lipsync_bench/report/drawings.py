# SPDX-License-Identifier: Apache-2.0
"""Drawings as inline SVG: text stays text, lines have the page's colour, and equal data give equal bytes."""

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

_INK = "#010203"  # replaced by the page's text colour
_FAINT = 0.18  # opacity of grid lines
_POINTS = 80  # most points of a method in a distribution
COLOURS = ("#2f7fc1", "#c8553d", "#3f9464", "#a8780f", "#8868b5", "#1d9a9a", "#b5527f", "#7a8288")
"""Colours of entries, readable on white and on black."""
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
    "text.parse_math": False,  # a method may be called $x$
}

__all__ = ["COLOURS", "MARKERS", "Point", "Series", "curves", "distribution", "scatter"]


@dataclass(frozen=True)
class Point:
    """A method in a scatter plot.

    Args:
        label: The method's label.
        number: Chooses its colour and marker.
        x: Value and 95% interval (low, high), NaN without one.
        y: As `x`.
        is_reference: Whether it is the real video.
    """

    label: str
    number: int
    x: tuple[float, float, float]
    y: tuple[float, float, float]
    is_reference: bool = False


@dataclass(frozen=True)
class Series:
    """Values of a method: one per clip, or one per shift."""

    label: str
    number: int
    values: np.ndarray
    is_reference: bool = False


def _colour(number: int, is_reference: bool) -> str:
    return _INK if is_reference else COLOURS[number % len(COLOURS)]


def _marker(number: int, is_reference: bool) -> str:
    # Entries 9 to 16 have the same colours with other markers.
    return "*" if is_reference else MARKERS[(number + number // len(COLOURS)) % len(MARKERS)]


def _svg(figure: Figure, name: str, title: str) -> Markup:
    """SVG element of a figure. `name` makes its ids unique on a page."""
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
    """Lengths of the error bars below and above, 0 without an interval."""
    ends = np.array([[value - low for value in values], [high - value for value in values]])
    return np.maximum(np.nan_to_num(ends), 0)


def _name(figure: Figure, axes: Any, points: Sequence[Point]) -> None:
    """Draw names beside their marks, from the top down, each at the nearest position without a mark or another name.

    static/plots.js does the same for chosen axes.
    """
    figure.draw_without_rendering()  # positions are known only afterwards
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
    """Scatter plot of methods by two numbers, with their intervals.

    Args:
        points: Points with finite values.
        x: Heading of the x axis.
        y: Heading of the y axis.
        name: Unique name of the drawing on its page.
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
            colour = _colour(point.number, point.is_reference)
            ends = [_spread(np.array([value]), low, high) for value, low, high in (point.x, point.y)]
            axes.errorbar(
                point.x[0],
                point.y[0],
                xerr=ends[0],
                yerr=ends[1],
                color=colour,
                marker=_marker(point.number, point.is_reference),
                markersize=7,
                linewidth=1,
            )
        axes.margins(0.12)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        _name(figure, axes, points)
        return _svg(figure, name, f"{y} against {x} of {len(points)} methods")


def _box(axes: Any, values: np.ndarray, place: int, colour: str) -> None:
    """A horizontal box plot of sorted values. The orientation argument of Axes.boxplot differs between versions."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    inside = values[(values >= low - 1.5 * (high - low)) & (values <= high + 1.5 * (high - low))]
    half, edge = 0.25, {"color": colour, "linewidth": 1.2}
    axes.plot([low, high, high, low, low], [place + half * k for k in (-1, -1, 1, 1, -1)], **edge)
    for box, end in ((low, inside[0]), (high, inside[-1])):
        axes.plot([box, end], [place, place], **edge)
        axes.plot([end, end], [place - half / 2, place + half / 2], **edge)
    axes.plot([middle, middle], [place - half, place + half], color=_INK, linewidth=1.6)


def distribution(series: Sequence[Series], heading: str, name: str) -> Markup:
    """Box plots over the clips (quartiles, whiskers to 1.5 times their distance), with at most 80 clips as points.

    Args:
        series: Methods, each with its finite values, one per clip.
        heading: Heading of the axis.
        name: Unique name of the drawing on its page.
    """
    with _context(name):
        figure, axes = _figure(6.4, 0.6 + 0.42 * len(series))
        for place, own in enumerate(series):
            colour = _colour(own.number, own.is_reference)
            values = np.sort(own.values)
            if not len(values):
                axes.text(0.01, place, "no finite value", transform=axes.get_yaxis_transform(), va="center", alpha=0.7)
                continue
            _box(axes, values, place, colour)
            # Evenly spaced ranks; both ends are always shown.
            shown = values[np.unique(np.linspace(0, len(values) - 1, _POINTS).round().astype(int))]
            offset = ((np.arange(len(shown)) * 0.618) % 1 - 0.5) * 0.36
            axes.plot(shown, place + offset, "o", color=colour, alpha=0.7, markersize=3.2, markeredgewidth=0)
        axes.set_yticks(range(len(series)), [own.label for own in series])
        axes.set_ylim(len(series) - 0.4, -0.6)
        axes.set_xlabel(heading)
        return _svg(figure, name, f"{heading} of each clip, a box for each of {len(series)} methods")


def curves(series: Sequence[Series], shifts: Sequence[int], heading: str, name: str) -> Markup:
    """Mean scores over the shift between video and audio, a line for each method.

    Args:
        series: Methods, each with a value for each shift.
        shifts: Shifts in frames.
        heading: Heading of the y axis.
        name: Unique name of the drawing on its page.
    """
    with _context(name):
        figure, axes = _figure(6.4, 3.8)
        axes.axvline(0, color=_INK, alpha=0.4, linewidth=0.8)
        for own in series:
            axes.plot(
                shifts,
                own.values,
                color=_colour(own.number, own.is_reference),
                linestyle=_DASHES[own.number % len(_DASHES)],
                marker=_marker(own.number, own.is_reference),
                markevery=5,
                markersize=4.5,
                linewidth=1.4,
                label=own.label,
            )
        axes.set_xlabel("shift of the audio (frames)")
        axes.set_ylabel(heading)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
        return _svg(figure, name, f"{heading} over the shift of the audio, {len(series)} methods")
