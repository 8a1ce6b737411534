# SPDX-License-Identifier: Apache-2.0
"""How a face is cut out of a frame and pasted back: one rule a file, each exact in both directions."""
