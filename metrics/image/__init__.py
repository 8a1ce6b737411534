# SPDX-License-Identifier: Apache-2.0
"""Image metrics, of single frames or of all frames together."""
