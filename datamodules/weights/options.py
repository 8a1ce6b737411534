# SPDX-License-Identifier: Apache-2.0
"""Where a command takes weight files from: an option of all that need some."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

if TYPE_CHECKING:
    from lipsync_bench.datamodules.weights.store import Store

__all__ = ["WeightOptions"]


@Parameter(name="*", group=Group("Weights", sort_key=4))
@dataclass(frozen=True)
class WeightOptions:
    """Where weight files are looked for.

    Args:
        weights: A folder of official weight files, which are recognised by their SHA-256 under any name; or ID=FILE for
            any file in the place of the one that bench weights list calls ID. May be given several times. Without it
            weights/, the folders of the variable LIPSYNC_WEIGHTS and the caches of other programs are looked into.
    """

    weights: Annotated[tuple[str, ...], Parameter(negative="", json_list=False)] = ()

    @property
    def store(self) -> "Store":
        """The files that there are now: options are also defaults of functions, which live as long as the process.

        Raises:
            FileNotFoundError: A folder or a file that was given does not exist.
            ValueError: An ID that no file has.
        """
        from lipsync_bench.datamodules.weights.store import Store  # takes pydantic, which would slow down every --help

        pairs = [text.partition("=") for text in self.weights if not Path(text).is_dir()]
        for text, equals, file in pairs:
            if not equals or not file:
                raise FileNotFoundError(
                    f"--weights {text}: no such folder. Expected a folder of weight files, or ID=FILE. Create it"
                )
        folders = [Path(text) for text in self.weights if Path(text).is_dir()]
        return Store(folders, {id: Path(file) for id, _, file in pairs})
