# SPDX-License-Identifier: Apache-2.0
"""Readers of users' text files: bounded, with one-line errors that name the file."""

import codecs
import json
import stat
from collections.abc import Collection
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

_MIB = 1 << 20
YAML_BYTES = 256 * 1024  # ours have 10 kB; PyYAML reads some 100 kB a second
JSON_BYTES = 64 * _MIB
LIST_BYTES = 64 * _MIB
CSV_BYTES = 1024 * _MIB
_YAML_NODES = 20_000
_DEPTH = 40
_INT, _DIGITS = "tag:yaml.org,2002:int", 400
_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}

__all__ = ["CSV_BYTES", "TextError", "check_yaml", "few", "flat", "read_json", "read_text", "read_yaml"]


class TextError(ValueError):
    """A text file that cannot be used."""


def few(items: Collection[object], named: int = 5) -> str:
    """The first of many things, for messages: "a, b, c, d, e and 7 more"."""
    names = ", ".join(str(item) for item in islice(items, named))
    return names if len(items) <= named else f"{names} and {len(items) - named} more"


def flat(error: object) -> str:
    """A library's message, which may have several lines, in one line."""
    return " ".join(str(error).split())


def read_text(path: Path, expected: str, repair: str, limit: int = LIST_BYTES, *, growing: bool = False) -> str:
    """The text of a UTF-8 file, with or without a byte order mark; line ends are kept.

    Args:
        path: The file.
        expected: What it should hold, for messages.
        repair: What to do about another file, for messages.
        limit: Most bytes that are read; a larger file is refused.
        growing: Another process may be writing lines: an incomplete last line is left out.

    Raises:
        FileNotFoundError: There is no such file.
        TextError: It is a folder or a device, too large, or not UTF-8 text.
    """

    def refused(found: str) -> TextError:
        return TextError(f"{path}: {found}. Expected {expected}. {repair}")

    try:
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"{path}: no such file. Expected {expected}. {repair}") from error
    except ValueError as error:  # a NUL in its name
        raise refused("not a valid file name") from error
    if not stat.S_ISREG(state.st_mode):
        raise refused("is a folder" if stat.S_ISDIR(state.st_mode) else "is not a regular file")
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise refused(f"has {max(state.st_size, len(data)):,} bytes, more than the {limit:,} that are read")
    if data[:2] in _MARKS:
        raise refused(f"is {_MARKS[data[:2]]}, not UTF-8: save it as UTF-8")
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(data, final=not growing)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1  # without the mark
        raise refused(
            f"line {line} is not UTF-8 text (byte 0x{error.object[error.start]:02x}): save it as UTF-8"
        ) from error
    if "\0" in text:
        raise refused(f"line {text.count(chr(10), 0, text.index(chr(0))) + 1} has a NUL byte: it is not text")
    return text[: text.rfind("\n") + 1] if growing else text


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")


def read_json(path: Path, expected: str, repair: str) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        FileNotFoundError, TextError: As `read_text`; or it is not JSON, or something else than an object.
    """
    text = read_text(path, expected, repair, JSON_BYTES)
    try:
        content = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise TextError(f"{path}: not JSON ({flat(error)}). Expected {expected}. {repair}") from error
    if not isinstance(content, dict):
        raise TextError(f"{path}: holds a {type(content).__name__}. Expected {expected}. {repair}")
    return content


class _Bounded(yaml.SafeLoader):
    """Expands aliases in its counts while the tree is built, and refuses a tree that is too large or too deep."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._nodes = 0
        self._sizes: dict[str, int] = {}  # of finished nodes, by anchor

    def compose_node(self, parent: Any, index: Any) -> Any:
        """As in the base class, but bounded."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in self.anchors and event.anchor not in self._sizes:
                raise yaml.YAMLError(f"&{event.anchor} contains itself: {event.start_mark}")
            self._nodes += self._sizes.get(str(event.anchor), 0)
        before = self._nodes
        self._depth += 1
        self._nodes += 1
        if self._depth > _DEPTH or self._nodes > _YAML_NODES:
            found = f"more than {_DEPTH} levels or, with its aliases expanded, {_YAML_NODES:,} values"
            raise yaml.YAMLError(f"{found}: {event.start_mark}")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if event.anchor is not None and not isinstance(event, yaml.AliasEvent):
            self._sizes[event.anchor] = self._nodes - before
        if isinstance(node, yaml.ScalarNode) and node.tag == _INT and len(node.value) > _DIGITS:  # Python prints none
            raise yaml.YAMLError(f"a number of {len(node.value):,} digits: {node.start_mark}")
        if isinstance(node, yaml.MappingNode):
            names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if len(set(names)) < len(names):  # PyYAML would silently take the last one
                doubled = sorted({name for name in names if names.count(name) > 1})[:3]
                raise yaml.YAMLError(f"two values for {doubled}: {node.start_mark}")
        return node


class _Printed(_Bounded):
    """Keeps every value as text, because the printed digits matter."""

    yaml_implicit_resolvers = {}  # noqa: RUF012


def check_yaml(text: str) -> None:
    """Raise yaml.YAMLError for text that is not YAML or exceeds the bounds; for libraries that do not check."""
    if len(text) > YAML_BYTES:
        raise yaml.YAMLError(f"{len(text):,} characters, expected at most {YAML_BYTES:,}")
    try:
        yaml.compose(text, _Bounded)
    except RecursionError as error:
        raise yaml.YAMLError("too deep") from error


def read_yaml(path: Path, expected: str, repair: str, *, printed: bool = False) -> Any:
    """The content of a YAML file, within bounds: too many nested aliases or levels and large files are refused.

    Args:
        path: The file.
        expected: What it should hold, for messages.
        repair: What to do about another file, for messages.
        printed: Return every value as text, as in the file.

    Raises:
        FileNotFoundError, TextError: As `read_text`; or it is not YAML.
    """
    text = read_text(path, expected, repair, YAML_BYTES)
    try:
        return yaml.load(text, _Printed if printed else _Bounded)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise TextError(f"{path}: not valid YAML ({flat(error)}). Expected {expected}. {repair}") from error
