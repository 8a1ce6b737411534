# SPDX-License-Identifier: Apache-2.0
"""The drill's description of a kind of file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fuzz.structures import Form

__all__ = ["Kind"]


@dataclass(frozen=True)
class Kind:
    """A kind of file that the product reads.

    Args:
        name: its name on the command line.
        file: path of an intact file in the folder that `make` fills.
        make: fills an empty folder with the file and the files it needs.
        read: reads such a file, given its path, as the product's commands do.
        form: what can be spoilt in it besides its bytes.
        accepted: whether the intact file must be read without an error, which input 0 checks.
    """

    name: str
    file: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]
    form: Form = "bytes"
    accepted: bool = True
