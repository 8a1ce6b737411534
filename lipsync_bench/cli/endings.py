# SPDX-License-Identifier: Apache-2.0
"""How both commands end on errors of the user's side: one line that names the file and the way out, status 1.

Anything else is a fault of ours and ends with its traceback. LIPSYNC_DEBUG=1 shows the traceback of the others as well.
"""

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lipsync_bench.datamodules.errors import DescribedOSError, JobsFailed

DEBUG = "LIPSYNC_DEBUG"
_RESUME = "What is finished is kept; the same command resumes"
_SYSTEM = {
    errno.ENOSPC: f"the disk is full. Expected room for the output. Free some, or choose another place. {_RESUME}",
    errno.EDQUOT: f"your quota of this disk is used up. Expected room for the output. Free some. {_RESUME}",
    errno.EFBIG: f"the file would be larger than the system allows. See: ulimit -f. {_RESUME}",
    errno.EROFS: "the disk is read-only. Expected one that can be written to. Choose another place for the output",
    errno.EACCES: "permission denied. Expected a file or folder that you may use. Change its rights, or choose another",
    errno.EPERM: "not permitted. Expected a file or folder that you may use. Change its rights, or choose another",
    errno.EEXIST: "is there already, and is no folder. Expected a folder, or nothing. Choose another path",
    errno.ENOTDIR: "a part of this path is a file. Expected a folder. Choose another path",
    errno.EISDIR: "is a folder. Expected a file. Choose another path",
    errno.ENOTEMPTY: "is a folder that is not empty. Expected an empty or new one. Choose another path",
    errno.ENOENT: "no such file or folder. Expected one that exists. Check the path",
    errno.ELOOP: "its symbolic links lead in a circle. Expected a file or folder. Mend the links",
    errno.ENAMETOOLONG: "the name is longer than the system allows. Expected a shorter one. Rename the file or folder",
    errno.EMFILE: "too many open files. Set a higher limit (ulimit -n 4096), or fewer processes (--workers)",
    errno.ENFILE: "too many open files on this machine. End other programs, or set fewer processes (--workers)",
    errno.ENOMEM: "not enough memory. Set fewer processes (--workers), or end other programs",
    errno.EIO: "the disk reports an input/output error. Check the disk, and copy the data to another",
    errno.ESTALE: "the network disk has lost this file. Mount the disk again",
}

_log = logging.getLogger(__name__)

__all__ = ["DEBUG", "errors_in_a_line", "told"]


def _of_system(error: OSError) -> str:
    """As our own messages: path, what was found, what to do."""
    if error.errno is None:
        return str(error)
    if isinstance(error, DescribedOSError):
        return str(error.strerror)
    found = _SYSTEM.get(error.errno, f"{error.strerror or error}. Expected a file or folder that can be used")
    paths = [os.fsdecode(name) if isinstance(name, bytes) else str(name) for name in (error.filename, error.filename2)]
    named = " -> ".join(path for path, name in zip(paths, (error.filename, error.filename2), strict=True) if name)
    return f"{named}: {found}" if named else found


def _of_worker(text: str) -> str:
    """The last line of what PyTorch reports of a loader's process: the error itself, below its traceback."""
    return text.strip().splitlines()[-1] if "DataLoader worker" in text.partition("\n")[0] else text


def told(error: BaseException) -> str | None:
    """The line for an error of the user's side or of the system; None for a fault of ours."""
    torch, lightning = sys.modules.get("torch"), sys.modules.get("lightning_fabric.utilities.exceptions")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return "the GPU has not enough memory. Expected room for a batch. Set a smaller batch, or --device cpu"
    if isinstance(error, MemoryError):
        return f"not enough memory ({error or 'none left'}). Set fewer processes (--workers) or a smaller batch"
    if isinstance(error, OSError):
        return _of_worker(_of_system(error))
    misconfigured = () if lightning is None else (lightning.MisconfigurationException,)
    if isinstance(error, (ValueError, FloatingPointError, JobsFailed, *misconfigured)):
        return _of_worker(str(error))
    return None


@contextmanager
def errors_in_a_line() -> Iterator[None]:
    """End the process with status 1 and a line in the log where `told` has one; other exceptions pass."""
    try:
        yield
    except Exception as error:
        line = told(error)
        if line is None or isinstance(error, BrokenPipeError):
            raise
        _log.error(
            "error: %s", " ".join(part.strip() for part in line.splitlines()), exc_info=bool(os.environ.get(DEBUG))
        )
        sys.exit(1)
