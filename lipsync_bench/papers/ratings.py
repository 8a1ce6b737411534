# SPDX-License-Identifier: Apache-2.0
"""What people say of videos, from a CSV file, as a column beside a paper's user study.

Ratings have a line each, `video,method,rater,question,score`, votes `video,rater,question,method`, the method that the
rater finds best. `question` is visual, sync or realness; `score` is 1 (worst) to 5 (best). A rater's answers are not
independent, so each rater's mean (share of votes) is one value, and the interval is over raters: more videos do not
replace more raters.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from lipsync_bench.datamodules.files.texts import CSV_BYTES, flat, read_text
from lipsync_bench.papers.printed.paper_table import PaperRow, PaperTable
from lipsync_bench.papers.scores import Score, ScoreSource, Verdict
from lipsync_bench.results.statistics import bootstrap_intervals

__all__ = [
    "COLUMNS",
    "STUDIES",
    "Ratings",
    "Votes",
    "opinion_scores",
    "read_ratings",
    "read_votes",
    "study_sources",
    "vote_shares",
]

STUDIES = ("ratings", "votes")
"""The kinds of user studies, each the name of its option."""
COLUMNS = {
    "ratings": ("video", "method", "rater", "question", "score"),
    "votes": ("video", "rater", "question", "method"),
}
_ANSWERS = {"ratings": "score", "votes": "method"}
LOWEST, HIGHEST = 1.0, 5.0
_QUESTIONS = ("visual", "sync", "realness")
_VERDICT = Verdict(False, "Not to be compared: other people, asked about other videos.")


def _refuse(kind: str, path: Path, found: str, expected: str) -> ValueError:
    return ValueError(f"{path}: {found}. Expected {expected}. Fix the file and give it again with --{kind}")


def _lines(bad: pd.Series) -> str:
    numbers = [str(index + 2) for index in bad[bad].index[:5]]  # line 1 is the header
    return f"line{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}{' and more' if bad.sum() > 5 else ''}"


def _read(kind: str, path: Path) -> pd.DataFrame:
    """The answers in a file, as text; the index keeps the lines.

    Raises:
        FileNotFoundError, ValueError: As `read_ratings`.
    """
    columns = COLUMNS[kind]
    expected, repair = f"the columns {', '.join(columns)}", f"Fix the file and give it again with --{kind}"
    if not path.is_file():
        raise FileNotFoundError(f"no {kind} at {path}. Expected a CSV with {expected}: --{kind}")
    text = read_text(path, expected, repair, CSV_BYTES)
    try:
        answers = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, skip_blank_lines=False)
    except ValueError as error:  # pandas' errors of reading are ValueErrors
        raise _refuse(kind, path, f"not CSV: {flat(error)}", expected) from error
    if not isinstance(answers.index, pd.RangeIndex):
        raise _refuse(kind, path, "lines with more cells than the header", "as many in each")
    missing = [name for name in columns if name not in answers]
    if missing:
        found = f"no column {', '.join(missing)} among {list(answers.columns)}"
        raise _refuse(kind, path, found, ", ".join(columns))
    answers = answers[list(columns)].fillna("").apply(lambda column: column.str.strip())
    answers = answers[(answers != "").any(axis=1)]  # blank lines are ignored, and the others keep their numbers
    one = kind.removesuffix("s")
    if answers.empty:
        raise _refuse(kind, path, "no line below the header", f"a line for each {one}")
    empty = (answers == "").any(axis=1)
    if empty.any():
        raise _refuse(kind, path, f"an empty cell in {_lines(empty)}", "a value in every column")
    strange = ~answers["question"].isin(_QUESTIONS)
    if strange.any():
        first = answers["question"][strange].iloc[0]
        raise _refuse(kind, path, f"question {first!r} in {_lines(strange)}", f"one of {', '.join(_QUESTIONS)}")
    asked = [name for name in columns if name != _ANSWERS[kind]]
    twice = answers.duplicated(asked)
    if twice.any():
        told = f"one {_ANSWERS[kind]} for each {', '.join(asked[:-1])} and {asked[-1]}"
        raise _refuse(kind, path, f"a second {one} in {_lines(twice)}", told)
    return answers


def read_ratings(path: Path) -> pd.DataFrame:
    """Read and check a file of ratings.

    Returns:
        Columns video, method, rater, question (text) and score (float).

    Raises:
        FileNotFoundError: No such file.
        ValueError: Columns are missing; a cell is empty; a score is not a number from 1 to 5; a question is unknown; a
            rater rated the same video of a method twice. The message names the lines.
    """
    ratings = _read("ratings", path)
    score = pd.to_numeric(ratings["score"], errors="coerce")
    wrong = ~score.between(LOWEST, HIGHEST)
    if wrong.any():
        first = ratings["score"][wrong].iloc[0]
        told = f"a number from {LOWEST:g} (worst) to {HIGHEST:g}"
        raise _refuse("ratings", path, f"score {first!r} in {_lines(wrong)}", told)
    return ratings.assign(score=score).reset_index(drop=True)


def read_votes(path: Path) -> pd.DataFrame:
    """Read and check a file of votes.

    Returns:
        Columns video, rater, question and method, the one that the rater finds best (text).

    Raises:
        FileNotFoundError: No such file.
        ValueError: Columns are missing; a cell is empty; a question is unknown; a rater voted twice on the same video
            and question. The message names the lines.
    """
    return _read("votes", path).reset_index(drop=True)


def opinion_scores(ratings: pd.DataFrame) -> pd.DataFrame:
    """Mean opinion scores with 95% bootstrap intervals over raters.

    Args:
        ratings: As returned by `read_ratings`.

    Returns:
        One table row for each question and method, sorted: question, method, mean (of the raters' means), low, high
        (NaN for a single rater), raters, videos, judgements (ratings).
    """
    scores = []
    for (question, method), group in ratings.groupby(["question", "method"], sort=True):
        raters = group.groupby("rater", sort=True)["score"].mean().to_numpy(dtype=np.float64)
        estimate = bootstrap_intervals({question: raters})[question]
        low, high = estimate.low, estimate.high
        counts = {"raters": len(raters), "videos": group["video"].nunique(), "judgements": len(group)}
        scores.append(
            {"question": question, "method": method, "mean": raters.mean(), "low": low, "high": high, **counts}
        )
    return pd.DataFrame(scores)


def vote_shares(votes: pd.DataFrame) -> pd.DataFrame:
    """Shares of the votes with 95% intervals over raters.

    Where no rater, or every one, votes for a method alone, a bootstrap knows no other case: the interval is Wilson's,
    of as many independent answers as there are raters.

    Args:
        votes: As returned by `read_votes`.

    Returns:
        One table row for each question and each method of the file, sorted: question, method, share (0 to 1, mean of
        the raters' shares), low, high (NaN for a single rater), votes (for it), asked (all votes on the question).
    """
    rows = []
    for question, group in votes.groupby("question", sort=True):
        for method in sorted(votes["method"].unique()):
            own = group["method"] == method
            raters = own.groupby(group["rater"], sort=True).mean().to_numpy(dtype=np.float64)
            estimate = bootstrap_intervals({question: raters})[question]
            low, high = estimate.low, estimate.high
            if len(raters) > 1 and raters.mean() in (0, 1):
                low, high = binomtest(int(raters.sum()), len(raters)).proportion_ci(method="wilson")
            counts = {"votes": int(own.sum()), "asked": len(group)}
            share = {"share": raters.mean(), "low": low, "high": high}
            rows.append({"question": question, "method": method, **share, **counts})
    return pd.DataFrame(rows)


class _Answers(ScoreSource):
    """A file of what people say."""

    def __init__(self, kind: str, path: Path, answers: pd.DataFrame, rule: str, counts: str) -> None:
        self._identity = {"place": str(path), "protocol": kind}
        people, videos = answers["rater"].nunique(), answers["video"].nunique()
        super().__init__(
            f"{kind}, {path.name}",
            f"{path}, {people} raters, {videos} videos, {len(answers)} {kind}; {rule}",
            tuple(sorted(answers["method"].unique())),
            counts,
        )

    def covers(self, table: PaperTable, row: PaperRow) -> bool:
        """Every row: the file does not say which data set the videos are from."""
        return True


class Ratings(_Answers):
    """A file of ratings.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is damaged; see `read_ratings`.
    """

    def __init__(self, path: Path) -> None:
        ratings = read_ratings(path)
        self._asked = ratings.groupby("question")["rater"].nunique()
        self._scores = {(score["question"], score["method"]): score for _, score in opinion_scores(ratings).iterrows()}
        super().__init__("ratings", path, ratings, "each rater's mean counts once.", "raters")

    def score(self, table: PaperTable, row: PaperRow, metric: str) -> Score | None:
        """Mean opinion of the row's name."""
        question = metric.removesuffix("_mos")
        found = self._scores.get((question, row.name))
        if found is None:
            return None
        tried = int(self._asked[question])
        return Score(found["mean"], found["low"], found["high"], int(found["raters"]), tried, _VERDICT, self._identity)


class Votes(_Answers):
    """A file of votes; shares in percent, of which those of all methods of the file add up to 100.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is damaged; see `read_votes`.
    """

    adds_rows = True

    def __init__(self, path: Path) -> None:
        votes = read_votes(path)
        self._shares = {(share["question"], share["method"]): share for _, share in vote_shares(votes).iterrows()}
        super().__init__("votes", path, votes, "each rater's shares count once.", "votes")

    @property
    def intervals(self) -> str:
        """As of every source."""
        return (
            "In brackets: 95% bootstrap interval over raters (Wilson's where all agree); n of N: votes for the method "
            "of all votes."
        )

    def score(self, table: PaperTable, row: PaperRow, metric: str) -> Score | None:
        """Share of the votes for the row's name."""
        found = self._shares.get((metric.removesuffix("_votes"), row.name))
        if found is None:
            return None
        share, low, high = (100 * found[name] for name in ("share", "low", "high"))
        return Score(share, low, high, int(found["votes"]), int(found["asked"]), _VERDICT, self._identity)


def study_sources(table: PaperTable, ratings: Path | None, votes: Path | None) -> Sequence[ScoreSource]:
    """The file of people's answers beside a user study, if there is one of its kind."""
    if table.study == "votes":
        return () if votes is None else (Votes(votes),)
    return () if ratings is None else (Ratings(ratings),)
