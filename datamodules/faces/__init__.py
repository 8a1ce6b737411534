# SPDX-License-Identifier: Apache-2.0
"""Faces in frames: detectors, landmarks, tracking, crops, identities."""
