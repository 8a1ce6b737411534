# SPDX-License-Identifier: Apache-2.0
"""A learned perceptual distance whose weights come with a Python package."""
