# SPDX-License-Identifier: Apache-2.0
"""From a method and a clip to frames: generation, pasting, dubbing."""
