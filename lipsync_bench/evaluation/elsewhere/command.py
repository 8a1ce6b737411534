# SPDX-License-Identifier: Apache-2.0
"""How a benchmark states a command: `methods: {NAME: {command: "... {video} {audio} {out}", cwd: DIR, ...}}`."""

import hashlib
import json
import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import field
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from lipsync_bench.results.manifest import commit, uncommitted_changes

_PLACEHOLDERS = re.compile(r"\{(video|audio|out)\}")
_LAUNCHERS = re.compile("(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE|ROLE_NAME)|MASTER_(ADDR|PORT)|TORCHELASTIC_.*")

__all__ = ["Command", "stated_version"]


@dataclass(frozen=True, config=ConfigDict(extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False))
class Command:
    """A command that makes a video of a pair.

    Args:
        command: The program and its arguments, quoted as for a shell, but no shell runs it. `{video}`, `{audio}` and
            `{out}` become absolute paths: of the video to be dubbed, of the audio (wav, 16 kHz, mono, as long as the
            video), and of the mp4 to be written.
        cwd: Folder in which it runs; this one if not stated.
        env: Environment variables beside those there are.
        timeout: Seconds after which it is ended, for each pair.
        version: Of the method, stated in the rows; `git` for the commit that is checked out in `cwd`.
    """

    command: str
    cwd: Path = Path()
    env: Mapping[str, str] = field(default_factory=dict)
    timeout: Annotated[float, Field(gt=0, le=1e7)] = 3600.0
    version: str = ""

    def __post_init__(self) -> None:
        try:
            words = shlex.split(self.command)
        except ValueError as error:
            raise ValueError(f"{error}: quote it as for a shell") from error
        missing = {"video", "audio", "out"} - {name for word in words for name in _PLACEHOLDERS.findall(word)}
        if missing:
            raise ValueError(f"it does not name {', '.join(f'{{{name}}}' for name in sorted(missing))}")
        if any("\0" in text for text in (*words, *self.env, *self.env.values())):
            raise ValueError("it has a zero character")
        wrong = [name for name in self.env if not name or "=" in name]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is no name of an environment variable")
        with suppress(RuntimeError):  # there is no such user
            object.__setattr__(self, "cwd", self.cwd.expanduser())
        object.__setattr__(self, "cwd", self.cwd.absolute())

    def words(self, video: Path, audio: Path, out: Path) -> list[str]:
        """The program and its arguments for a pair."""
        paths = {"video": str(video), "audio": str(audio), "out": str(out)}
        return [_PLACEHOLDERS.sub(lambda match: paths[match[1]], word) for word in shlex.split(self.command)]

    def environment(self) -> dict[str, str]:
        """All its environment variables, without those by which torchrun would make it one of several processes."""
        ours = {name: value for name, value in os.environ.items() if not _LAUNCHERS.fullmatch(name)}
        return {**ours, **self.env}

    def stated(self) -> dict[str, object]:
        """What manifests say of it; of the environment the names alone, because values may be secret."""
        return {**vars(self), "env": sorted(self.env)}

    def sha256(self, version: str) -> str:
        """Identifies the method in rows, where others have the SHA-256 of their weights."""
        return hashlib.sha256(json.dumps([self.command, version]).encode(errors="surrogateescape")).hexdigest()


def stated_version(name: str, command: Command) -> str:
    """Its version: the text, or the commit; with `-dirty-` and a hash of the changes where files differ from it.

    Raises:
        FileNotFoundError: There is no folder `cwd`.
        ValueError: The version is `git`, and no commit is checked out there.
    """
    if not command.cwd.is_dir():
        raise FileNotFoundError(f"{name}: cwd {command.cwd} is no folder. Expected one. Correct it in the benchmark")
    if command.version != "git":
        return command.version
    root = next((folder for folder in (command.cwd, *command.cwd.parents) if (folder / ".git").exists()), command.cwd)
    found = commit(root)
    if found is None:
        raise ValueError(
            f"{name}: version is git, but {command.cwd} is no checkout with a commit, or git is not installed. "
            "Expected a checkout. State the version as a text in the benchmark"
        )
    if not uncommitted_changes(root):
        return found
    changes = subprocess.run(["git", "-C", str(root), "diff", "HEAD"], capture_output=True, check=False).stdout
    return f"{found}-dirty-{hashlib.sha256(changes).hexdigest()[:12]}"
