# SPDX-License-Identifier: Apache-2.0
"""Video and audio: opened, decoded, placed on one time axis, written."""
