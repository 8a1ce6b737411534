# SPDX-License-Identifier: Apache-2.0
"""Errors that say what is wrong with a file, so that a batch job can list them and go on."""

import errno
import os

_SYSTEM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE})

__all__ = ["ClipError", "DescribedOSError", "FaceError", "JobsFailed", "MediaError", "of_reading", "system_error"]


class MediaError(ValueError):
    """A video or audio file that cannot be used: broken, empty, too short, or without the stream asked for."""


class FaceError(MediaError):
    """A video that decodes but shows no face that can be tracked."""


class ClipError(ValueError):
    """A prepared clip file that is broken or was written by an incompatible version."""


class DescribedOSError(OSError):
    """An error of the system whose text, its second argument, says already what was found and what to do."""


class JobsFailed(RuntimeError):
    """More jobs of a batch failed than are allowed; what was made is kept."""


def of_reading(error: BaseException) -> bool:
    """Whether a reader failed because of the system, and not because of what a file holds.

    A library that is told to seek before a damaged file's start reports an invalid argument, and names no file.
    """
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


def system_error(error: BaseException) -> OSError | None:
    """An error that every other job would meet too, as on a full disk, so that a batch has to stop; else None.

    It is one of Python's own, which can be pickled, also where a library's was given.
    """
    if not isinstance(error, OSError) or error.errno not in _SYSTEM:
        return None
    return OSError(error.errno, os.strerror(error.errno), error.filename)
