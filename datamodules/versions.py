# SPDX-License-Identifier: Apache-2.0
"""The packages that this one requires, and their installed versions."""

import configparser
import importlib.metadata
import re
from pathlib import Path

DISTRIBUTION = "lipsync_bench"

__all__ = ["DISTRIBUTION", "installed", "required", "versions"]


def required() -> tuple[str, ...]:
    """Names of the required packages, in the order of setup.cfg, without extras."""
    try:
        lines = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
        config = configparser.ConfigParser()
        config.read(Path(__file__).resolve().parents[1] / "setup.cfg", encoding="utf-8")
        lines = config.get("options", "install_requires", fallback="").splitlines()
    names = (re.match(r"[\w.-]+", line) for line in lines if "extra ==" not in line)
    return tuple(name.group() for name in names if name is not None)


def installed(package: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str | None]:
    """The version of each required package, by name."""
    return {package: installed(package) for package in required()}
