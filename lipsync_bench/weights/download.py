# SPDX-License-Identifier: Apache-2.0
"""One file from one address by pooch's downloader: resumed where an earlier call has ended, and checked."""

import errno
import json
import os
import shutil
import time
from contextlib import suppress
from hashlib import sha256 as sha256_of
from pathlib import Path
from typing import IO, Any

import requests
from pooch import HTTPDownloader
from rich.progress import Progress, TaskID

from lipsync_bench.datamodules.errors import DescribedOSError
from lipsync_bench.datamodules.files.disk import sha256, write_atomic
from lipsync_bench.datamodules.files.texts import read_json
from lipsync_bench.datamodules.weights.identify import identify, refuted
from lipsync_bench.datamodules.weights.registry import WeightFile
from lipsync_bench.datamodules.weights.store import PART

TRIES = 3  # of one address, whose connection breaks
WAIT_S = 2.0
TIMEOUT_S = 30.0
_PIECE = 1 << 16  # what is lost at most when a connection breaks
_PAGE_BYTES = 1 << 20  # an answer of another size is downloaded if it is as small as a page, to say what it is
_BROKEN = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)

__all__ = ["Refused", "download"]


class Refused(Exception):
    """What an address gives instead of the file."""


class _Broken(Refused):
    """The connection ended; what has come is kept."""


class _Part:
    """The beginning of a download, kept beside the file until it is whole, with the server's mark of its version.

    Each address has its own, so that one that fails does not cost what another has given.

    Args:
        folder: Where the file will be.
        wanted: The file.
        address: Where it comes from.
    """

    def __init__(self, folder: Path, wanted: WeightFile, address: str) -> None:
        self.path = folder / f"{wanted.file}.{sha256_of(address.encode()).hexdigest()[:8]}{PART}"
        self.total: int | None = None
        self.mark = ""

    @property
    def _record(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def read(self) -> bool:
        """Whether an earlier call has left something that can be resumed."""
        with suppress(OSError, ValueError, LookupError):
            record = read_json(self._record, "the record of a download", "Delete it")
            self.total, self.mark = record["total"], str(record["mark"])
            return True
        return False

    def begin(self, total: int | None, mark: str) -> None:
        """Note what the server says of the whole file."""
        self.total, self.mark = total, mark
        write_atomic(self._record, json.dumps({"total": total, "mark": mark}))

    def remove(self) -> None:
        """Nothing of it is left."""
        for path in (self.path, self._record):
            path.unlink(missing_ok=True)


class _Writer:
    """An open `_Part` as pooch's downloader writes to it; it is told first what the server answers."""

    def __init__(self, file: IO[bytes], part: _Part, wanted: WeightFile, bar: Progress, task: TaskID) -> None:
        self._file, self._part, self._wanted, self._bar, self._task = file, part, wanted, bar, task
        self._size = part.size

    def answered(self, response: requests.Response, **_: Any) -> None:
        """Resume or begin anew, and refuse what cannot be the file."""
        if response.is_redirect or not response.ok:
            return
        if response.status_code == requests.codes.partial_content:
            begin, _slash, total = response.headers.get("Content-Range", "").partition("/")
            if not begin.startswith(f"bytes {self._size}-") or total not in ("*", str(self._part.total)):
                self._part.begin(None, "")
                self._file.truncate(0)
                raise requests.exceptions.ChunkedEncodingError("another file than before")
        else:
            self._begin(response)
        size = self._wanted.size or self._part.total or 0
        _room(self._part.path.parent, size - self._size)
        self._bar.update(self._task, completed=self._size, total=size or None)

    def _begin(self, response: requests.Response) -> None:
        length, mark = response.headers.get("Content-Length", ""), response.headers.get("ETag", "")
        total = int(length) if length.isdecimal() and "Content-Encoding" not in response.headers else None
        if total is not None and self._wanted.size not in (None, total) and total > _PAGE_BYTES:
            raise Refused(f"gives a file of {total} bytes instead of {self._wanted.size}")
        self._file.truncate(0)
        self._size = 0
        weak = not mark.startswith('"')  # allows no resuming
        self._part.begin(total, response.headers.get("Last-Modified", "") if weak else mark)

    def write(self, data: bytes) -> None:
        """A piece of the file."""
        self._file.write(data)
        self._size += len(data)
        self._bar.advance(self._task, len(data))
        if self._wanted.size is not None and self._size > self._wanted.size + _PAGE_BYTES:
            raise Refused(f"gives more than the {self._wanted.size} bytes of the file")

    def flush(self) -> None:
        """pooch asks for it after every piece."""


def _room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        text = f"{folder}: has {free} bytes free. Expected {size}. Free some, or name another folder: --weights DIR"
        raise DescribedOSError(errno.ENOSPC, text)


def _lock(file: IO[bytes], wanted: WeightFile) -> None:
    """The download belongs to one process; without a word where there are no locks."""
    try:
        import fcntl  # not on Windows

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        text = (
            f"{file.name}: another process is downloading {wanted.id}. Expected one. Run this again when it has ended"
        )
        raise DescribedOSError(errno.EAGAIN, text) from error
    except (ImportError, OSError):
        pass


def _stream(address: str, part: _Part, wanted: WeightFile, bar: Progress, task: TaskID) -> bool:
    """Download what a part lacks; returns whether it began with what an earlier call had left.

    Raises:
        requests.RequestException: The server says no, or the connection breaks; what has come stays.
        Refused: What comes cannot be the file.
    """
    with part.path.open("ab") as file:
        _lock(file, wanted)
        if not (part.read() and (part.mark or wanted.sha256)):
            file.truncate(0)
        before = part.size
        if before and before == part.total:
            return True
        headers = {"Accept-Encoding": "identity"}
        if before:
            headers |= {"Range": f"bytes={before}-"} | ({"If-Range": part.mark} if part.mark else {})
        writer = _Writer(file, part, wanted, bar, task)
        HTTPDownloader(chunk_size=_PIECE, headers=headers, timeout=TIMEOUT_S, hooks={"response": writer.answered})(
            address, writer, None
        )
        file.flush()
        os.fsync(file.fileno())
    if part.total is not None and part.size < part.total:
        raise requests.exceptions.ChunkedEncodingError("ended early")
    return before > 0


def _wrong(path: Path, wanted: WeightFile) -> str:
    """What a download is instead of the file; "" if it is the file, as far as that is known."""
    digest = sha256(path)
    if not wanted.sha256:
        return refuted(path, digest)
    return "" if digest == wanted.sha256 else identify(path, digest, wanted)


def download(address: str, wanted: WeightFile, folder: Path, bar: Progress, task: TaskID) -> Path:
    """The whole and checked file from one address, still under its part's name.

    Raises:
        Refused: It does not give it; says what it gives.
    """
    part, tries = _Part(folder, wanted, address), TRIES
    while True:
        before = part.size
        try:
            resumed = _stream(address, part, wanted, bar, task)
            wrong = _wrong(part.path, wanted)
            if not wrong:
                return part.path
            part.remove()
            if not resumed:
                raise Refused(f"gives {wrong}")
        except Refused:
            part.remove()
            raise
        except requests.HTTPError as error:
            part.remove()
            answer = error.response
            assert answer is not None
            if not (before and answer.status_code == requests.codes.requested_range_not_satisfiable):
                raise Refused(f"answers {answer.status_code} {answer.reason}".strip()) from error
        except _BROKEN as error:
            tries -= 1
            if not tries or part.size == before:
                if not part.size:
                    part.remove()
                    early = isinstance(error, requests.exceptions.ChunkedEncodingError)
                    raise Refused(
                        f"{'breaks off' if early else 'cannot be reached'} ({type(error).__name__})"
                    ) from error
                raise _Broken(f"breaks off; {part.size} bytes are kept, the same command resumes") from error
            time.sleep(WAIT_S)
        except requests.RequestException as error:
            part.remove()
            raise Refused(f"cannot be asked ({type(error).__name__})") from error
