# SPDX-License-Identifier: Apache-2.0
"""Talking-face methods: a folder each, with its LightningModule in module.py and its networks in network.py.

`models.Wav2Lip` and the like are the classes. Nothing lists them: a class is looked for in the files when it is first
asked for. Other packages add theirs by entry points (`lipsync_bench.methods`).
"""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch

from lipsync_bench.datamodules.foreign import Foreign, foreign, joined
from lipsync_bench.datamodules.lookup import find_class
from lipsync_bench.models.core.checkpoints import BenchModule, load_module
from lipsync_bench.models.core.module import TalkingFaceModule
from lipsync_bench.models.wav2lip.sync_expert import SyncExpertModule

_Kind = TypeVar("_Kind", bound=BenchModule)

PACKAGE = __name__.split(".")

__all__ = ["TalkingFaceModule", "list_methods", "load_expert", "load_method"]


def __getattr__(name: str) -> Any:
    return find_class(__name__, __path__, name)


def _subclasses(base: type[_Kind]) -> Iterator[type[_Kind]]:
    """All public subclasses of a class, and itself, in the files of this folder, however deep."""
    for file in pkgutil.walk_packages(__path__, f"{__name__}."):
        for _, kind in inspect.getmembers(importlib.import_module(file.name), inspect.isclass):
            if kind.__module__ == file.name and not kind.__name__.startswith("_") and issubclass(kind, base):
                yield kind


def _foreign(base: type[_Kind]) -> Iterator[tuple[str, Foreign, type[_Kind]]]:
    """The subclasses of a class that other packages announce; their packages are imported."""
    for entry in foreign(__name__):
        kind = None
        with entry.warned():
            kind = entry.load()
            if not inspect.isclass(kind) or not issubclass(kind, BenchModule):
                raise TypeError(f"{kind!r:.60}, expected module:Class with a subclass of TalkingFaceModule")
        if inspect.isclass(kind) and issubclass(kind, base):
            yield entry.name, entry, kind


def _known(base: type[_Kind]) -> Iterator[type[_Kind]]:
    """Ours first: packages of others are imported only where none of ours is meant."""
    yield from _subclasses(base)
    yield from (kind for _, _, kind in _foreign(base))


def list_methods() -> dict[str, type[TalkingFaceModule]]:
    """Every method by name, sorted: all subclasses of TalkingFaceModule in the files of this folder, however deep, and
    those of other packages, which are called as their entry points are.

    A method of ours is called as the folders of its module are: hyperlips/hr/module.py is `hyperlips_hr`.

    Raises:
        ValueError: Two packages announce one name.
    """
    methods: dict[str, type[TalkingFaceModule]] = {}
    for kind in _subclasses(TalkingFaceModule):
        if kind is TalkingFaceModule:
            continue
        name = kind.method or "_".join(x for x in kind.__module__.split(".")[len(PACKAGE) :] if x != "module")
        if name in methods:
            raise RuntimeError(
                f"two methods are called '{name}': {methods[name].__qualname__} and {kind.__qualname__}. Expected "
                "one name each. Set the class attribute `method` of one of them."
            )
        methods[name] = kind
    return dict(sorted(joined("method", methods, _foreign(TalkingFaceModule)).items()))


def load_expert(path: Path | str) -> SyncExpertModule:
    """The lip-sync expert of a checkpoint, of any face size (`image_size`), in evaluation mode.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, not ours, or holds something else than an expert.
    """
    return load_module(Path(path), _known(SyncExpertModule))


def load_method(path: Path | str, device: torch.device | str = "cpu") -> TalkingFaceModule:
    """The method of a checkpoint written by `lightning fit`, in evaluation mode; its lip-sync expert is not needed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, not ours, or holds something else than a method.
    """
    return load_module(Path(path), _known(TalkingFaceModule)).to(device)
