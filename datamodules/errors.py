# SPDX-License-Identifier: Apache-2.0
"""Errors that say what is wrong with a file, so that a batch job can list them and go on."""

__all__ = ["ClipError", "FaceError", "MediaError"]


class MediaError(ValueError):
    """A video or audio file that cannot be used: broken, empty, too short, or without the stream asked for."""


class FaceError(MediaError):
    """A video that decodes but shows no face that can be tracked."""


class ClipError(ValueError):
    """A prepared clip file that is broken or was written by an incompatible version."""
