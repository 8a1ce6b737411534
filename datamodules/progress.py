# SPDX-License-Identifier: Apache-2.0
"""The progress bar of every command."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

__all__ = ["progress_bar"]


def progress_bar(show: bool = True, *more: ProgressColumn) -> Progress:
    """A bar on standard error with what is done, how many of how many, and the time left.

    Args:
        show: False draws nothing.
        more: Columns before the time left.
    """
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *more, TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True), disable=not show)
