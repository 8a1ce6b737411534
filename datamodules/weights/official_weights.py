# SPDX-License-Identifier: Apache-2.0
"""What a module says of the official weight files of its networks, in a tuple `OFFICIAL` of these.

`lipsync_bench.weights` finds them in the files of models/ and datamodules/; nothing else lists them. Names, hashes and
licences of the files themselves are in the registry beside this file, or with the method where that comes from another
package.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from lipsync_bench.datamodules.files.weights import mismatch
from lipsync_bench.datamodules.weights.registry import WeightFile, files_of_kind

__all__ = ["OfficialWeights"]


def _without_parallel(name: str) -> str:
    return name.replace("module.", "")  # of DataParallel; every occurrence, as the official loaders do


@dataclass(frozen=True)
class OfficialWeights:
    """What `bench import` knows about one kind of official file.

    Args:
        name: As the user types it.
        use: What the imported checkpoint is for, with the flag that names it.
        build: The network at full width, told from the file's tensors where there are several.
        module: The LightningModule to store, given the network and (for a generator) its discriminator or None; kinds
            without are stored as a plain state dict.
        partner: Kind of that discriminator, "" if there is none.
        first_stage: Class of the checkpoint to be named with --base, whose generator becomes part of the module by its
            `attach_base`; None for a method of one stage.
        optional: Name of the part of the network that is the first stage, where a file may have it or lack it as a
            whole.
        dead: Parameters that have no influence on the output, in words; they load all the same.
        outer: Keys of outer dictionaries, the first that is there counts; without any of them the file is flat.
        by_order: Its names are not published: tensors are taken in the order of the file, where their shapes fit.
        rename: State-dict name of a name in the file; None drops the entry.
        own: Its files, of a kind that the registry does not have.
    """

    name: str
    use: str
    build: Callable[[Mapping[str, Tensor]], nn.Module]
    module: Callable[[Any, Any], Any] | None = None
    partner: str = ""
    first_stage: type[Any] | None = None
    optional: str = ""
    dead: str = ""
    outer: tuple[str, ...] = ("state_dict",)
    by_order: bool = False
    rename: Callable[[str], str | None] = _without_parallel
    own: tuple[WeightFile, ...] = ()

    def lacks_part(self, state: Mapping[str, Tensor]) -> bool:
        """Whether the optional part is missing in a file's tensors."""
        return bool(self.optional) and not any(name.startswith(f"{self.optional}.") for name in state)

    def needs_first_stage(self, state: Mapping[str, Tensor]) -> bool:
        """Whether a file's tensors become a module only together with a checkpoint of the first stage."""
        return self.first_stage is not None and (not self.optional or self.lacks_part(state))

    def differences(self, network: nn.Module, state: Mapping[str, Tensor]) -> str:
        """Why a file's tensors are not those of the network, as `mismatch`."""
        wanted = network.state_dict()
        if self.lacks_part(state):
            wanted = {name: value for name, value in wanted.items() if not name.startswith(f"{self.optional}.")}
        return mismatch(wanted, state)

    @property
    def files(self) -> list[WeightFile]:
        """What is known of its files."""
        return [*self.own, *files_of_kind(self.name)]

    @property
    def documented(self) -> str:
        """Where its author tells about it."""
        return self.files[0].documented

    @property
    def licence(self) -> str:
        """Of the weights, in a few words."""
        return self.files[0].licence

    @property
    def expected(self) -> str:
        """The file in one phrase, for messages."""
        names = " or ".join(file.file for file in self.files)
        return f"{names}, documented at {self.documented}"
