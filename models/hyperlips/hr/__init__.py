# SPDX-License-Identifier: Apache-2.0
"""HyperLips-HR, the second stage."""
