# SPDX-License-Identifier: Apache-2.0
"""Scores given by people, from a CSV file, as a column beside a paper's user study.

The file has a line for each rating: `video,method,rater,question,score`. `question` is visual, sync or realness;
`score` is 1 (worst) to 5 (best). A rater's scores are not independent, so each rater's mean is one value, and the
interval is over raters: more videos do not replace more raters.
"""

import io
from pathlib import Path

import numpy as np
import pandas as pd

from lipsync_bench.datamodules.files.texts import CSV_BYTES, flat, read_text
from lipsync_bench.papers.printed.paper_table import PaperRow, PaperTable
from lipsync_bench.papers.scores import Score, ScoreSource, Verdict
from lipsync_bench.results.statistics import bootstrap_intervals

__all__ = ["COLUMNS", "Ratings", "opinion_scores", "read_ratings"]

COLUMNS = ("video", "method", "rater", "question", "score")
LOWEST, HIGHEST = 1.0, 5.0
_QUESTIONS = ("visual", "sync", "realness")
_VERDICT = Verdict(False, "Not to be compared: other people, asked about other videos.")


def _refuse(path: Path, found: str, expected: str) -> ValueError:
    return ValueError(f"{path}: {found}. Expected {expected}. Fix the file and give it again with --ratings")


def _lines(bad: pd.Series) -> str:
    numbers = [str(index + 2) for index in bad[bad].index[:5]]  # line 1 is the header
    return f"line{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}{' and more' if bad.sum() > 5 else ''}"


def read_ratings(path: Path) -> pd.DataFrame:
    """Read and check a file of ratings.

    Returns:
        Columns video, method, rater, question (text) and score (float).

    Raises:
        FileNotFoundError: No such file.
        ValueError: Columns are missing; a cell is empty; a score is not a number from 1 to 5; a question is unknown; a
            rater rated the same video of a method twice. The message names the lines.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"no ratings at {path}. Expected a CSV with the columns {', '.join(COLUMNS)}: --ratings"
        )
    expected, repair = f"the columns {', '.join(COLUMNS)}", "Fix the file and give it again with --ratings"
    text = read_text(path, expected, repair, CSV_BYTES)
    try:
        ratings = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, skip_blank_lines=False)
    except ValueError as error:  # pandas' errors of reading are ValueErrors
        raise _refuse(path, f"not CSV: {flat(error)}", expected) from error
    if not isinstance(ratings.index, pd.RangeIndex):
        raise _refuse(path, "lines with more cells than the header", "as many in each")
    missing = [name for name in COLUMNS if name not in ratings]
    if missing:
        raise _refuse(path, f"no column {', '.join(missing)} among {list(ratings.columns)}", ", ".join(COLUMNS))
    ratings = ratings[list(COLUMNS)].fillna("").apply(lambda column: column.str.strip())
    ratings = ratings[(ratings != "").any(axis=1)]  # blank lines are ignored, and the others keep their numbers
    if ratings.empty:
        raise _refuse(path, "no line below the header", "a line for each rating")
    empty = (ratings == "").any(axis=1)
    if empty.any():
        raise _refuse(path, f"an empty cell in {_lines(empty)}", "a value in every column")
    score = pd.to_numeric(ratings["score"], errors="coerce")
    wrong = ~score.between(LOWEST, HIGHEST)
    if wrong.any():
        first = ratings["score"][wrong].iloc[0]
        raise _refuse(path, f"score {first!r} in {_lines(wrong)}", f"a number from {LOWEST:g} (worst) to {HIGHEST:g}")
    strange = ~ratings["question"].isin(_QUESTIONS)
    if strange.any():
        first = ratings["question"][strange].iloc[0]
        raise _refuse(path, f"question {first!r} in {_lines(strange)}", f"one of {', '.join(_QUESTIONS)}")
    twice = ratings.duplicated(list(COLUMNS[:4]))
    if twice.any():
        raise _refuse(
            path, f"a second rating in {_lines(twice)}", "one score for each video, method, rater and question"
        )
    return ratings.assign(score=score).reset_index(drop=True)


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


class Ratings(ScoreSource):
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
        self._path = path
        people, videos = ratings["rater"].nunique(), ratings["video"].nunique()
        super().__init__(
            f"ratings, {path.name}",
            f"{path}, {people} raters, {videos} videos, {len(ratings)} ratings; each rater's mean counts once.",
            tuple(sorted(ratings["method"].unique())),
            "raters",
        )

    def covers(self, table: PaperTable, row: PaperRow) -> bool:
        """Every row: the file does not say which data set the videos are from."""
        return True

    def score(self, table: PaperTable, row: PaperRow, metric: str) -> Score | None:
        """Mean opinion of the row's name."""
        question = metric.removesuffix("_mos")
        found = self._scores.get((question, row.name))
        if found is None:
            return None
        tried = int(self._asked[question])
        identity = {"place": str(self._path), "protocol": "ratings"}
        return Score(found["mean"], found["low"], found["high"], int(found["raters"]), tried, _VERDICT, identity)
