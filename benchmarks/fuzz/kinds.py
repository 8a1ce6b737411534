# SPDX-License-Identifier: Apache-2.0
"""What the drill knows about a kind of file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fuzz.structures import Form

__all__ = ["Kind"]


@dataclass(frozen=True)
class Kind:
    """A kind of file that the product reads.

    Args:
        name: as the command line calls it.
        file: of a whole one in the folder that `make` fills.
        make: fills an empty folder with the file and with what has to lie around it.
        read: what the product's commands do with such a file; given its path.
        form: what can be spoilt in it besides its bytes.
        accepted: whether the whole file is read, as input 0 has to show.
    """

    name: str
    file: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]
    form: Form = "bytes"
    accepted: bool = True
