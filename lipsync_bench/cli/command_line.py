# SPDX-License-Identifier: Apache-2.0
"""From typed words to a subcommand's function and its arguments, by cyclopts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import (
    App,
    ArgumentCollection,
    CycloptsError,
    Group,
    MissingArgumentError,
    Parameter,
    UnusedCliTokensError,
)
from cyclopts.config import Dict
from cyclopts.types import ExistingFile
from cyclopts.validators import Number

from lipsync_bench.datamodules.option_types import Whole

From0 = Annotated[Whole, Parameter(validator=Number(gte=0))]
From1 = Annotated[Whole, Parameter(validator=Number(gte=1))]
Seconds = Annotated[float, Parameter(validator=Number(gt=0, lte=1e6))]
Seconds0 = Annotated[float, Parameter(validator=Number(gte=0, lte=1e6))]
Subcommands = Mapping[str, Callable[..., int | None] | App]
_EVERYWHERE = Group("Any subcommand", sort_key=9)

__all__ = ["From0", "From1", "Seconds", "Seconds0", "Subcommands", "WrongUsage", "command_line", "parse", "sub_app"]


class WrongUsage(ValueError):
    """What was typed, or stands in a file of options, cannot be meant."""


def _shown(default: object) -> str | None:
    """A default as help shows it; nothing where the option's absence says it."""
    return None if default is None or default is False or default in ((), {}) else str(default)


def sub_app(name: str, about: str, subcommands: Subcommands) -> App:
    """A subcommand that has subcommands."""
    app = App(name, about, help_format="markdown", version_flags=())
    for word, function in subcommands.items():
        app.command(function, name=word)
    return app


def _launch(
    *words: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Annotated[tuple[ExistingFile, ...], Parameter(group=_EVERYWHERE, json_list=False)] = (),
) -> tuple[tuple[str, ...], tuple[Path, ...]]:
    """Tell the files of options from the other words.

    Args:
        config: YAML of options; what is typed counts more, and of several files the last one.
    """
    return words, config


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
    app["--help"].group = (_EVERYWHERE,)
    app.meta.default(_launch)
    return app


def parse(app: App, words: Sequence[str]) -> Callable[[], int | None]:
    """The function that is meant, with its arguments.

    Raises:
        WrongUsage: Says what was found and expected in one line.
        TextError: A file of options cannot be read.
    """
    app.config = ()
    with _one_line(app, words):
        run = _function(app.meta, words)
    if run.func is _launch:
        words, files = run()
        app.config = (*map(_options_of, reversed(files)), _whole_names)
        with _one_line(app, words, files):
            run = _function(app, words)
            if run.func.__name__ == "help_print":
                raise ValueError("no subcommand was given. Expected one of those that help lists.")
    return run


def _function(app: App, words: Sequence[str]) -> "partial[Any]":
    function, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    return partial(function, *bound.args, **bound.kwargs)


def _options_of(file: Path) -> Callable[[App, tuple[str, ...], ArgumentCollection], None]:
    """Fills in what a file says: options by name, or below the name of a subcommand."""
    from lipsync_bench.datamodules.files.texts import read_yaml

    found = read_yaml(file, "a YAML of options", "Correct the file")

    def fill(app: App, subcommand: tuple[str, ...], arguments: ArgumentCollection) -> None:
        if not isinstance(found, dict):
            raise ValueError(f"{file} holds no options. Expected NAME: VALUE in each line.")
        given = _without_nulls(found)
        negative = {name.lstrip("-") for argument in arguments for name in argument.negatives}
        for group, options in (
            ("", given),
            *((f"{key}.", node) for key, node in given.items() if isinstance(node, dict)),
        ):
            for key in options:
                if f"{group}{key}".replace("_", "-") in negative:  # cyclopts would take it for the opposite
                    raise ValueError(f"{file}: {group}{key}. Expected {group}{key[3:]}: false.")
        for below in (True, False):
            Dict(given, source=str(file), use_commands_as_keys=below)(app, subcommand, arguments)

    return fill


def _without_nulls(node: Any) -> Any:
    """What a file does not say is not given; names are texts, also where they look like numbers."""
    if not isinstance(node, dict):
        return node
    return {str(key): _without_nulls(value) for key, value in node.items() if value is not None}


def _whole_names(app: App, subcommand: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """A name such as that of --methods.v1.5 PATH may have dots; cyclopts would take them for keys below keys."""
    for argument in arguments:
        argument.tokens = [t.evolve(keys=(".".join(t.keys),)) if t.keys else t for t in argument.tokens]


@contextmanager
def _one_line(app: App, words: Sequence[str], files: Sequence[Path] = ()) -> Iterator[None]:
    try:
        yield
    except (CycloptsError, ValueError) as error:  # ValueError of a group, whose values cannot be
        line = _line(error)
        named = ", ".join(str(file) for file in files if str(file) not in line)  # it may stand in any of them
        subcommand = next((f" {word}" for word in words if word in app), "")
        raise WrongUsage(f"{named and f'{named}: '}{line} See: {app.name[0]}{subcommand} --help") from error


def _line(error: Exception) -> str:
    """What was found and expected, in one line."""
    text = " ".join(str(error).split())
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        text = f"{error.keyword} without a value." if error.keyword else f"{error.argument.name} is missing."
    elif isinstance(error, UnusedCliTokensError):
        found = " ".join(error.unused_tokens or ())
        text = f"{found!r} belongs to no option. Expected --OPTION VALUE; a flag has no value, or as in --FLAG=false."
    return text if text.endswith((".", "?")) else f"{text}."
