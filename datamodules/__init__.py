# SPDX-License-Identifier: Apache-2.0
"""Media in: video, audio and faces; prepared clips; LightningDataModules that cut windows from them.

`datamodules.LRS2` and the like are the data modules. They are looked for in the files when they are first asked for:
nothing lists them, and Lightning takes seconds and hundreds of megabytes, which preparing clips need not spend.
"""

from typing import Any

from lipsync_bench.datamodules.lookup import find_class


def __getattr__(name: str) -> Any:
    return find_class(__name__, __path__, name)
