# SPDX-License-Identifier: Apache-2.0
"""What a killed process leaves behind."""

import os
import subprocess
import sys
from pathlib import Path

from lipsync_bench.datamodules.files.disk import temporary_path


def left_by_the_dead(path: Path, process: int | None = None) -> Path:
    """The temporary name for `path` of a process of this machine that is gone."""
    if process is None:
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        process = ended.pid
    name, number = temporary_path(path).name.rsplit(f"-{os.getpid()}-", 1)
    return path.with_name(f"{name}-{process}-{number}")
