# SPDX-License-Identifier: Apache-2.0
"""Scores that people gave, beside the papers' user studies."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import norm

from lipsync_bench.papers import Ratings, TableOptions, compare, load_table, opinion_scores, read_ratings, table
from lipsync_bench.papers.render import to_text

HEADER = "video,method,rater,question,score"


def write(folder, *lines: str, header: str = HEADER):
    path = folder / "ratings.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_each_rater_counts_once(tmp_path):
    # Anna gave three 5s, Ben one 2: the mean over raters is 3.5, that over ratings 4.25.
    lines = ["v1,a,anna,sync,5", "v2,a,anna,sync,5", "v3,a,anna,sync,5", "v1,a,ben,sync,2"]
    scores = opinion_scores(read_ratings(write(tmp_path, *lines))).iloc[0]
    assert (scores["mean"], scores["raters"], scores["videos"], scores["judgements"]) == (3.5, 2, 3, 4)
    assert (scores["low"], scores["high"]) == (2.0, 5.0)


def test_a_single_rater_has_no_interval(tmp_path):
    scores = opinion_scores(read_ratings(write(tmp_path, "v1,a,anna,sync,5", "v2,a,anna,sync,3"))).iloc[0]
    assert scores["mean"] == 4.0
    assert math.isnan(scores["low"])
    assert math.isnan(scores["high"])


def test_the_interval_agrees_with_the_normal_one_for_many_raters(tmp_path):
    means = np.random.default_rng(0).uniform(1, 5, 200).round(3)
    lines = [f"v,a,r{i},visual,{mean}" for i, mean in enumerate(means)]
    scores = opinion_scores(read_ratings(write(tmp_path, *lines))).iloc[0]
    half = norm.ppf(0.975) * means.std(ddof=1) / math.sqrt(200)
    assert scores["low"] == pytest.approx(means.mean() - half, abs=0.02)
    assert scores["high"] == pytest.approx(means.mean() + half, abs=0.02)


def test_ratings_are_printed_beside_the_papers_study(tmp_path, capsys):
    asked = itertools.product((1, 2), ("wav2lip", "mine"), range(4), ("visual", "sync"))
    lines = [f"v{v},{method},r{r},{question},{3 + (r + v) % 3}" for v, method, r, question in asked]
    path = write(tmp_path, *lines, "v1,wav2lip,late,sync,1")
    joined = compare(load_table("g4g-3"), [Ratings(path)])
    wav2lip = next(row for row in joined.rows if row.row.name == "wav2lip")
    visual, sync = wav2lip.cells["visual_mos"].ours[0], wav2lip.cells["sync_mos"].ours[0]
    assert (visual.n, visual.tried, sync.n, sync.tried) == (4, 4, 5, 5)
    assert not visual.verdict.comparable
    assert wav2lip.cells["realness_mos"].ours == (None,)
    text = to_text(joined, 100)
    assert "methods without a row in this table: mine" in text
    assert "not measured: Realness" in text
    assert "bootstrap interval over raters" in text
    assert table("g4g-3", TableOptions(ratings=path, format="csv")) == 0
    assert "other people, asked about other videos" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["v1,a,anna,sync,6"], r"score '6' in line 2.*from 1 \(worst\) to 5"),
        (["v1,a,anna,sync,4", "v1,a,ben,sync,good"], r"score 'good' in line 3"),
        (["v1,a,anna,sync,nan"], r"score 'nan' in line 2"),
        (["v1,a,anna,sync,0.5"], r"score '0.5' in line 2"),
        (["v1,a,anna,beauty,4"], r"question 'beauty' in line 2.*visual, sync, realness"),
        (["v1,a,,sync,4"], r"an empty cell in line 2.*every column"),
        (["v1,a,anna,sync,4", "", "v1,a,ben,,4"], r"an empty cell in line 4"),
        (["v1,a,anna,sync"], r"an empty cell in line 2"),
        (["v1,a,anna,sync,4", "v1,a,ben,sync,4", "v1,a,anna,sync,5"], r"a second rating in line 4"),
        ([f"v{i},a,anna,sync,9" for i in range(8)], r"lines 2, 3, 4, 5, 6 and more"),
        ([], r"no line below the header"),
    ],
)
def test_a_wrong_file_is_an_error_with_the_line(tmp_path, lines, message):
    with pytest.raises(ValueError, match=message) as refused:
        read_ratings(write(tmp_path, *lines))
    assert "--ratings" in str(refused.value)


def test_columns_may_not_be_missing(tmp_path):
    with pytest.raises(ValueError, match=r"no column rater, score among"):
        read_ratings(write(tmp_path, "v1,a,sync", header="video,method,question"))
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    with pytest.raises(ValueError, match="not CSV"):
        read_ratings(empty)
    with pytest.raises(FileNotFoundError, match=r"no ratings at .*video, method, rater, question, score"):
        read_ratings(tmp_path / "none.csv")


def test_a_spreadsheets_file_is_read_the_same(tmp_path):
    path = tmp_path / "ratings.csv"
    path.write_bytes(b"\xef\xbb\xbf" + f"{HEADER},note\r\nv1, a ,anna,sync,4,fine\r\n\r\n".encode())
    ratings = read_ratings(path)
    assert ratings["method"].tolist() == ["a"]
    assert ratings["score"].tolist() == [4.0]
