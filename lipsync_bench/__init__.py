# SPDX-License-Identifier: Apache-2.0
"""Floor 4: the two commands, evaluation and leaderboard. Imports the three floors below it."""

from lipsync_bench.version import __version__

__all__ = ["__version__"]
