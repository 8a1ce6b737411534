# SPDX-License-Identifier: Apache-2.0
"""Metrics of synchrony between lips and audio."""
