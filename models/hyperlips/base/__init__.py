# SPDX-License-Identifier: Apache-2.0
"""HyperLips-Base, the first stage."""
