# SPDX-License-Identifier: Apache-2.0
"""Reading and joining results: shared by leaderboards, the papers' tables and the report."""
