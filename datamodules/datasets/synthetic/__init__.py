# SPDX-License-Identifier: Apache-2.0
"""A corpus that the package makes itself: talking heads of one public-domain photograph and their synthetic voices.

articulation    what is said: tracks of mouth and voice over time
voice           the audio: a voice that follows these tracks
photograph      the parts of the photograph: head, body, teeth
person          who speaks
portrait        the photograph changed into a speaker
face            the moving picture
corpus          the files
datamodule      their LightningDataModule, once prepared
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lipsync_bench.datamodules.datasets.synthetic.corpus import CorpusReport, make_corpus
    from lipsync_bench.datamodules.datasets.synthetic.datamodule import Synthetic

# Imported at first use: the processes that render need no Lightning.
_HOMES = {"CorpusReport": "corpus", "Synthetic": "datamodule", "make_corpus": "corpus"}

__all__ = ["CorpusReport", "Synthetic", "make_corpus"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
