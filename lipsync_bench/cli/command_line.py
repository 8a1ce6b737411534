# SPDX-License-Identifier: Apache-2.0
"""From typed words to a subcommand's function and its arguments, by cyclopts; wrong usage is one line and status 2."""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, ArgumentCollection, CycloptsError, Group, MissingArgumentError, Parameter, UnusedCliTokensError
from cyclopts.config import Dict
from cyclopts.types import ExistingFile, NonNegativeInt, PositiveInt
from cyclopts.validators import Number

from lipsync_bench.datamodules.texts import TextError, read_yaml

From0 = NonNegativeInt
From1 = PositiveInt
Seconds = Annotated[float, Parameter(validator=Number(gt=0, lte=1e6))]
Subcommands = Mapping[str, Callable[..., int | None] | App]
WRONG_USAGE = 2
_ANY = Group("Any subcommand", sort_key=9)

_log = logging.getLogger(__name__)

__all__ = ["WRONG_USAGE", "From0", "From1", "Seconds", "Subcommands", "command_line", "parse", "sub_app"]


def _shown(default: object) -> str | None:
    """A default as help shows it; nothing where the option's absence says it."""
    return None if default is None or default is False or default in ((), {}) else str(default)


def sub_app(name: str, about: str, subcommands: Subcommands) -> App:
    """A subcommand that has subcommands."""
    app = App(name, about, help_format="markdown", version_flags=())
    for word, function in subcommands.items():
        app.command(function, name=word)
    return app


def command_line(name: str, about: str, panels: Mapping[str, Subcommands]) -> App:
    """The command with its subcommands; those of a panel stand together in its help."""
    app = App(
        name,
        about,
        help_format="markdown",
        version_flags=(),
        group_arguments=Group("Arguments", sort_key=-2),
        group_parameters=Group("Options", sort_key=-1),
        default_parameter=Parameter(negative=(), allow_repeating=True, show_default=_shown),
    )
    for place, (title, subcommands) in enumerate(panels.items()):
        group = Group(title, sort_key=place)
        for row, (word, function) in enumerate(subcommands.items()):
            if isinstance(function, App):
                function.group, function.sort_key = (group,), row
                app.command(function)
            else:
                app.command(function, name=word, group=group, sort_key=row)
    app["--help"].group = (_ANY,)

    @app.meta.default
    def launch(
        *words: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        config: Annotated[tuple[ExistingFile, ...], Parameter(group=_ANY)] = (),
    ) -> Callable[[], int | None]:
        """Take the options of files into account.

        Args:
            config: YAML of options; what is typed counts more, and of several files the last one.
        """
        app.config = tuple(map(_options_of, reversed(config)))
        return _function(app, words)

    return app


def _function(app: App, words: Sequence[str]) -> Callable[[], Any]:
    function, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    return partial(function, *bound.args, **bound.kwargs)


def _options_of(file: Path) -> Callable[[App, tuple[str, ...], ArgumentCollection], None]:
    """Fills in what a file says: options by name, or below the name of a subcommand."""
    found = read_yaml(file, "a YAML of options", "Correct the file")

    def fill(app: App, subcommand: tuple[str, ...], arguments: ArgumentCollection) -> None:
        for below in (True, False):
            Dict(found, source=str(file), use_commands_as_keys=below)(app, subcommand, arguments)

    return fill


def _line(error: Exception) -> str:
    """What was found and expected, in one line."""
    if isinstance(error, MissingArgumentError) and error.argument is not None and not error.argument.tokens:
        return f"{error.keyword or error.argument.name}: nothing was given. Expected a value"
    if isinstance(error, UnusedCliTokensError):
        return f"{' '.join(error.unused_tokens or [])}: no option takes this. Expected --OPTION VALUE, or --no-OPTION"
    return " ".join(str(error).split())


def parse(app: App, words: Sequence[str]) -> Callable[[], int | None]:
    """The function that is meant, with its arguments. Ends the process with status 2 on wrong usage.

    Raises:
        TextError: A file of options cannot be read.
    """
    try:
        run = _function(app.meta, words)
        run = run() if run.func is app.meta.default_command else run
        if run.func.__name__ == "help_print" and not {"--help", "-h"} & set(words):
            raise ValueError("no subcommand. Expected one")
    except TextError:
        raise
    except (CycloptsError, ValueError) as error:  # ValueError of a group, whose values do not go together
        _log.error("error: %s. See: bench --help", _line(error).rstrip("."))
        sys.exit(WRONG_USAGE)
    return run
