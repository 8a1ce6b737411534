# SPDX-License-Identifier: Apache-2.0
"""Packages of others, as files in a folder that a new process has on its path."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]

__all__ = ["REPOSITORY", "bench", "install", "python"]


def install(folder: Path, package: str, entry_points: Mapping[str, str], **files: str) -> None:
    """Put a package into a folder as pip would.

    Args:
        folder: Of all packages.
        package: Its name.
        entry_points: `NAME = VALUE` by group, without lipsync_bench. in front.
        files: Text of each module of the import package of this name.
    """
    (folder / package).mkdir(parents=True)
    for name, text in {"__init__": "", **files}.items():
        (folder / package / f"{name}.py").write_text(text)
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"[lipsync_bench.{group}]\n{line}\n" for group, line in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))


def python(packages: Path, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A new Python in which the packages of a folder are installed."""
    path = os.pathsep.join(map(str, (REPOSITORY, packages)))
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, "PYTHONPATH": path})


def bench(packages: Path, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The bench command there."""
    return python(packages, "-m", "lipsync_bench.bench", *arguments, cwd=cwd)
