# SPDX-License-Identifier: Apache-2.0
"""What is evaluated against what: benchmarks, protocols, pairs of clips."""
