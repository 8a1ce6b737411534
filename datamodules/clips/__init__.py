# SPDX-License-Identifier: Apache-2.0
"""The files that preparation leaves for each video."""
