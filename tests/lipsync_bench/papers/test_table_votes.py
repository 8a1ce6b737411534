# SPDX-License-Identifier: Apache-2.0
"""Votes for the best method, as in HyperLips' user study: 20 people, 5 videos, 100 votes for each question."""

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, t

from lipsync_bench.papers import TableOptions, Votes, compare, load_table, read_votes, table, vote_shares
from lipsync_bench.papers.render import to_latex, to_markdown, to_text
from lipsync_bench.report import write_report
from tests.commands import run_bench
from tests.lipsync_bench.report.report_fixture import make_results

HEADER = "video,rater,question,method"


def write(folder: Path, *lines: str, header: str = HEADER) -> Path:
    path = folder / "votes.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def study(folder: Path) -> Path:
    """45 of 100 for mine and 55 for wav2lip in sync; in visual quality all for mine."""
    sync = [*["mine"] * 45, *["wav2lip"] * 55]
    people = itertools.product(range(20), range(5))
    lines = [(f"v{v},p{p:02}", method) for (p, v), method in zip(people, sync, strict=True)]
    return write(
        folder, *(f"{asked},sync,{method}" for asked, method in lines), *(f"{asked},visual,mine" for asked, _ in lines)
    )


def test_shares_count_votes_and_their_intervals_people(tmp_path: Path) -> None:
    shares = vote_shares(read_votes(study(tmp_path))).set_index(["question", "method"])
    mine, other = shares.loc[("sync", "mine")], shares.loc[("sync", "wav2lip")]
    assert (mine["share"], mine["votes"], mine["asked"]) == (pytest.approx(0.45), 45, 100)
    assert (other["share"], other["votes"]) == (pytest.approx(0.55), 55)
    assert mine["low"] == pytest.approx(1 - other["high"], abs=0.02)  # each resampled by itself
    # Nine people gave all their votes to mine, eleven none: the votes of one are not independent.
    independent = binomtest(45, 100).proportion_ci(method="wilson")
    assert mine["high"] - mine["low"] > 1.8 * (independent.high - independent.low)
    half = t.ppf(0.975, 19) * np.repeat([1, 0], [9, 11]).std(ddof=1) / math.sqrt(20)
    assert (mine["low"], mine["high"]) == (pytest.approx(0.45 - half, abs=0.03), pytest.approx(0.45 + half, abs=0.03))


def test_where_all_agree_the_interval_is_wilsons_of_the_people(tmp_path: Path) -> None:
    shares = vote_shares(read_votes(study(tmp_path))).set_index(["question", "method"])
    all_of, none_of = shares.loc[("visual", "mine")], shares.loc[("visual", "wav2lip")]
    wilson = binomtest(20, 20).proportion_ci(method="wilson")
    assert (all_of["share"], none_of["share"], none_of["votes"], none_of["asked"]) == (1, 0, 0, 100)
    assert (all_of["low"], all_of["high"]) == (pytest.approx(wilson.low), pytest.approx(1))
    assert (none_of["low"], none_of["high"]) == (pytest.approx(0), pytest.approx(1 - wilson.low))
    alone = vote_shares(read_votes(write(tmp_path, "v1,anna,sync,a", "v2,anna,sync,b"))).iloc[0]
    assert alone["share"] == 0.5
    assert math.isnan(alone["low"])


def test_each_rater_counts_once(tmp_path: Path) -> None:
    lines = ["v1,anna,sync,a", "v2,anna,sync,a", "v3,anna,sync,a", "v1,ben,sync,b"]
    first = vote_shares(read_votes(write(tmp_path, *lines))).iloc[0]
    assert (first["method"], first["share"], first["votes"], first["asked"]) == ("a", 0.5, 3, 4)


def test_votes_are_printed_beside_the_papers_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = study(tmp_path)
    joined = compare(load_table("hyperlips-6"), [Votes(path)])
    assert [row.row.label for row in joined.rows] == [
        "hyperlips_hr",
        "mine, not in the paper",
        "wav2lip, not in the paper",
    ]
    score = joined.rows[1].cells["sync_votes"].ours[0]
    assert score is not None
    assert (score.value, score.count_text, score.verdict.comparable) == (pytest.approx(45), "45 of 100", False)
    for text in (to_text(joined, 100), to_markdown(joined), to_latex(joined)):
        assert "45.0" in text
        assert "45 of 100" in text
        assert "bootstrap interval over raters" in text
        assert "20 raters, 5 videos, 200 votes" in " ".join(text.split())
    assert run_bench("table", "hyperlips-6", "--votes", path, "--format", "csv", "--out", tmp_path / "out.csv") == 0
    frame = pd.read_csv(tmp_path / "out.csv").set_index(["method", "metric"])
    assert frame.loc[("mine", "sync_votes"), "ours"] == pytest.approx(45)
    assert frame.loc[("mine", "sync_votes"), "counts"] == "votes"
    assert table("hyperlips-6") == 0  # the paper's side alone
    assert "drawn as a box plot" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["v1,anna,beauty,a"], r"question 'beauty' in line 2.*visual, sync, realness"),
        (["v1,,sync,a"], r"an empty cell in line 2.*every column"),
        (["v1,anna,sync,a", "", "v1,ben,sync,"], r"an empty cell in line 4"),
        (["v1,anna,sync,a", "v1,ben,sync,a", "v1,anna,sync,b"], r"a second vote in line 4.*one method for each video"),
        ([], r"no line below the header.*a line for each vote"),
    ],
)
def test_a_wrong_file_is_an_error_with_the_line(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        read_votes(write(tmp_path, *lines))
    assert "--votes" in str(refused.value)


def test_other_files_and_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no column rater, method among"):
        read_votes(write(tmp_path, "v1,sync", header="video,question"))
    with pytest.raises(FileNotFoundError, match=r"no votes at .*video, rater, question, method: --votes"):
        read_votes(tmp_path / "none.csv")
    path = study(tmp_path)
    for id, options, message in (
        ("g4g-3", TableOptions(votes=path), r"user study of other answers; .*holds votes.*--ratings FILE"),
        ("hyperlips-6", TableOptions(ratings=path), r"user study of other answers; .*holds ratings.*--votes FILE"),
        ("hyperlips-1", TableOptions(votes=path), r"is not a user study.*--results DIR"),
        ("hyperlips-6", TableOptions(run=True), r"a user study.*--votes FILE"),
        ("hyperlips-6", TableOptions(votes=path, paper_only=True), r"--paper-only with .*votes\.csv"),
    ):
        with pytest.raises(ValueError, match=message):
            table(id, options)


def test_the_report_shows_what_people_say(tmp_path: Path) -> None:
    results = make_results(tmp_path / "demo")
    ratings = tmp_path / "ratings.csv"
    people = np.random.default_rng(0).integers(1, 6, 8)
    lines = [f"v1,wav2lip,p{p},sync,{score}" for p, score in enumerate(people)]
    ratings.write_text("\n".join(["video,method,rater,question,score", *lines]) + "\n")
    write_report(results, tmp_path / "bare")
    assert "hyperlips-6" not in (tmp_path / "bare" / "papers.html").read_text()
    write_report(results, tmp_path / "site", ratings=ratings, votes=study(tmp_path))
    page = (tmp_path / "site" / "papers.html").read_text()
    assert all(f'<h2 id="{id}">' in page for id in ("hyperlips-6", "g4g-3", "videoretalking-2"))
    assert "45 of 100" in page
    assert f"{people.mean():.2f}" in page
    with pytest.raises(FileNotFoundError, match="no votes at"):
        write_report(results, tmp_path / "other", votes=tmp_path / "none.csv")
    assert not (tmp_path / "other").exists()
