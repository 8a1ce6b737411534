# SPDX-License-Identifier: Apache-2.0
import math
import re

import numpy as np
import pandas as pd
import pytest

from lipsync_bench.report.charts import mean_curve
from lipsync_bench.report.drawings import Point, Series, curves, distribution, scatter
from tests.lipsync_bench.report.page import Page


def test_a_mean_curve_leaves_out_missing_values():
    cells = pd.Series([" ".join(["1"] * 31), " ".join(["nan", *["3"] * 29, "nan"]), None, ""])
    mean = mean_curve(cells)
    np.testing.assert_array_equal(mean, [1, *[2] * 29, 1])
    assert mean_curve(pd.Series([None, ""])) is None
    assert math.isnan(mean_curve(pd.Series([" ".join(["nan"] * 31)]))[0])
    with pytest.raises(ValueError, match=r"curve of 2 numbers \(1 2\.\.\.\)\. Expected 31"):
        mean_curve(pd.Series(["1 2"]))


def test_drawings_are_the_same_every_time_keep_text_and_have_the_colour_of_the_page():
    points = [
        Point("a<b>$x_1$", 0, (1, 0.5, 2), (3, math.nan, math.nan)),
        Point("reference", 1, (2, 2, 2), (4, 4, 4), True),
    ]
    series = [Series("m & n", 9, np.arange(31.0)), Series("none", 1, np.array([]))]
    for draw in (
        lambda name: scatter(points, "x", "y", name, log_x=True),
        lambda name: distribution(series, "PSNR", name),
        lambda name: curves(series[:1], range(-15, 16), "d", name),
    ):
        text = str(draw("one"))
        assert text == str(draw("one"))
        assert text.startswith("<svg")
        assert "currentColor" in text
        assert "#010203" not in text
        assert "<text" in text
        assert "<metadata" not in text
        assert "http" not in text.split(">", 1)[1]
        other = Page(str(draw("two")))
        assert not {a["id"] for _, a in other.elements if "id" in a} & set(re.findall(r'id="([^"]+)"', text))
    assert "a&lt;b&gt;$x_1$" in str(scatter(points, "x", "y", "n"))


def test_names_of_points_that_lie_together_do_not_cover_each_other():
    points = [Point(f"method {i}", i, (30, 29, 31), (0.4, 0.3, 0.5)) for i in range(7)]
    points.append(Point("alone", 7, (20, 19, 21), (0.7, 0.6, 0.8)))
    text = str(scatter(points, "x", "y", "n"))
    found = re.findall(r'<text [^>]*x="([0-9.]+)" y="([0-9.]+)"[^>]*>(method \d|alone)<', text)
    assert len(found) == 8
    places = np.array([(float(x), float(y)) for x, y, _ in found])
    dx, dy = np.abs(places[:, None] - places[None]).transpose(2, 0, 1)
    apart = (dx > 45) | (dy > 9)  # a name is some 47 wide and 9 high
    assert apart[~np.eye(8, dtype=bool)].all()
    assert (places > 0).all()
    assert (places < (6.4 * 72, 4.2 * 72)).all()
