# SPDX-License-Identifier: Apache-2.0
"""G4G, which aligns face and audio before it deforms reference features; and its parent DINet, which does not align."""

from lipsync_bench.models.g4g.dinet import DINet
from lipsync_bench.models.g4g.module import G4G
from lipsync_bench.models.g4g.sync_expert import G4GSyncExpertModule

__all__ = ["G4G", "DINet", "G4GSyncExpertModule"]
