# SPDX-License-Identifier: Apache-2.0
"""LipFormer: two codebooks of facial details (stage 1), and a Transformer that chooses lip codes by audio (stage 2)."""

from lipsync_bench.models.lipformer.codebook.module import LipFormerCodebook
from lipsync_bench.models.lipformer.module import LipFormer

__all__ = ["LipFormer", "LipFormerCodebook"]
