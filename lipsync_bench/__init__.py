# SPDX-License-Identifier: Apache-2.0
"""Audio-driven talking-face methods, the data they share and the evaluation that ranks them.

Four layers, imports only downwards: `lipsync_bench.datamodules`, `.models`, `.metrics`, and the commands, the
evaluation and its results above them. The folders `datamodules/`, `models/`, `metrics/` and `experiments/` lie beside
this one in a checkout and are linked into it: links, unlike a mapping in the package's metadata, are followed by type
checkers, editors and a plain checkout alike.
"""

from pathlib import Path

from lipsync_bench.version import __version__

if not (Path(__file__).parent / "models").is_dir():  # links that git wrote as text, as on Windows by default
    __path__.append(str(Path(__file__).parents[1]))

__all__ = ["__version__"]
