# SPDX-License-Identifier: Apache-2.0
"""`bench leaderboard merge A.csv B.csv`: several results in one leaderboard, or an error that says why not.

A part is a results folder, its clips.csv or its leaderboard.csv (then the rows beside it are read), or a
leaderboard.csv without rows. The rows of all parts are joined, and the leaderboard is computed from them. Entries that
come without rows are copied. Then no entry gets a rank or a group, because ranks over some of the entries would
mislead. FID is computed from the features of all clips and is not in the rows: an entry keeps the FID of the
leaderboard.csv beside its rows, if that entry has the same clips as the merged one.

Parts are refused where a column of the leaderboard would hold two different quantities:

- The protocols or the weights of the metric networks differ.
- The data sets or splits differ, as far as manifests record them.
- The clips differ. Entries with rows must have the same pairs of video and audio, scored or failed; the ground truth,
  which keeps its own audio, must have the same videos. Of entries without rows only the number of clips is known, and
  these numbers must agree.
- Two videos have the same clip's name, or two predictions belong to the same row.
- Two measurements of the same row differ by more than `TOLERANCE`, or two entries without rows belong to the same
  method and differ.

A row that occurs several times counts once. A scored row is preferred to a failed one, and of several scored rows the
one with the smallest values is taken, so that the order of the parts does not matter.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lipsync_bench.metrics.registry import CLIP_COLUMNS, COLUMNS
from lipsync_bench.results.csv_tables import read_cells
from lipsync_bench.results.folder import ResultsFolder, read_table, with_texts
from lipsync_bench.results.leaderboard import (
    GROUPS,
    HEAD,
    NEWER,
    RANKS,
    TAIL,
    leaderboard,
    metric_columns,
    with_weights,
)
from lipsync_bench.results.rows import BOARD, ENTRY, FIELDS, GROUND_TRUTH, IDENTITY, NETWORK_HASHES, is_readable

TOLERANCE = 1e-3
"""Relative: two machines compute the last digits of a network's output differently."""
_METRICS = tuple(column.name for column in CLIP_COLUMNS)
_POOLED = tuple(column.name for column in COLUMNS if column.kind == "pooled")
_COUNTS = HEAD[2:]

_log = logging.getLogger(__name__)

__all__ = ["MergeInput", "merge_leaderboards", "read_input"]


@dataclass(frozen=True)
class MergeInput:
    """One part of a merge: either rows, or the entries of a leaderboard without rows.

    Args:
        name: Its name in messages.
        rows: The rows of a results folder; None for entries without rows.
        entries: A leaderboard without rows; None if there are rows.
        board: The leaderboard beside the rows, from which FID is taken; None without one.
        data: What its manifest records of `dataset`, `split` and `rules` (the hash of the protocol's rules for this
            data set), as (key, value); other parts must have the same values.
    """

    name: str
    rows: pd.DataFrame | None = None
    entries: pd.DataFrame | None = None
    board: pd.DataFrame | None = None
    data: tuple[tuple[str, str], ...] = ()

    @property
    def table(self) -> pd.DataFrame:
        """Rows or entries, whichever it has."""
        table = self.rows if self.rows is not None else self.entries
        if table is None:
            raise ValueError(f"{self.name} has neither rows nor entries. Expected one of them.")
        return table


def _refuse_other_version(path: Path, columns: Sequence[str]) -> None:
    """Refuse a file that is not a leaderboard.csv of this version."""
    needed = tuple(name for name in (*HEAD, *TAIL) if name not in NEWER)
    known = {*needed, *NEWER, *(name for column in COLUMNS for name in metric_columns(column))}
    of_metrics = {name for c in COLUMNS if c.name in columns for name in metric_columns(c)}
    missing = sorted({*needed, *of_metrics} - set(columns), key=[*needed, *sorted(of_metrics)].index)
    unknown = sorted(set(columns) - known)
    if missing or unknown:
        raise ValueError(
            f"{path} is neither rows nor a leaderboard of this version: missing {', '.join(missing) or 'nothing'}, "
            f"unknown {', '.join(unknown) or 'nothing'}. Expected a clips.csv or leaderboard.csv; write it again with: "
            "bench evaluate"
        )


def _folder_part(name: str, folder: ResultsFolder, rows: pd.DataFrame | None = None) -> MergeInput:
    """A results folder; with `rows`, only these rows of it."""
    if rows is None:
        for file in folder.row_files:
            expected, repair = "rows of bench evaluate", "Remove the file, or evaluate again"
            columns = next(read_cells(file, expected, repair, growing=True))
            if not is_readable(columns):
                raise ValueError(
                    f"{file} was written by another version: its columns are {', '.join(columns) or 'none'}. Expected "
                    f"{', '.join(FIELDS)}. Write it again with: bench evaluate --out NEW"
                )
        rows = folder.rows()
    board = read_table(folder.board_file) if folder.board_file.is_file() else None
    if board is not None:
        _refuse_other_version(folder.board_file, list(board.columns))
    known = folder.identity()
    data = tuple((key, str(known[key])) for key in ("dataset", "split", "rules") if key in known)
    return MergeInput(name, rows=rows, board=board, data=data)


def read_input(path: Path) -> MergeInput:
    """A results folder, a clips.csv or a leaderboard.csv.

    Args:
        path: The folder or file. If rows are beside a leaderboard.csv, they are read instead.

    Raises:
        FileNotFoundError: There is no such file or folder, or no rows in the folder.
        ValueError: The file is neither rows nor a leaderboard of this version.
    """
    if path.is_dir():
        return _folder_part(str(path), ResultsFolder(path))
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file. Expected a results folder, its clips.csv or a leaderboard.csv; make one with: "
            "bench evaluate"
        )
    folder = ResultsFolder(path.parent)
    if path.name == BOARD and folder.row_files:
        return _folder_part(str(path), folder)
    table = read_table(path)
    if is_readable(list(table.columns)):
        return _folder_part(str(path), folder, table.reindex(columns=list(FIELDS)))
    _refuse_other_version(path, list(table.columns))
    absent = [name for name in NEWER if name not in table]
    return MergeInput(str(path), entries=with_weights(table.assign(**dict.fromkeys(absent, ""))))


def _one_value(parts: Sequence[MergeInput], column: str, what: str) -> None:
    """Refuse more than one value in a column, over all parts."""
    seen: dict[str, str] = {}
    for part in parts:
        for value in part.table[column].astype(object).fillna("").astype(str).unique():
            seen.setdefault(value, part.name)
    if len(seen) > 1:
        (one, first), (other, second) = sorted(seen.items(), key=lambda item: (item[1], item[0]))[:2]
        raise ValueError(
            f"{first} has {what} {one or 'none'}, {second} has {other or 'none'}. Expected the same in all: otherwise "
            "their numbers cannot share a column. Merge only results of one, or evaluate again with the same: "
            "bench evaluate"
        )


def _refuse_other_data(parts: Sequence[MergeInput]) -> None:
    seen: dict[str, tuple[str, str]] = {}
    for part in parts:
        for key, value in part.data:
            name, first = seen.setdefault(key, (part.name, value))
            if first != value:
                raise ValueError(
                    f"{name} was measured on the {key} {first}, {part.name} on {value}. Expected the same clips in "
                    "all. Merge only results of one data set: bench evaluate --dataset NAME"
                )


def _differing(a: pd.Series, b: pd.Series) -> str | None:
    """The first metric in which two measurements of the same row differ; None if there is none."""
    for name in _METRICS:
        one, other = float(a[name]), float(b[name])
        same = one == other or (math.isnan(one) and math.isnan(other))
        if not same and not math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-6):
            return name
    return None


def _without_duplicates(rows: pd.DataFrame) -> pd.DataFrame:
    """Each row once. `rows` has a column `part` with the name of the part that each row comes from."""
    rows = rows.assign(_failed=rows["status"] != "ok").sort_values(
        [*IDENTITY, "_failed", *_METRICS, "frames", "package_version", "reason"], kind="stable", ignore_index=True
    )
    doubled = rows[rows.duplicated(list(IDENTITY), keep=False)]
    for _, group in doubled.groupby(list(IDENTITY)):
        good = group[group["status"] == "ok"]
        for k in range(1, len(good)):
            first, other = good.iloc[0], good.iloc[k]
            name = _differing(first, other)
            if name is not None:
                audio = "" if first["audio_clip"] == first["clip"] else f" with the audio of {first['audio_clip']}"
                raise ValueError(
                    f"{first['method']} on {first['clip']}{audio} has {name} {first[name]} in {first['part']} and "
                    f"{other[name]} in {other['part']}, with the same weights and protocol. Expected the same within "
                    f"{TOLERANCE:g}. Leave out the wrong one, or measure again: bench evaluate --out NEW"
                )
    dropped = rows.duplicated(list(IDENTITY))
    if dropped.any():
        _log.info("%d rows occur more than once and count once", int(dropped.sum()))
    return rows[~dropped].drop(columns="_failed").reset_index(drop=True)


def _refuse_other_files(rows: pd.DataFrame) -> None:
    """Refuse two videos of one clip, or two predictions of one row, where both were scored."""
    pair = ["clip", "audio_clip"]
    for names, field, what in (
        (["clip"], "target_sha256", "video"),
        ([*ENTRY, *pair], "prediction_sha256", "prediction"),
    ):
        known = rows[(rows["status"] == "ok") & (rows[field] != "")].drop_duplicates([*names, field])
        other = known[known.duplicated(names, keep=False)].sort_values([*names, field])
        if len(other):
            one, two = other.iloc[0], other.iloc[1]
            raise ValueError(
                f"the {what} of clip {one['clip']} in {one['part']} is not the one in {two['part']} ({one[field][:12]} "
                f"and {two[field][:12]}). Expected the same file under the same name in all. Merge only results of the "
                "same files: bench evaluate"
            )


def _refuse_other_clips(rows: pd.DataFrame) -> None:
    pair = ["clip", "audio_clip"]
    lengths = rows.dropna(subset=["frames_target"]).groupby(pair)["frames_target"].agg(["min", "max"])
    other = lengths[lengths["min"] != lengths["max"]]
    if len(other):
        clip, audio_clip = other.index[0]
        own = rows[(rows["clip"] == clip) & (rows["audio_clip"] == audio_clip)].drop_duplicates("frames_target")
        found = ", ".join(f"{int(row['frames_target'])} frames in {row['part']}" for _, row in own.iterrows())
        raise ValueError(
            f"clip {clip} has {found}. Expected the same video under the same name in all. Merge only results of one "
            "data set: bench evaluate --dataset NAME"
        )
    ground_truth = rows["method"] == GROUND_TRUTH
    for some, keys in ((rows[~ground_truth], pair), (rows, pair[:1])):  # the ground truth has the same videos only
        everything = set(some[keys].itertuples(index=False, name=None))
        for entry, group in some.groupby(list(ENTRY)):
            absent = sorted(everything - set(group[keys].itertuples(index=False, name=None)))
            if absent:
                raise ValueError(
                    f"{entry[1]} ({', '.join(sorted(set(group['part'])))}) has {len(everything) - len(absent)} of the "
                    f"{len(everything)} clips of all; {' with the audio of '.join(dict.fromkeys(absent[0]))} is "
                    "absent. Expected every clip in every entry: otherwise their means cannot be compared. Finish the "
                    "shorter run with its own command, without --limit: bench evaluate"
                )


def _pooled_metrics(parts: Sequence[MergeInput], rows: pd.DataFrame) -> pd.DataFrame | None:
    """The pooled metrics (FID), which rows do not have, from the leaderboards beside the rows.

    An entry's value is taken if it was computed from as many clips as the merged entry has.

    Args:
        parts: Parts with their leaderboards.
        rows: The rows of all parts, each once.
    """
    clips = rows[rows["status"] == "ok"].groupby(list(ENTRY)).size().to_dict()
    found: dict[tuple[str, tuple[str, ...]], tuple[float, int, str]] = {}
    lost: set[str] = set()
    for part in parts:
        if part.board is None or part.rows is None:
            continue
        own = part.rows[part.rows["status"] == "ok"].groupby(list(ENTRY)).size().to_dict()
        for _, entry in part.board.iterrows():
            key = tuple(str(entry[name]) for name in ENTRY)
            for name in (name for name in _POOLED if name in entry and not math.isnan(entry[name])):
                if not clips.get(key, 0) == own.get(key, 0) == entry["clips"]:
                    lost.add(f"{entry['method']} in {part.name}")
                    continue
                value, n = float(entry[name]), int(entry[f"{name}_n"])
                first, _, place = found.setdefault((name, key), (value, n, part.name))
                if not math.isclose(first, value, rel_tol=TOLERANCE, abs_tol=1e-6):
                    raise ValueError(
                        f"{entry['method']} has {name} {first} in {place} and {value} in {part.name}, over the same "
                        f"clips. Expected the same within {TOLERANCE:g}. Leave out the wrong one, or measure again: "
                        "bench evaluate --out NEW"
                    )
    if lost:
        _log.warning("fid of %s is of other clips than the merged entry, and left out", ", ".join(sorted(lost)))
    if not found:
        return None
    out = pd.DataFrame([dict(zip(ENTRY, key, strict=True)) for key in sorted({key for _, key in found})])
    for name in sorted({name for name, _ in found}):
        values = [
            found.get((name, key), (math.nan, 0, "")) for key in out[list(ENTRY)].itertuples(index=False, name=None)
        ]
        out[name], out[f"{name}_n"] = [value for value, _, _ in values], [n for _, n, _ in values]
    return out


def _leaderboard_of_rows(parts: Sequence[MergeInput]) -> pd.DataFrame:
    """The leaderboard that is computed from the rows of all parts that have rows."""
    tables = [with_texts(part.rows).assign(part=part.name) for part in parts if part.rows is not None]
    rows = pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)
    _refuse_other_files(rows)
    rows = _without_duplicates(rows)
    _refuse_other_clips(rows)
    return leaderboard(rows.drop(columns="part"), _pooled_metrics(parts, rows))


def _ordered(entries: pd.DataFrame) -> pd.DataFrame:
    """Columns and entries in the order of `leaderboard`; metrics that no entry has are left out."""
    metrics = [c for c in COLUMNS if c.name in entries and entries[c.name].notna().any()]
    out = entries.reindex(columns=[*HEAD, *(name for c in metrics for name in metric_columns(c)), *TAIL])
    whole = [*_COUNTS, *(f"{c.name}_n" for c in metrics)]
    out[whole] = out[whole].fillna(0).astype("int64")
    letters, places = [n for n in GROUPS if n in out], [n for n in RANKS if n in out]
    out = out.assign(**{name: out[name].astype(object).fillna("").astype(str) for name in letters})
    out = out.astype(dict.fromkeys(places, "Int64"))
    return out.sort_values(list(ENTRY), kind="stable", ignore_index=True)


def _same_entry(a: pd.Series, b: pd.Series) -> bool:
    """Whether two entries have the same numbers; ranks and groups depend on other entries and do not count."""
    numbers = [name for name in a.index if name not in (*HEAD[:2], *TAIL, *GROUPS, *RANKS)]
    one, other = (entry[numbers].to_numpy(dtype=float) for entry in (a, b))
    return np.allclose(one, other, rtol=1e-9, atol=1e-12, equal_nan=True)


def _without_duplicate_entries(entries: pd.DataFrame) -> pd.DataFrame:
    """Each entry once; two that differ, or have other numbers of clips, are refused.

    `entries` has a column `part` with the name of the part that each entry comes from.
    """
    for entry, group in entries.groupby(list(ENTRY)):
        for k in range(1, len(group)):
            if not _same_entry(group.iloc[0].drop("part"), group.iloc[k].drop("part")):
                raise ValueError(
                    f"{entry[1]} has different entries in {group.iloc[0]['part']} and {group.iloc[k]['part']}, and "
                    "means without their rows cannot be pooled. Expected the rows of both: give the results folders, "
                    "or leave one out"
                )
    entries = entries[~entries.duplicated(list(ENTRY))]
    others = entries[entries["method"] != GROUND_TRUTH]
    clips = others["clips"] + others["failures"]
    if clips.nunique() > 1:
        found = [f"{clips[k]} in {others['part'][k]}" for k in clips.drop_duplicates().index]
        raise ValueError(
            f"the entries have different numbers of clips: {', '.join(found)}. Expected the same clips in all. Finish "
            "the shorter run with its own command, without --limit: bench evaluate"
        )
    return entries.drop(columns="part")


def _without_ranks(entries: pd.DataFrame) -> pd.DataFrame:
    places = {name: pd.array([pd.NA] * len(entries), dtype="Int64") for name in RANKS if name in entries}
    return entries.assign(**places, **{name: "" for name in GROUPS if name in entries})


def merge_leaderboards(*parts: MergeInput) -> pd.DataFrame:
    """One leaderboard of several results, independent of their order.

    Args:
        parts: As returned by `read_input`, or made from rows or a leaderboard in memory.

    Returns:
        A table as of `leaderboard`. Ranks and groups are empty unless every entry comes with its rows.

    Raises:
        ValueError: They must not be merged (see the head of this file); the message names the parts and what differs.
    """
    if not any(len(part.table) for part in parts):
        names = ", ".join(sorted(part.name for part in parts))
        raise ValueError(f"{names}: no row and no entry in any of them. Expected some. Make them with: bench evaluate")
    parts = tuple(sorted((part for part in parts if len(part.table)), key=lambda part: part.name))
    _one_value(parts, "protocol", "protocol")
    for name in NETWORK_HASHES:
        _one_value(parts, name, f"metric network weights {name}")
    _refuse_other_data(parts)
    tables = []
    if any(part.rows is not None for part in parts):
        names = " + ".join(part.name for part in parts if part.rows is not None)
        tables.append(_leaderboard_of_rows(parts).assign(part=names))
    ranked = len(tables[0]) if tables else 0
    tables += [part.entries.assign(part=part.name) for part in parts if part.entries is not None]
    entries = pd.concat([table[[*_ordered(table).columns, "part"]] for table in tables], ignore_index=True)
    counts = [name for name in entries if name.endswith("_n")]
    entries[counts] = entries[counts].fillna(0)  # a metric that only another part has
    out = _ordered(_without_duplicate_entries(entries))
    if len(out) > ranked:
        _log.info("%d entries came without their rows; ranks and groups are left empty", len(out) - ranked)
        return _without_ranks(out)
    return out
