# SPDX-License-Identifier: Apache-2.0
"""Layers, losses and discriminators that several methods share."""
