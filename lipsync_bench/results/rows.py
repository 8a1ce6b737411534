# SPDX-License-Identifier: Apache-2.0
"""clips.csv: one row for each method and clip, written as soon as it is known.

Each row is flushed to the disk. A killed run leaves at most one incomplete line at the end, which the next run removes.
A row records what it was measured from (`INPUTS`). When a run begins, rows whose files have changed or are missing are
removed, into superseded.csv if they had a score, and failed rows are removed and tried again: all rows in the file are
valid. If a killed run of several processes leaves two rows of one identity in two files, the row in the file that was
written last counts.
"""

import csv
import functools
import io
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import compress, islice
from pathlib import Path

import pandas as pd

from lipsync_bench.datamodules.files.csv_files import are_numbers, quoted, unquoted
from lipsync_bench.datamodules.files.disk import atomic_path
from lipsync_bench.datamodules.files.texts import TextError
from lipsync_bench.metrics.registry import CLIP_COLUMNS, METRICS, NETWORKS
from lipsync_bench.metrics.registry import COUNTS as METRIC_COUNTS
from lipsync_bench.metrics.registry import CURVES as METRIC_CURVES
from lipsync_bench.results.csv_tables import read_table
from lipsync_bench.results.errors import OtherResultsError

ENTRY = ("protocol", "method", "generator_sha256", "paste", "recipe")
"""What identifies an entry of the leaderboard; `recipe` is the digest of how the method is fed."""
GROUND_TRUTH = "ground_truth"
"""The real video itself: the reference entry; not ranked."""
REPEATED_FRAME = "repeated_frame"
"""The trivial baseline: the first frame's face, repeated."""
IDENTITY = (*ENTRY, "clip", "audio_clip")
"""What identifies a row: an entry and a pair of video and audio (of the same clip if the protocol is paired)."""
INPUTS = ("prediction_sha256", "target_sha256", "audio_sha256", "faces_sha256")
"""What a row was measured from: SHA-256 of the prediction's file (empty if frames are generated on the fly), of the
sources of video and audio, and of all that found and cut the faces (the clips' settings, detectors, versions)."""
CURVES = tuple(curve.name for curve in METRIC_CURVES)
"""SyncNet's distance and the expert's cosine at each shift of the audio from -15 to 15 frames, means over the clip's
windows, as numbers separated by blanks; "nan" where there is no audio."""
NETWORK_HASHES = tuple(network.sha256_field for _, network in NETWORKS if network.recorded)
"""SHA-256 of the weights of each metric network; empty where none was given."""
FIELDS = (
    *IDENTITY,
    *INPUTS,
    "speaker",
    "split",
    "status",
    "reason",
    "frames",
    "frames_target",
    *(count.name for count in METRIC_COUNTS),
    "boxless_frames",
    "fallback_frames",
    "passed_through_frames",
    "unenhanced_frames",
    "damaged_frames",
    *(column.name for column in CLIP_COLUMNS),
    *CURVES,
    "generate_seconds",
    "seconds",
    "command_seconds",
    *NETWORK_HASHES,
    "generator_weights",
    "recipe_text",
    "published",
    "trained_otherwise",
    "steps_left_out",
    "method_version",
    "package_version",
)
"""`generator_weights` is "official" or "unofficial", which the hash of an imported checkpoint does not tell. For metric
networks it does, so that their rows say no more; leaderboards and reports do."""
_LATER = {
    *("command_seconds", "generator_weights", "lse_face_tracks", "method_version", "passed_through_frames", "split"),
    *("recipe", "recipe_text", "published", "trained_otherwise", "steps_left_out", "unenhanced_frames"),
}.union(*(metric.fields for metric in METRICS if metric.entry))
"""Fields that a file may lack: of metrics of packages installed later, and those that version 0.1 did not have."""

TEXTS = (
    *IDENTITY,
    *INPUTS,
    *CURVES,
    *NETWORK_HASHES,
    *("generator_weights", "recipe_text", "published", "trained_otherwise", "steps_left_out"),
    *("speaker", "split", "reason", "method_version", "package_version"),
)
"""Fields of text, beside `status`."""
ROWS = "clips*.csv"  # clips.csv; clips.rankN.csv of several processes, until the last one joins them
_JOIN_TRIALS, _JOIN_WAIT_S = 20, 0.1
SUPERSEDED = "superseded.csv"  # rows that are no longer valid
BOARD = "leaderboard.csv"

_log = logging.getLogger(__name__)

__all__ = [
    "BOARD",
    "CURVES",
    "ENTRY",
    "FIELDS",
    "GROUND_TRUTH",
    "IDENTITY",
    "INPUTS",
    "NETWORK_HASHES",
    "REPEATED_FRAME",
    "SUPERSEDED",
    "TEXTS",
    "RowFile",
    "is_readable",
    "join_rows",
    "read_rows",
    "rows_in",
]


def _line(values: Mapping[str, object] | None) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    if values is None:
        writer.writerow(FIELDS)
    else:
        writer.writerow([quoted(_cell(values.get(name))) for name in FIELDS])
    return buffer.getvalue().encode()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(float(value))  # also of NumPy's floats, whose repr names their type
    return " ".join(str(value).splitlines())  # a line break in a cell would break the repair of a half-written line


def is_readable(columns: Sequence[str]) -> bool:
    """Whether a file with these columns holds rows that this version reads; later fields may be absent."""
    return set(FIELDS) - _LATER <= set(columns) <= set(FIELDS) and len(set(columns)) == len(columns)


def _records(path: Path) -> Iterator[dict[str, str] | None]:
    """The rows of a file as texts, with the fields that it has; None for an incomplete line, as after a loss of power.

    Raises:
        OtherResultsError: The header is of another version, or not CSV; or a complete line is not UTF-8.
    """
    header: list[str] = []
    for number, line in enumerate(_whole_lines(path)):
        try:
            cells = next(csv.reader([line.decode()], strict=True))
        except csv.Error:
            cells = []
        except UnicodeDecodeError as error:  # another program has written here
            raise OtherResultsError(
                f"{path}: line {number + 1} is not UTF-8. Expected rows of bench evaluate. Correct the line or remove "
                "it, or choose another folder with --out."
            ) from error
        if number == 0:
            header = cells
            _refuse_other(path, header)
        else:
            complete = len(cells) == len(header)
            found = dict(zip(header, map(unquoted, cells), strict=False))
            yield {"recipe": "", **found} if complete else None  # version 0.1 did not have it


def _refuse_other(path: Path, columns: Sequence[str]) -> None:
    if is_readable(columns):
        return
    more = sorted(set(columns) - set(FIELDS))
    metrics = f" ({', '.join(more)} may be of a metric whose package is not installed)" if more else ""
    raise OtherResultsError(
        f"{path} was written by another version: its columns are {', '.join(columns) or 'unreadable'}{metrics}. "
        f"Expected {', '.join(FIELDS)}. Choose another folder with --out."
    )


def _whole_lines(path: Path) -> Iterator[bytes]:
    """A file's complete lines: not one that was cut off or is just being written."""
    with path.open("rb") as file:
        yield from (line for line in file if line.endswith(b"\n") and line.strip())


def rows_in(folder: Path) -> Iterator[dict[str, str]]:
    """The rows of all files of a results folder, as texts.

    Raises:
        OtherResultsError: A file is of another version.
    """
    for path in _files(folder):
        yield from (row for row in _records(path) if row is not None)


def _files(folder: Path) -> list[Path]:
    """The files with rows; the one written last comes last."""
    found = list(folder.glob(ROWS))
    strange = [path for path in found if not path.is_file()]
    if strange:  # a pipe would never end
        raise OtherResultsError(
            f"{strange[0]} is not a regular file. Expected rows of bench evaluate. Remove it, or choose another folder "
            "with --out"
        )
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path))


@functools.cache
def _say_without_locks() -> None:
    _log.warning(
        "this system has no file locks. Expected one process at a time on a results folder: another that runs beside "
        "it may take its rows away. Start bench evaluate when the other has ended."
    )


def _locked(descriptor: int, path: Path, *, shared: bool) -> bool:
    """Lock an open file; False if another process holds it or the file has been replaced meanwhile."""
    try:
        import fcntl  # not on Windows
    except ImportError:
        _say_without_locks()
    else:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            pass
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _write_whole(descriptor: int, data: bytes, path: Path) -> None:
    """Append all data and flush it to the disk, or nothing."""
    written = 0
    try:
        while written < len(data):  # the system may write only a part when the disk is nearly full
            written += os.write(descriptor, data[written:])
        os.fsync(descriptor)
    except OSError as error:
        end = os.lseek(descriptor, 0, os.SEEK_CUR)
        if written and os.fstat(descriptor).st_size == end:  # else another process has appended after it
            os.ftruncate(descriptor, end - written)
        raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from error


def _superseded(path: Path, head: bytes) -> Path:
    """The file for rows that are no longer valid; another one for each head."""
    place, number = path.with_name(SUPERSEDED), 1
    while place.is_file() and next(_whole_lines(place), head) != head:
        number += 1
        place = path.with_name(f"superseded.{number}.csv")
    return place


def _tidy(path: Path, holds: Callable[[Mapping[str, str]], bool]) -> None:
    """Remove incomplete lines and rows that are no longer valid, unless a process is appending to the file."""
    with path.open("rb") as file:
        if not _locked(file.fileno(), path, shared=False):
            return
        kept, lost, spoilt = [True], [False], 0  # the head
        head = next(_whole_lines(path), _line(None))
        for row in _records(path):
            spoilt += row is None
            kept.append(row is not None and holds(row))
            lost.append(row is not None and not kept[-1] and row["status"] == "ok")
        if any(lost):
            aside = _superseded(path, head)
            with aside.open("ab") as old:
                old.write(b"" if old.tell() else head)
                old.writelines(compress(_whole_lines(path), lost))
            path.with_name(BOARD).unlink(missing_ok=True)  # it counted them
            _log.info("%s: %d rows are of files that changed or are missing, see %s", path, sum(lost), aside.name)
        if spoilt:
            _log.warning("%s: %d lines are not complete rows and are removed", path, spoilt)
        if head != _line(None):  # of a file that lacks later fields
            with atomic_path(path) as temporary, temporary.open("wb") as new:
                new.write(_line(None))
                new.writelines(_line(row) for row in compress(_records(path), kept[1:]) if row is not None)
        elif sum(map(len, compress(_whole_lines(path), kept))) < path.stat().st_size:
            with atomic_path(path) as temporary, temporary.open("wb") as new:
                new.writelines(compress(_whole_lines(path), kept))


def _lock_all(folder: Path, stack: ExitStack) -> list[Path] | None:
    """The files with rows, none of which a process is appending to until the stack is closed; None if one is."""
    first = folder / "clips.csv"  # which decides who of several processes may go on
    descriptor = os.open(first, os.O_RDWR | os.O_CREAT, 0o644)
    stack.callback(os.close, descriptor)
    if not _locked(descriptor, first, shared=False):
        return None
    files = _files(folder)
    for path in files:
        if path != first:
            file = stack.enter_context(path.open("rb"))
            if not _locked(file.fileno(), path, shared=False):
                if not first.stat().st_size:
                    first.unlink()
                return None
    return files


def join_rows(folder: Path, order: Iterable[tuple[str, ...]]) -> None:
    """Bring the rows of several processes into clips.csv, as one process would have written them.

    Files that a process is still appending to are left as they are; so are all others then.

    Args:
        folder: A results folder.
        order: Identities of rows; rows that are not among them come last.
    """
    for _ in range(_JOIN_TRIALS):
        if all(path.name == "clips.csv" for path in _files(folder)):
            return
        with ExitStack() as stack, suppress(FileNotFoundError):  # another process has joined them
            files = _lock_all(folder, stack)
            if files is not None:
                _join(folder / "clips.csv", files, {identity: place for place, identity in enumerate(order)})
                return
        time.sleep(_JOIN_WAIT_S)


def _join(whole: Path, files: Sequence[Path], places: Mapping[tuple[str, ...], int]) -> None:
    lines = {
        tuple(row[name] for name in IDENTITY): line
        for path in files
        for row, line in zip(_records(path), islice(_whole_lines(path), 1, None), strict=True)
        if row is not None
    }
    with atomic_path(whole) as temporary, temporary.open("wb") as file:
        file.write(_line(None))
        file.writelines(lines[name] for name in sorted(lines, key=lambda name: (places.get(name, len(places)), name)))
    for path in files:
        if path != whole:
            path.unlink()


class RowFile:
    """Appends rows to a CSV file and knows the rows that exist, in it and in the files of other ranks beside it.

    Args:
        path: The file; created with its header if missing; an incomplete last line is removed.
        holds: Whether an existing row is still valid; others are removed, also from the files beside it, unless their
            process is running.

    Raises:
        OtherResultsError: A header is of another version.
    """

    def __init__(self, path: Path, holds: Callable[[Mapping[str, str]], bool] = lambda row: True) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        for file in _files(path.parent):
            _tidy(file, holds)
        self._descriptor = self._open()
        if os.fstat(self._descriptor).st_size == 0:
            self._write(_line(None))
        self.done = {tuple(row[name] for name in IDENTITY) for row in rows_in(path.parent) if holds(row)}

    def _open(self) -> int:
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            if _locked(descriptor, self.path, shared=True):
                return descriptor
            os.close(descriptor)  # another process has replaced the file by a tidied one

    def _write(self, line: bytes) -> None:
        _write_whole(self._descriptor, line, self.path)

    def __contains__(self, identity: tuple[str, ...]) -> bool:
        return identity in self.done

    def append(self, row: Mapping[str, object]) -> None:
        """Write one row. Keys outside FIELDS raise ValueError; an existing row is not written again.

        Raises:
            OSError: The row could not be written completely; then nothing is written.
        """
        unknown = sorted(set(row) - set(FIELDS))
        if unknown:
            raise ValueError(f"a row has no fields {unknown}")
        identity = tuple(_cell(row.get(name)) for name in IDENTITY)
        if identity not in self.done:
            self._write(_line(row))
            self.done.add(identity)

    def close(self) -> None:
        """Close the file. Its rows have been flushed already."""
        os.close(self._descriptor)


def _table(file: Path) -> pd.DataFrame:
    next(_records(file), None)  # checks the header's version
    expected, repair = "rows of bench evaluate of this version", "Remove the file, or evaluate into another --out"
    try:
        table = read_table(
            file,
            expected,
            repair,
            texts=TEXTS,
            numbers=[name for name in FIELDS if name not in (*TEXTS, "status")],
            filled=("protocol", "method", "clip", "status"),
            growing=True,
        )
    except TextError as error:
        raise OtherResultsError(str(error)) from error
    missing = [name for name in FIELDS if name not in table and name not in _LATER]
    table = table.reindex(columns=[*FIELDS, *(name for name in table if name not in FIELDS)])
    strange = sorted({*map(str, table["status"])} - {"ok", "failed"})
    curves = [name for name in CURVES if name in table and not table[name].dropna().map(are_numbers).all()]
    found = [
        *(f"has no column {name}" for name in missing),
        *(f"has the status {status[:40]!r}" for status in strange),
        *(f"has something else than numbers in {name}" for name in curves),
    ]
    if found:
        raise OtherResultsError(f"{file}: {', '.join(found)}. Expected {expected}. {repair}")
    return table


def read_rows(folder: Path) -> pd.DataFrame:
    """All rows of a results folder, from the files of all ranks, in a stable order.

    Raises:
        FileNotFoundError: The folder holds no clips*.csv.
        OtherResultsError: A file is of another version, or holds something else.
    """
    files = [file for file in _files(folder) if file.stat().st_size]
    if not files:
        raise FileNotFoundError(
            f"{folder} holds no clips*.csv. Expected a results folder; make one with: bench evaluate"
        )
    frames = [_table(file) for file in files]
    rows = pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)
    rows[list(ENTRY[2:])] = rows[list(ENTRY[2:])].fillna("")
    rows = rows.drop_duplicates(list(IDENTITY), keep="last")
    return rows.sort_values(list(IDENTITY), kind="stable", ignore_index=True)
