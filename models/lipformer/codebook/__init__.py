# SPDX-License-Identifier: Apache-2.0
"""The first stage of LipFormer: codebooks of facial details."""
