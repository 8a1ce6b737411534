# SPDX-License-Identifier: Apache-2.0
"""What our own four packages have to say goes to stderr, without the chatter of the libraries."""

import logging

__all__ = ["show_logs"]

PACKAGES = ("datamodules", "models", "metrics", "lipsync_bench")


def show_logs(level: int = logging.INFO) -> None:
    """Print messages of our packages from `level` on; calling it again changes the level only."""
    for name in PACKAGES:
        logger = logging.getLogger(name)
        logger.setLevel(level)
        if not logger.handlers:
            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter("%(message)s"))
            logger.addHandler(handler)
