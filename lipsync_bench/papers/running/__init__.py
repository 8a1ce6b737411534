# SPDX-License-Identifier: Apache-2.0
"""`bench table --run`: the evaluations that a table needs."""
