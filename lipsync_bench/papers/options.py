# SPDX-License-Identifier: Apache-2.0
"""The options of a paper's table: what is shown, and the groups of an evaluation that is run first."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from lipsync_bench.datamodules.recipes.options import RecipeOptions
from lipsync_bench.datamodules.weights.options import WeightOptions
from lipsync_bench.evaluation.options import Inputs, MetricOptions, Running, Selection

__all__ = ["RunOptions", "TableOptions"]


@Parameter(name="*", group=Group("What is shown", sort_key=0))
@dataclass(frozen=True)
class TableOptions:
    """What a table contains, and where it is written.

    Args:
        results: Results folder of bench evaluate, a folder of such folders, or a leaderboard.csv; with --run the folder
            of such folders that is written, results/ if not given.
        paper_only: Print only the paper's values.
        format: Format of the output.
        out: File to write instead of the screen.
        ratings: For a user study: CSV with the columns video, method, rater, question (visual, sync or realness) and
            score (1 to 5).
        votes: For a user study: CSV with the columns video, rater, question (visual, sync or realness) and method, the
            one that the rater finds best.
        run: First run the evaluations that the table needs and that are not finished, under its paper's protocols,
            into RESULTS/DATASET-PROTOCOL. All other options are for them, as those of bench evaluate.
    """

    results: Path | None = None
    paper_only: bool = False
    format: Literal["text", "csv", "markdown", "latex"] = "text"
    out: Path | None = None
    ratings: Path | None = None
    votes: Path | None = None
    run: bool = False


@Parameter(name="*")
@dataclass(frozen=True)
class RunOptions:
    """The options of the evaluations that a table needs. Methods are the table's rows.

    Args:
        split: Which clips are scored where the table's paper leaves that open, as lipformer-1; test if not given.
            Those of val go into RESULTS/DATASET-PROTOCOL-val.
    """

    select: Selection = Selection()
    inputs: Inputs = Inputs()
    recipe: RecipeOptions = RecipeOptions()
    metrics: MetricOptions = MetricOptions()
    weights: WeightOptions = WeightOptions()
    running: Running = Running()
    split: Annotated[Literal["val", "test"] | None, Parameter(group=Group("Rules", sort_key=2))] = None

    @property
    def given(self) -> list[str]:
        """Options that differ from their defaults, as they are typed."""
        named = [] if self.split is None else ["--split"]
        for group in (self.select, self.inputs, self.recipe, self.metrics, self.weights, self.running):
            for field in fields(group):
                value = getattr(group, field.name)
                if field.name == "methods":
                    named += [f"--methods.{name}" for name in value]
                elif value != getattr(type(group)(), field.name):
                    named.append(f"--{'recipe.' if group is self.recipe else ''}{field.name}")
        return named
