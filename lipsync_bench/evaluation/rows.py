# SPDX-License-Identifier: Apache-2.0
"""clips.csv: one line for each method and clip, on disk the moment it is known.

The file is only ever appended to, line by line, each line flushed to the disk. A run that was killed leaves at most one
half line at the end, which the next run cuts off before it goes on.
"""

import csv
import io
import math
import os
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from lipsync_bench.evaluation.columns import CLIP_COLUMNS
from lipsync_bench.results.errors import OtherResultsError

LINE = ("protocol", "method", "generator_sha256", "paste")
"""What identifies a line of the leaderboard."""
GROUND_TRUTH = "ground_truth"
"""The method that is the real video itself: the floor of every metric, and no competitor."""
IDENTITY = (*LINE, "clip", "audio_clip")
"""What identifies a row: a line, and a pair of a video and a sound (the same clip's where the protocol is paired)."""
CURVES = ("lse_curve_wav2lip_lrs", "expert_curve")
"""SyncNet's distance and the expert's cosine at each shift of the sound from -15 to 15 frames, means over the clip's
windows, as numbers with blanks between them; "nan" where there is no sound."""
SCORERS = ("lse_sha256", "expert_sha256", "lpips_alex_sha256", "lpips_vgg_sha256", "fid_sha256")
"""SHA-256 of the weights of each network that judges; empty where none was given."""
FIELDS = (
    *IDENTITY,
    "speaker",
    "status",
    "reason",
    "frames",
    "frames_target",
    "psnr_infinite_frames",
    "lmd_skipped_frames",
    "boxless_frames",
    "fallback_frames",
    *(column.name for column in CLIP_COLUMNS),
    *CURVES,
    "generate_seconds",
    "seconds",
    *SCORERS,
    "package_version",
)

ROWS = "clips*.csv"  # clips.csv of a single process, clips.rankN.csv of several

__all__ = ["CURVES", "FIELDS", "GROUND_TRUTH", "IDENTITY", "LINE", "SCORERS", "RowFile", "read_rows"]


def _line(values: Mapping[str, object] | None) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    if values is None:
        writer.writerow(FIELDS)
    else:
        writer.writerow([_cell(values.get(name)) for name in FIELDS])
    return buffer.getvalue().encode()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(float(value))  # also of NumPy's floats, whose repr names their type
    return " ".join(str(value).split())  # a line break inside a cell would break the repair of a half-written line


def _identities(path: Path) -> list[tuple[str, ...]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != FIELDS:
            raise OtherResultsError(
                f"{path} was written by another version: its columns are {reader.fieldnames}. "
                f"Expected {', '.join(FIELDS)}. Choose another folder with --out."
            )
        # A line that another rank is writing just now has no last field yet.
        return [tuple(row[name] for name in IDENTITY) for row in reader if row[FIELDS[-1]] is not None]


class RowFile:
    """Appends rows to a CSV file and knows which are there already, in it or in the files of other ranks beside it.

    Args:
        path: The file; made with its header when missing, mended when its last line is incomplete.

    Raises:
        OtherResultsError: A header is not that of this version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._mend()
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        if path.stat().st_size == 0:
            self._write(_line(None))
        self.done = {identity for file in path.parent.glob(ROWS) for identity in _identities(file)}

    def _mend(self) -> None:
        if not self.path.is_file():
            return
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            with self.path.open("r+b") as file:
                file.truncate(len(whole))

    def _write(self, line: bytes) -> None:
        os.write(self._descriptor, line)
        os.fsync(self._descriptor)

    def __contains__(self, identity: tuple[str, ...]) -> bool:
        return identity in self.done

    def append(self, row: Mapping[str, object]) -> None:
        """Write one row. Keys outside FIELDS raise ValueError; a row that is there already is not written again."""
        unknown = sorted(set(row) - set(FIELDS))
        if unknown:
            raise ValueError(f"a row has no fields {unknown}")
        identity = tuple(_cell(row.get(name)) for name in IDENTITY)
        if identity not in self.done:
            self._write(_line(row))
            self.done.add(identity)

    def close(self) -> None:
        """Close the file. Rows are on the disk already."""
        os.close(self._descriptor)


def read_rows(folder: Path) -> pd.DataFrame:
    """All rows of a results folder, one file for each rank that took part, in a stable order.

    Raises:
        FileNotFoundError: The folder holds no clips*.csv.
    """
    files = sorted(folder.glob(ROWS))
    if not files:
        raise FileNotFoundError(
            f"{folder} holds no clips*.csv. Expected a results folder; make one with: bench evaluate"
        )
    texts = (*IDENTITY, *CURVES, *SCORERS, "speaker", "reason", "package_version")
    types = dict.fromkeys(texts, str)
    frames = [pd.read_csv(file, dtype=types, keep_default_na=False, na_values=[""]) for file in files]
    rows = pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)
    rows[["generator_sha256", "paste"]] = rows[["generator_sha256", "paste"]].fillna("")
    return rows.drop_duplicates(list(IDENTITY)).sort_values(list(IDENTITY), kind="stable", ignore_index=True)
