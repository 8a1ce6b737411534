# SPDX-License-Identifier: Apache-2.0
"""A Ray of the test's own: two workers, no dashboard, nothing written into the home folder, nothing sent to anybody."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["two_ray_workers"]


@contextmanager
def two_ray_workers(folder: Path) -> Iterator[None]:
    """Start it; skips the test where Ray is not installed."""
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'lipsync_bench[ray]'")
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {"HOME": str(folder), "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}.items():
            environment.setenv(name, value)
        environment.delenv("RAY_ADDRESS", raising=False)
        ray.init(
            address="local",
            num_cpus=2,
            num_gpus=0,
            object_store_memory=80 << 20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
        try:
            yield
        finally:
            ray.shutdown()
