# SPDX-License-Identifier: Apache-2.0
"""What this package has to say goes to stderr, without the chatter of the libraries."""

import logging
from typing import Any

from lipsync_bench.datamodules.files.disk import printable

__all__ = ["show_logs"]

PACKAGE = "lipsync_bench"


class _Printable(logging.Formatter):
    """Names of files are anybody's: none steers the terminal, breaks a line, or begins one that looks like ours."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))

    def formatException(self, exc_info: Any) -> str:
        return "\n".join(printable(line) for line in super().formatException(exc_info).split("\n"))


def show_logs() -> None:
    """Print the messages of this package, each once, however often this is called."""
    logger = logging.getLogger(PACKAGE)
    logger.setLevel(logging.INFO)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(_Printable("%(message)s"))
        logger.addHandler(handler)
