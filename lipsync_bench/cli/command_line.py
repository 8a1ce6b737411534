# SPDX-License-Identifier: Apache-2.0
"""How typed words become arguments of the `bench` functions: what jsonargparse does, and the little it does not."""

import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

__all__ = ["From0", "From1", "Pixels", "Seconds", "Share", "bound_configs", "config_files", "parser_class", "plain"]

# Numbers as options take them: another one is wrong usage (status 2), told before anything is read or written.
if TYPE_CHECKING:
    From0 = int
    From1 = int
    Pixels = int
    Seconds = float
    Share = float
else:
    from jsonargparse.typing import ClosedUnitInterval as Share
    from jsonargparse.typing import NonNegativeInt as From0
    from jsonargparse.typing import PositiveInt as From1
    from jsonargparse.typing import restricted_number_type

    Pixels = restricted_number_type("Pixels", int, [(">=", 1), ("<=", 8192)])
    Seconds = restricted_number_type("Seconds", float, [(">", 0), ("<=", 1e6)])


def parser_class() -> type:
    """A parser that takes the required parameters before a bare `*` by position; functions without `*` have none.

    A list by position is as many words as there are.
    """
    from docstring_parser import parse
    from jsonargparse import ArgumentParser

    class Parser(ArgumentParser):
        def add_function_arguments(self, function: Any, *args: Any, **kwargs: Any) -> list[str]:
            parameters = inspect.signature(function).parameters.values()
            options = {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
            if not options:
                return list(super().add_function_arguments(function, *args, **kwargs))
            others = {parameter.name for parameter in parameters} - options
            about = {p.arg_name: p.description for p in parse(function.__doc__ or "").params}
            for p in parameters:
                if p.name in others and p.default is p.empty and get_origin(p.annotation) is list:
                    self.add_argument(p.name, type=get_args(p.annotation)[0], nargs="+", help=about[p.name])
                    options.add(p.name)
            added = super().add_function_arguments(
                function, *args, **{**kwargs, "as_positional": True, "skip": options}
            )
            return [*added, *super().add_function_arguments(function, *args, **{**kwargs, "skip": others})]

    return Parser


def _parameters(args: list[str], commands: Mapping[str, Any]) -> dict[str, Any]:
    """Annotation of each option of the command that is meant, by option."""
    command: Any = commands
    for arg in args[:2]:
        command = command.get(arg) if isinstance(command, Mapping) else command
    if not callable(command):
        return {}
    return {f"--{parameter.name}": parameter.annotation for parameter in inspect.signature(command).parameters.values()}


def plain(args: list[str], commands: Mapping[str, Any]) -> list[str]:
    """Options as jsonargparse takes them: `--no-mark` is `--no_mark true`, a second `--pred` is one more, `--methods
    a,b` is `--only a,b`.

    Args:
        args: As typed, without the program's name.
        commands: Functions by their words.
    """
    options = _parameters(args, commands)
    out = []
    for arg, following in zip(args, [*args[1:], "--"], strict=False):
        if not arg.startswith("--"):
            out.append(arg)
            continue
        name, mark, rest = arg.partition("=") if "=" in arg.partition(".")[0] else arg.partition(".")
        name = name.replace("-", "_").replace("__", "--", 1)
        if name == "--methods" and mark != "." and "--only" in options:
            name = "--only"
        if options.get(name) == list[str] | None and mark != ".":
            name += "+"
        out.append(name + mark + rest)
        if options.get(name) is bool and not mark and following.startswith("--"):
            out.append("true")
    return out


def config_files(words: Sequence[str], overlays: bool = False) -> list[str]:
    """The files of arguments among typed words: those of `--config`, and if asked for whatever is called a YAML."""
    files = []
    for option, word in zip(["", *words], words, strict=False):
        path = word.partition("=")[2] if word.startswith("-") else word
        named = option in ("-c", "--config") or word.startswith("--config=")
        named |= overlays and path.endswith((".yaml", ".yml"))
        if named and os.path.exists(path):  # noqa: PTH110 (which raises for long words)
            files.append(path)
    return files


def bound_configs(words: Sequence[str], overlays: bool = False) -> None:
    """Refuse files of arguments that are no text, too large or a bomb: jsonargparse reads without bounds.

    Those that are named here end with a line of their own; those that they name in turn, as wrong arguments.
    """
    files = config_files(words, overlays)
    if not files:  # nothing is imported for it
        return
    from jsonargparse import get_loader, set_loader
    from yaml import YAMLError

    from lipsync_bench.datamodules.texts import check_yaml, read_yaml
    from lipsync_bench.old_names import renamed

    for path in files:
        read_yaml(Path(path), "a YAML of arguments, as in experiments/", "Correct the file")
    load = get_loader("yaml")

    def bounded(text: str) -> Any:
        check_yaml(text)
        return renamed(load(text))

    set_loader("yaml", bounded, (YAMLError,))
