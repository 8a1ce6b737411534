# SPDX-License-Identifier: Apache-2.0
"""manifest.json beside results: what they were measured with, and how to repeat the measurement.

    identity   what all rows of the folder share: protocol, weights of metric networks, data set; never changes
    protocol   the protocol in full
    methods    SHA-256 of each method's weights, as of its last session
    sessions   one for each time the command ran on this folder, in order:
        id, started, ended, outcome     UTC; "running" without an end: still running, or killed; "share done": other
                                        processes are not finished
        command, config, seeds          the command line, and every argument as resolved
        weights, clips                  SHA-256 of each weight file; number of clips and SHA-256 of their list
        code                            version, commit of the checkout if there is one and whether its files are
                                        changed, SHA-256 of the sources
        versions, machine, processes    libraries, hardware, ranks

The sources' SHA-256 shows whether a checkout differs from its commit. Paths that the user did not type are made
relative to the current folder; outside it only the name is written.
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import lipsync_bench
from lipsync_bench import datamodules, metrics, models
from lipsync_bench.datamodules.cores import usable_cores
from lipsync_bench.datamodules.files.disk import printable, write_atomic
from lipsync_bench.datamodules.files.texts import TextError, read_json
from lipsync_bench.datamodules.foreign import packages
from lipsync_bench.datamodules.versions import versions
from lipsync_bench.results.errors import OtherResultsError
from lipsync_bench.version import __version__

FORMAT = 1
MANIFEST = "manifest.json"
_REPAIR = "Choose another folder with --out, or remove this one; evaluate again with bench evaluate"
_GIT_SECONDS = 10.0

__all__ = [
    "MANIFEST",
    "Ending",
    "Run",
    "clip_list_sha256",
    "commit",
    "finish",
    "machine",
    "other_process",
    "read_identity",
    "read_manifest",
    "session",
    "uncommitted_changes",
]


@dataclass(frozen=True)
class Run:
    """What a session will do.

    Args:
        identity: What all rows of the folder must share.
        protocol: The protocol's fields.
        methods: SHA-256 of each method's weights; "" without weights.
        config: Every argument of the command as resolved: strings, numbers, paths, lists and mappings of them.
        clips: SHA-256 of the source of each clip, by clip id.
        weights: SHA-256 of every other weight file, by purpose; "" where none was given.
        seeds: Every seed, by purpose.
        command: The command line; that of this process if None.
        processes: How many slices there are.
    """

    identity: Mapping[str, object]
    protocol: Mapping[str, object]
    methods: Mapping[str, str]
    config: Mapping[str, object]
    clips: Mapping[str, str]
    weights: Mapping[str, str] = field(default_factory=dict)
    seeds: Mapping[str, int] = field(default_factory=dict)
    command: Sequence[str] | None = None
    processes: int = 1


def clip_list_sha256(clips: Mapping[str, str]) -> str:
    """SHA-256 of a list of clips, independent of their order.

    Args:
        clips: SHA-256 of the source of each clip, by clip id.
    """
    lines = "".join(f"{json.dumps(clip)} {source}\n" for clip, source in sorted(clips.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _git(root: Path, *arguments: str) -> str | None:
    """The output of git for the checkout in `root`; None without git, or if `root` is not the root of a checkout."""
    root = root.resolve()
    command = ["git", "-C", str(root), "-c", f"safe.directory={root}", "--no-optional-locks", *arguments]
    # Ignore a checkout named in the environment (by a git hook), and one that contains `root`.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment["GIT_CEILING_DIRECTORIES"] = str(root.parent)
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_GIT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def commit(root: Path) -> str | None:
    """The commit checked out in `root`; None without git or commit, or if `root` is not the root of a checkout."""
    return _git(root, "rev-parse", "--verify", "HEAD")


def uncommitted_changes(root: Path) -> bool | None:
    """Whether a file of the commit is changed; None without git, or if `root` is not the root of a checkout."""
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return None if changes is None else bool(changes)


def _sources_sha256() -> str:
    folders = {package.__name__: Path(package.__path__[0]) for package in (lipsync_bench, datamodules, models, metrics)}
    files = {
        f"{name.replace('.', '/')}/{path.relative_to(folder).as_posix()}": path
        for name, folder in folders.items()
        for path in folder.rglob("*.py")
    }
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(f"{name}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _versions() -> dict[str, str | None]:
    import av

    libraries = {name: ".".join(map(str, numbers)) for name, numbers in sorted(av.library_versions.items())}
    return {"python": platform.python_version(), **versions(), **libraries, **packages()}


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine() -> dict[str, object]:
    """Processor, cores available to this process, memory in GiB, GPUs, system; no host name."""
    import torch

    return {
        "processor": _processor(),
        "architecture": platform.machine(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda,
        "system": f"{platform.system()} {platform.release()}",
    }


def _own_command() -> list[str]:
    name, *arguments = sys.argv or [""]
    if "ipykernel" in name:  # a notebook has no command line
        return ["notebook"]
    return [Path(name).name, *arguments]


def _plain(value: object, typed: str) -> Any:
    """A value as JSON, with paths as described at the head of this file."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item, typed) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item, typed) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    text = printable(str(value))
    if isinstance(value, str | Path) and Path(text).is_absolute() and text not in typed:
        here = Path.cwd()
        return Path(text).relative_to(here).as_posix() if Path(text).is_relative_to(here) else Path(text).name
    return text


def _read(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no {MANIFEST}. Expected a results folder; make one: bench evaluate")
    try:
        content = read_json(path, "the manifest of a results folder", _REPAIR)
    except TextError as error:
        raise OtherResultsError(str(error)) from error
    for name, kind in (("identity", dict), ("protocol", dict), ("methods", dict), ("sessions", list)):
        items = content.get(name, kind())
        if not isinstance(items, kind) or (kind is list and not all(isinstance(item, dict) for item in items)):
            raise OtherResultsError(
                f"{path} is not a manifest: {name} is {str(items)[:40]}. Expected one of bench evaluate. {_REPAIR}"
            )
    return content


def read_identity(folder: Path) -> dict[str, Any]:
    """What all rows of a results folder share; older manifests without a format have it too.

    Raises:
        FileNotFoundError: There is no manifest.
        OtherResultsError: It is damaged, or holds something else.
    """
    identity: dict[str, Any] | None = _read(folder).get("identity")
    if identity is None:
        raise OtherResultsError(
            f"{folder / MANIFEST} is not a manifest of results: it has no identity. Expected one of bench evaluate. "
            f"{_REPAIR}"
        )
    return identity


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a results folder.

    Raises:
        FileNotFoundError: There is none.
        OtherResultsError: It is damaged, or of another version.
    """
    content = _read(folder)
    if content.get("format") != FORMAT or not {"methods", "sessions"} <= set(content):
        raise OtherResultsError(
            f"{folder / MANIFEST} was written by another version: its format is {content.get('format')!r:.20}. "
            f"Expected {FORMAT}, of lipsync_bench {__version__}. Choose another folder with --out."
        )
    return content


def _write(folder: Path, manifest: Mapping[str, object]) -> None:
    write_atomic(folder / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _refuse_other(out: Path, old: Mapping[str, object], new: Mapping[str, object]) -> None:
    different = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    if different:
        raise OtherResultsError(
            f"{out} holds rows measured with another {', '.join(different)}: { {k: old.get(k) for k in different} }. "
            f"Expected { {k: new.get(k) for k in different} }. Choose another folder with --out."
        )


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@dataclass
class Ending:
    """The outcome of a session that is not interrupted.

    Args:
        outcome: "done", or "share done" where other processes are not finished.
    """

    outcome: str = "done"


@contextmanager
def session(out: Path, run: Run) -> Iterator[Ending]:
    """Record a session in the manifest of a results folder, and its outcome at the end.

    The outcome is that of `Ending`, or "stopped" with the name of the exception. After a killed process it remains
    "running". Only one of several processes may call this.

    Args:
        out: Results folder; created if it does not exist.
        run: What the session will do.

    Raises:
        OtherResultsError: The folder's rows have another identity; nothing is written. Or its manifest is damaged.
    """
    command = [printable(word) for word in (_own_command() if run.command is None else run.command)]
    typed = "\n".join(command)
    identity = _plain(run.identity, typed)
    old = read_manifest(out) if (out / MANIFEST).is_file() else {"methods": {}, "sessions": []}
    _refuse_other(out, old.get("identity", identity), identity)
    package = Path(lipsync_bench.__file__).parent
    entry: dict[str, object] = {
        "id": uuid.uuid4().hex[:12],
        "started": _now(),
        "ended": None,
        "outcome": "running",
        "command": command,
        "config": _plain(run.config, typed),
        "seeds": dict(run.seeds),
        "weights": {**run.methods, **run.weights},
        "clips": {"count": len(run.clips), "sha256": clip_list_sha256(run.clips)},
        "code": {
            "version": __version__,
            "commit": commit(package.parent),
            "uncommitted_changes": uncommitted_changes(package.parent),
            "sources_sha256": _sources_sha256(),
        },
        "versions": _versions(),
        "machine": machine(),
        "processes": run.processes,
    }
    head = {"format": FORMAT, "identity": identity, "protocol": _plain(run.protocol, typed)}
    methods = {**old["methods"], **run.methods}
    _write(out, {**head, "methods": methods, "sessions": [*old["sessions"], entry]})
    ending = Ending()
    try:
        yield ending
    except BaseException as error:  # Ctrl-C as well
        ending.outcome = f"stopped: {type(error).__name__}"
        raise
    finally:
        _end(out, str(entry["id"]), ending.outcome)


@contextmanager
def other_process(out: Path, run: Run) -> Iterator[Ending]:
    """`session` for all processes but the first: the same checks and errors, but nothing is written."""
    typed = "\n".join(printable(word) for word in (_own_command() if run.command is None else run.command))
    if (out / MANIFEST).is_file():
        identity = _plain(run.identity, typed)
        _refuse_other(out, read_manifest(out).get("identity", identity), identity)
    yield Ending()


def finish(out: Path) -> None:
    """Set the outcome of sessions from "share done" to "done"; for the process that finishes last."""
    manifest = read_manifest(out) if (out / MANIFEST).is_file() else {"sessions": []}
    waiting = [entry for entry in manifest["sessions"] if entry.get("outcome") == "share done"]
    for entry in waiting:
        entry["outcome"] = "done"
    if waiting:
        _write(out, manifest)


def _end(out: Path, name: str, outcome: str) -> None:
    """Write the end of a session into the manifest as it is now: another session may have begun meanwhile."""
    manifest = read_manifest(out)
    for entry in manifest["sessions"]:
        if entry.get("id") == name:
            entry |= {"ended": _now(), "outcome": outcome}
    _write(out, manifest)
