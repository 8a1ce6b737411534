# SPDX-License-Identifier: Apache-2.0
"""What a training example is, and how a process loads them."""
