# SPDX-License-Identifier: Apache-2.0
"""What is known of each official weight file: registry.yaml beside this file, read and checked."""

import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lipsync_bench.datamodules.files.texts import flat, read_yaml

REGISTRY = Path(__file__).with_name("registry.yaml")
_EXPECTED, _REPAIR = "a registry of weight files", "Install the package again"
_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Address = Annotated[str, Field(pattern=r"^https?://\S+$")]

__all__ = [
    "REGISTRY",
    "WeightFile",
    "chosen_files",
    "files_of_kind",
    "is_official",
    "official_file",
    "official_files",
    "whose",
]


class WeightFile(BaseModel):
    """One official weight file.

    Attributes:
        id: Short name in `bench weights`.
        file: Its file name.
        aliases: Further names under which it is passed on.
        kind: Name in `lipsync_bench.weights.KINDS`; "" for files that nothing here imports.
        base: Of a second stage: id of the first stage's file that belongs to it.
        what: What it is, in a phrase.
        documented: Where its author tells about it.
        licence: Of the weights, in a few words.
        use: Which command or metric needs it.
        groups: Names that stand for several files in `bench weights fetch --for`.
        size: In bytes; None if only a rounded size is public.
        sha256: "" if no source names it.
        sources: Number of independent owners who name this SHA-256, a lower bound.
        official: Addresses of the authors or of the library that publishes it, in the order in which they are tried.
        mirrors: Addresses of third parties.
        other: Other files of that name by SHA-256, and what they are.
        note: What else a user should know.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: Annotated[str, Field(pattern="^[a-z0-9_]+$")]
    file: Annotated[str, Field(pattern=r"^[\w.+-]+$")]
    aliases: list[str] = []
    kind: str = ""
    base: str = ""
    what: str = ""
    documented: str = ""
    licence: str
    use: str = ""
    groups: list[str] = []
    size: Annotated[int, Field(gt=0)] | None = None
    sha256: _Sha256 | Annotated[str, Field(max_length=0)] = ""
    sources: Annotated[int, Field(ge=0)] = 0
    official: list[_Address] = []
    mirrors: list[_Address] = []
    other: dict[_Sha256, str] = {}
    note: str = ""

    @property
    def names(self) -> frozenset[str]:
        """Its file name and the further ones, in lower case."""
        return frozenset(name.lower() for name in (self.file, *self.aliases))

    @property
    def to_get(self) -> str:
        """How to come by it: a command, or where to read on."""
        return f"bench weights fetch {self.id}" if self.official or self.mirrors else f"see {self.documented}"

    @property
    def told(self) -> str:
        """The file in one phrase, for messages."""
        size = f"{self.size} bytes" if self.size else ""
        digest = f"sha256 {self.sha256}" if self.sha256 else "no SHA-256 of it is public"
        return f"{self.file} ({', '.join(part for part in (self.what, size, digest) if part)})"


@cache
def official_files() -> Mapping[str, WeightFile]:
    """Every file of the registry by its id, in the registry's order.

    Raises:
        ValueError: The registry is damaged; names the file, the entry and what is wrong.
    """
    node = read_yaml(REGISTRY, _EXPECTED, _REPAIR)
    try:
        files = TypeAdapter(dict[str, dict[str, object]]).validate_python(node)
        return {id: WeightFile.model_validate({"id": id, **entry}) for id, entry in files.items()}
    except ValidationError as error:
        raise ValueError(f"{REGISTRY}: {flat(error)}. Expected {_EXPECTED}. {_REPAIR}") from error


def files_of_kind(kind: str) -> list[WeightFile]:
    """The files of one kind of `bench import`."""
    return [file for file in official_files().values() if file.kind == kind]


def official_file(id: str) -> WeightFile:
    """The file of that id.

    Raises:
        ValueError: There is none; names the nearest one.
    """
    files = official_files()
    if id not in files:
        near = ", ".join(difflib.get_close_matches(id, files, 3, 0.4))
        raise ValueError(
            f"weights {id!r}: no such id. Expected one of the registry{near and f', such as {near}'}. "
            "Run: bench weights list"
        )
    return files[id]


def is_official(id: str, sha256: str) -> bool:
    """Whether a hash is that of an official file."""
    return bool(sha256) and official_file(id).sha256 == sha256


def whose(hashes: Iterable[str], id: str = "") -> Literal["official", "unofficial", ""]:
    """Whose weights rows, leaderboards and reports are of.

    Args:
        hashes: Their SHA-256; empty ones do not count.
        id: The file that they should be; any official file if not given.

    Returns:
        "official" if each is that of an official file; "" without any.
    """
    ids, found = [id] if id else list(official_files()), [sha256 for sha256 in hashes if sha256]
    if not found:
        return ""
    return "official" if all(any(is_official(id, sha256) for id in ids) for sha256 in found) else "unofficial"


def chosen_files(ids: Iterable[str], groups: Iterable[str]) -> list[WeightFile]:
    """The files of these ids and groups, each once.

    Raises:
        ValueError: An unknown id or group.
    """
    known = dict.fromkeys(group for file in official_files().values() for group in file.groups)
    chosen = {id: official_file(id) for id in ids}
    for group in groups:
        if group not in known:
            raise ValueError(
                f"--for {group}: no such group. Expected one of {', '.join(known)}. Run: bench weights list"
            )
        chosen |= {file.id: file for file in official_files().values() if group in file.groups}
    return list(chosen.values())
