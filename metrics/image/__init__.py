# SPDX-License-Identifier: Apache-2.0
"""Metrics of images, frame by frame or of all together."""
