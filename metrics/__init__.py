# SPDX-License-Identifier: Apache-2.0
"""Metrics of talking-face videos. `lipsync_bench.metrics.PSNR` and the like are the classes; their functions are beside them.

Each metric is one file, which nothing else lists: `lipsync_bench.metrics.registry` reads the folder, and a class is looked for in it
when it is first asked for. Importing them takes seconds: some bring dlib, torchvision or scikit-image.
"""

import importlib
from pathlib import Path


def __getattr__(name: str) -> type:
    for folder in __path__:
        for path in Path(folder).glob("*.py"):
            if not name.startswith("_") and f"\nclass {name}(" in path.read_text(encoding="utf-8"):
                found: type = getattr(importlib.import_module(f"{__name__}.{path.stem}"), name)
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
