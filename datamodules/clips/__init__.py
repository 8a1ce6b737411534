# SPDX-License-Identifier: Apache-2.0
"""The files that preparation writes for each video."""
