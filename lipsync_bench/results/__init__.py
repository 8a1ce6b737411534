# SPDX-License-Identifier: Apache-2.0
"""Reading results: what is common to leaderboards, the papers' tables and the report."""
