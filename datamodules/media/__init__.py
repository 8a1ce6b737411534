# SPDX-License-Identifier: Apache-2.0
"""Video and audio files: opening, decoding on one time axis, writing."""
