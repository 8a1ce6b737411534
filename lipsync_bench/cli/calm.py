# SPDX-License-Identifier: Apache-2.0
"""A calm screen, and threads that leave the cores to other work: set before anything heavy is loaded."""

import logging
import os
import sys
import warnings
from typing import Any

from lipsync_bench.cli.endings import DEBUG

_NO_NEWS = ("💡 Tip", "TPU available")  # beginnings of what Lightning tells every training
_ARRANGED = ("Checkpoint directory", "`isinstance(treespec", "The number of training batches", "Experiment logs")
_OUTDATED = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)

_log = logging.getLogger(__name__)

__all__ = ["calm"]


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_NO_NEWS)


def _show(message: Warning | str, category: type[Warning], *where: Any) -> None:
    """A library's warning as a line of ours; nothing for those that only its developers can follow."""
    text = str(message)
    if not issubclass(category, _OUTDATED) and not text.startswith(_ARRANGED):
        _log.warning("warning: %s", " ".join(text.split()))


def calm() -> None:
    """Quieten what libraries say of themselves, and have waiting threads sleep.

    Variables that the user has set stay. LIPSYNC_DEBUG=1, and filters of warnings (-W, PYTHONWARNINGS), leave the
    libraries as they are.
    """
    # OpenMP reads it when torch is loaded. Threads that spin while they wait are some 8 % quicker on an idle machine,
    # and take twice the time where other processes want the cores. A run on a GPU computes next to nothing in them.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if sys.warnoptions or os.environ.get(DEBUG):
        return
    warnings.showwarning = _show  # type: ignore[assignment]
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(_is_news)
