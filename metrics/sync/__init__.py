# SPDX-License-Identifier: Apache-2.0
"""Metrics of lip-audio synchronisation."""
