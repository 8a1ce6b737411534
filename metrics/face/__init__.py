# SPDX-License-Identifier: Apache-2.0
"""Metrics of faces and their landmarks."""
