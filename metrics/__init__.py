# SPDX-License-Identifier: Apache-2.0
"""Metrics of talking-face videos. `metrics.PSNR` and the like are the classes; their functions are beside them.

Each metric is one file, which nothing else lists: `metrics.registry` reads the folders, and a class is looked for in
them when it is first asked for. Importing them takes seconds: some bring dlib, torchvision or scikit-image.
"""

import importlib
from pathlib import Path


def __getattr__(name: str) -> type:
    for folder in __path__:
        for path in Path(folder).rglob("*.py"):
            if not name.startswith("_") and f"\nclass {name}(" in path.read_text(encoding="utf-8"):
                home = ".".join((__name__, *path.relative_to(folder).with_suffix("").parts))
                found: type = getattr(importlib.import_module(home), name)
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
