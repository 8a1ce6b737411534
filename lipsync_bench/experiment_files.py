# SPDX-License-Identifier: Apache-2.0
"""Where the YAMLs of runs, benchmarks, protocols and tables lie: in experiments/ here, else in the installation's."""

from pathlib import Path

import lipsync_bench

HERE = Path("experiments")

__all__ = ["experiment_file", "experiment_names", "installed_experiments"]


def installed_experiments() -> Path:
    """The folder that comes with the package."""
    folders = [Path(folder) / "experiments" for folder in lipsync_bench.__path__]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def _folders(kind: str) -> list[Path]:
    return [HERE / kind, installed_experiments() / kind]


def experiment_names(kind: str) -> list[str]:
    """Names of all YAMLs of a kind, sorted.

    Args:
        kind: "benchmarks", "protocols" or "tables"; "" for the runs of methods.
    """
    return sorted({path.stem for folder in _folders(kind) for path in folder.glob("*.yaml")})


def experiment_file(kind: str, name: str) -> Path | None:
    """The YAML of that name, the working folder's before the installation's; None if neither has one."""
    files = (folder / f"{name}.yaml" for folder in _folders(kind))
    return next((path for path in files if path.is_file()), None)
