# SPDX-License-Identifier: Apache-2.0
"""Errors that say what is wrong with a file, so that a batch job can list them and continue."""

import errno
import os

_SYSTEM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE})

__all__ = ["ClipError", "DescribedOSError", "FaceError", "JobsFailed", "MediaError", "of_reading", "system_error"]


class MediaError(ValueError):
    """A video or audio file that cannot be used: broken, empty, too short, or without the requested stream."""


class FaceError(MediaError):
    """A video that decodes but shows no face that can be tracked."""


class ClipError(ValueError):
    """A prepared clip file that is broken or was written by an incompatible version."""


class DescribedOSError(OSError):
    """A system error whose text, its second argument, already says what was found and what to do."""


class JobsFailed(RuntimeError):
    """More jobs of a batch failed than are allowed; finished results are kept."""


def of_reading(error: BaseException) -> bool:
    """Whether a reader failed because of the system, not because of a file's content.

    EINVAL does not count: a library reports it, without a file name, after seeking before the start of a damaged file.
    """
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


def system_error(error: BaseException) -> OSError | None:
    """The error, if every other job would fail with it too (such as a full disk), so that a batch must stop; else None.

    A library's error is converted to Python's OSError, which can be pickled.
    """
    if not isinstance(error, OSError) or error.errno not in _SYSTEM:
        return None
    return OSError(error.errno, os.strerror(error.errno), error.filename)
