# SPDX-License-Identifier: Apache-2.0
"""The `bench` command in this process."""

import pytest

from lipsync_bench import bench

__all__ = ["run_bench"]


def run_bench(*args: object) -> int:
    """The status with which the command ends."""
    with pytest.raises(SystemExit) as ended:
        bench.main([str(arg) for arg in args])
    return int(ended.value.code or 0)
