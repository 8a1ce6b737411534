# SPDX-License-Identifier: Apache-2.0
"""Metrics of talking-face videos. `metrics.PSNR` and the like are the classes; their functions are beside them.

Each metric is one file, which nothing else lists: `metrics.registry` reads the folders, and a class is looked for in
them when it is first asked for. Importing them takes seconds: some bring dlib, torchvision or scikit-image.
"""

from typing import Any

from lipsync_bench.datamodules.lookup import find_class


def __getattr__(name: str) -> Any:
    return find_class(__name__, __path__, name)
