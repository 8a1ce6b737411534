# SPDX-License-Identifier: Apache-2.0
"""`bench leaderboard merge A.csv B.csv`: several results in one leaderboard, or a refusal that says why not.

What may be merged: a results folder, its clips.csv or its leaderboard.csv (the rows beside it are read), or a
leaderboard.csv that somebody sent alone. Rows are pooled and the leaderboard derived from them anew; lines that come
without rows are taken as they are, without rank and group, and then no line has any: a rank among some of the lines is
none. FID cannot be pooled; a line keeps that of the leaderboard.csv beside its rows, if it is of the same clips.

Refused, because a column of the leaderboard would hold two different quantities:

- another protocol, or other scorer weights;
- another data set or split, where manifests tell;
- other clips, or another video or prediction under the same name. With rows the pairs of video and sound have to be the
  same in all lines, scored or failed; of lines without rows only their number is known, and has to agree. The ground
  truth, which says its own words only, needs the same videos;
- two measurements of the same row that differ by more than `TOLERANCE`, or two different lines of the same method
  without the rows to pool.

A row that is there twice counts once: a scored one before a failed one, else that with the smaller values, so that the
order of the parts plays no part.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lipsync_bench.datamodules.files import printable, write_atomic
from lipsync_bench.metrics.registry import CLIP_COLUMNS, COLUMNS
from lipsync_bench.results.csv_tables import csv_text, read_cells
from lipsync_bench.results.folder import ResultsFolder, read_table, with_texts
from lipsync_bench.results.leaderboard import GROUPS, HEAD, RANKS, TAIL, leaderboard, metric_columns, rich_table
from lipsync_bench.results.rows import BOARD, ENTRY, FIELDS, GROUND_TRUTH, IDENTITY, SCORERS

TOLERANCE = 1e-3
"""Of the larger value: two machines compute the last digits of a network's output differently."""
_METRICS = tuple(column.name for column in CLIP_COLUMNS)
_POOLED = tuple(column.name for column in COLUMNS if column.kind == "pooled")
_COUNTS = HEAD[2:]

_log = logging.getLogger(__name__)

__all__ = ["Part", "leaderboard_merge", "merge_leaderboards", "read_part"]


@dataclass(frozen=True)
class Part:
    """One of the results to be merged.

    Args:
        name: As messages call it.
        rows: One row for each method and clip; None if only the leaderboard is known.
        lines: The leaderboard; None if there are rows.
        board: Beside rows: the leaderboard.csv there, for what rows do not tell; None without one.
        data: Data set and split, as far as a manifest tells.
    """

    name: str
    rows: pd.DataFrame | None = None
    lines: pd.DataFrame | None = None
    board: pd.DataFrame | None = None
    data: tuple[tuple[str, str], ...] = ()

    @property
    def table(self) -> pd.DataFrame:
        """Rows or lines, whichever there are."""
        table = self.rows if self.rows is not None else self.lines
        if table is None:
            raise ValueError(f"{self.name} has neither rows nor lines. Expected one of them.")
        return table


def _refuse_other_version(path: Path, columns: Sequence[str]) -> None:
    """Refuse what is no leaderboard.csv as this version writes it."""
    needed = (*HEAD, *TAIL)
    known = {*needed, *(name for column in COLUMNS for name in metric_columns(column))}
    halves = {name for c in COLUMNS if c.name in columns for name in metric_columns(c)}
    missing = sorted({*needed, *halves} - set(columns), key=[*needed, *sorted(halves)].index)
    unknown = sorted(set(columns) - known)
    if missing or unknown:
        raise ValueError(
            f"{path} is neither rows nor a leaderboard of this version: missing {', '.join(missing) or 'nothing'}, "
            f"unknown {', '.join(unknown) or 'nothing'}. Expected a clips.csv or leaderboard.csv; make it anew with: "
            "bench evaluate"
        )


def _folder_part(name: str, folder: ResultsFolder, rows: pd.DataFrame | None = None) -> Part:
    """A results folder; with `rows`, these of it alone."""
    if rows is None:
        for file in folder.row_files:
            expected, repair = "rows of bench evaluate", "Remove the file, or evaluate again"
            columns = next(read_cells(file, expected, repair, growing=True))
            if tuple(columns) != FIELDS:
                raise ValueError(
                    f"{file} was written by another version: its columns are {', '.join(columns) or 'none'}. Expected "
                    f"{', '.join(FIELDS)}. Make it anew with: bench evaluate --out NEW"
                )
        rows = folder.rows()
    board = read_table(folder.board_file) if folder.board_file.is_file() else None
    if board is not None:
        _refuse_other_version(folder.board_file, list(board.columns))
    known = folder.identity()
    data = tuple((key, str(known[key])) for key in ("dataset", "split", "rules") if key in known)
    return Part(name, rows=rows, board=board, data=data)


def read_part(path: Path) -> Part:
    """A results folder, a clips.csv or a leaderboard.csv.

    Args:
        path: Of a leaderboard.csv with rows beside it, the rows are read.

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
    if tuple(table.columns) == FIELDS:
        return _folder_part(str(path), folder, table)
    _refuse_other_version(path, list(table.columns))
    return Part(str(path), lines=table)


def _one_value(parts: Sequence[Part], column: str, what: str) -> None:
    """Refuse two values of a column, in two parts or in one."""
    seen: dict[str, str] = {}
    for part in parts:
        for value in part.table[column].astype(object).fillna("").astype(str).unique():
            seen.setdefault(value, part.name)
    if len(seen) > 1:
        (one, first), (other, second) = sorted(seen.items(), key=lambda item: (item[1], item[0]))[:2]
        raise ValueError(
            f"{first} has {what} {one or 'none'}, {second} has {other or 'none'}. Expected the same in all, because "
            "their numbers do not share a column. Merge only results of one, or evaluate again with the same: "
            "bench evaluate"
        )


def _refuse_other_data(parts: Sequence[Part]) -> None:
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
    """A metric in which two measurements of the same row differ."""
    for name in _METRICS:
        one, other = float(a[name]), float(b[name])
        same = one == other or (math.isnan(one) and math.isnan(other))
        if not same and not math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-6):
            return name
    return None


def _without_duplicates(rows: pd.DataFrame) -> pd.DataFrame:
    """Each row once. `rows` has a column `part`, its part's name."""
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
                sound = "" if first["audio_clip"] == first["clip"] else f" with the sound of {first['audio_clip']}"
                raise ValueError(
                    f"{first['method']} on {first['clip']}{sound} has {name} {first[name]} in {first['part']} and "
                    f"{other[name]} in {other['part']}, with the same weights and protocol. Expected the same within "
                    f"{TOLERANCE:g}. Leave out the wrong one, or measure again: bench evaluate --out NEW"
                )
    dropped = rows.duplicated(list(IDENTITY))
    if dropped.any():
        _log.info("%d rows are there more than once and count once", int(dropped.sum()))
    return rows[~dropped].drop(columns="_failed").reset_index(drop=True)


def _refuse_other_files(rows: pd.DataFrame) -> None:
    """Refuse two videos of one clip, or two predictions of one row, where both were scored."""
    pair = ["clip", "audio_clip"]
    for names, field, what in (
        (["clip"], "target_sha256", "video"),
        ([*ENTRY, *pair], "prediction_sha256", "prediction"),
    ):
        told = rows[(rows["status"] == "ok") & (rows[field] != "")].drop_duplicates([*names, field])
        other = told[told.duplicated(names, keep=False)].sort_values([*names, field])
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
    truth = rows["method"] == GROUND_TRUTH
    for part_of, keys in ((rows[~truth], pair), (rows, pair[:1])):  # the truth has the same videos, not sounds
        everything = set(part_of[keys].itertuples(index=False, name=None))
        for line, group in part_of.groupby(list(ENTRY)):
            absent = sorted(everything - set(group[keys].itertuples(index=False, name=None)))
            if absent:
                raise ValueError(
                    f"{line[1]} ({', '.join(sorted(set(group['part'])))}) has {len(everything) - len(absent)} of the "
                    f"{len(everything)} clips of all; {' with the sound of '.join(dict.fromkeys(absent[0]))} is "
                    "absent. Expected every clip in every line, or their means say different things. Finish the "
                    "shorter run with its own command, without --limit: bench evaluate"
                )


def _pooled_metrics(parts: Sequence[Part], rows: pd.DataFrame) -> pd.DataFrame | None:
    """What no row tells (FID), of lines whose leaderboard saw the same clips as all parts together.

    Args:
        parts: With their leaderboards.
        rows: Of all parts, each once.
    """
    clips = rows[rows["status"] == "ok"].groupby(list(ENTRY)).size().to_dict()
    found: dict[tuple[str, tuple[str, ...]], tuple[float, int, str]] = {}
    lost: set[str] = set()
    for part in parts:
        if part.board is None or part.rows is None:
            continue
        own = part.rows[part.rows["status"] == "ok"].groupby(list(ENTRY)).size().to_dict()
        for _, line in part.board.iterrows():
            key = tuple(str(line[name]) for name in ENTRY)
            for name in (name for name in _POOLED if name in line and not math.isnan(line[name])):
                if not clips.get(key, 0) == own.get(key, 0) == line["clips"]:
                    lost.add(f"{line['method']} in {part.name}")
                    continue
                value, n = float(line[name]), int(line[f"{name}_n"])
                first, _, place = found.setdefault((name, key), (value, n, part.name))
                if not math.isclose(first, value, rel_tol=TOLERANCE, abs_tol=1e-6):
                    raise ValueError(
                        f"{line['method']} has {name} {first} in {place} and {value} in {part.name}, over the same "
                        f"clips. Expected the same within {TOLERANCE:g}. Leave out the wrong one, or measure again: "
                        "bench evaluate --out NEW"
                    )
    if lost:
        _log.warning("fid of %s is of other clips than the merged line, and left out", ", ".join(sorted(lost)))
    if not found:
        return None
    out = pd.DataFrame([dict(zip(ENTRY, key, strict=True)) for key in sorted({key for _, key in found})])
    for name in sorted({name for name, _ in found}):
        values = [
            found.get((name, key), (math.nan, 0, "")) for key in out[list(ENTRY)].itertuples(index=False, name=None)
        ]
        out[name], out[f"{name}_n"] = [value for value, _, _ in values], [n for _, n, _ in values]
    return out


def _pooled(parts: Sequence[Part]) -> pd.DataFrame:
    """The leaderboard of all rows."""
    tables = [with_texts(part.rows).assign(part=part.name) for part in parts if part.rows is not None]
    rows = pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)
    _refuse_other_files(rows)
    rows = _without_duplicates(rows)
    _refuse_other_clips(rows)
    return leaderboard(rows.drop(columns="part"), _pooled_metrics(parts, rows))


def _ordered(lines: pd.DataFrame) -> pd.DataFrame:
    """Columns and lines in the order of `leaderboard`; metrics that no line holds are left out."""
    metrics = [c for c in COLUMNS if c.name in lines and lines[c.name].notna().any()]
    out = lines.reindex(columns=[*HEAD, *(name for c in metrics for name in metric_columns(c)), *TAIL])
    whole = [*_COUNTS, *(f"{c.name}_n" for c in metrics)]
    out[whole] = out[whole].fillna(0).astype("int64")
    letters, places = [n for n in GROUPS if n in out], [n for n in RANKS if n in out]
    out = out.assign(**{name: out[name].astype(object).fillna("").astype(str) for name in letters})
    out = out.astype(dict.fromkeys(places, "Int64"))
    return out.sort_values(list(ENTRY), kind="stable", ignore_index=True)


def _same_line(a: pd.Series, b: pd.Series) -> bool:
    numbers = [
        name for name in a.index if name not in (*HEAD[:2], *TAIL, *GROUPS, *RANKS)
    ]  # ranks depend on the others
    one, other = (line[numbers].to_numpy(dtype=float) for line in (a, b))
    return np.allclose(one, other, rtol=1e-9, atol=1e-12, equal_nan=True)


def _one_line_each(lines: pd.DataFrame) -> pd.DataFrame:
    """Lines that are there twice with the same numbers count once. `lines` has a column `part`."""
    for line, group in lines.groupby(list(ENTRY)):
        for k in range(1, len(group)):
            if not _same_line(group.iloc[0].drop("part"), group.iloc[k].drop("part")):
                raise ValueError(
                    f"{line[1]} has different lines in {group.iloc[0]['part']} and {group.iloc[k]['part']}, and means "
                    "without their rows cannot be pooled. Expected the rows of both: give the results folders, or "
                    "leave one out"
                )
    lines = lines[~lines.duplicated(list(ENTRY))]
    others = lines[lines["method"] != GROUND_TRUTH]
    clips = others["clips"] + others["failures"]
    if clips.nunique() > 1:
        found = [f"{clips[k]} in {others['part'][k]}" for k in clips.drop_duplicates().index]
        raise ValueError(
            f"the lines saw different numbers of clips: {', '.join(found)}. Expected the same clips in all. Finish the "
            "shorter run with its own command, without --limit: bench evaluate"
        )
    return lines.drop(columns="part")


def _without_ranks(lines: pd.DataFrame) -> pd.DataFrame:
    places = {name: pd.array([pd.NA] * len(lines), dtype="Int64") for name in RANKS if name in lines}
    return lines.assign(**places, **{name: "" for name in GROUPS if name in lines})


def merge_leaderboards(*parts: Part) -> pd.DataFrame:
    """One leaderboard of several results, the same whatever their order.

    Args:
        parts: As `read_part` gives them, or made of rows or a leaderboard at hand.

    Returns:
        As `leaderboard` does. Ranks and groups are empty unless every line comes with its rows.

    Raises:
        ValueError: They may not be merged (see the head of this file); names the parts and what differs.
    """
    if not any(len(part.table) for part in parts):
        names = ", ".join(sorted(part.name for part in parts))
        raise ValueError(f"{names}: no row and no line in any of them. Expected some. Make them with: bench evaluate")
    parts = tuple(sorted((part for part in parts if len(part.table)), key=lambda part: part.name))
    _one_value(parts, "protocol", "protocol")
    for name in SCORERS:
        _one_value(parts, name, f"scorer weights {name}")
    _refuse_other_data(parts)
    tables = []
    if any(part.rows is not None for part in parts):
        names = " + ".join(part.name for part in parts if part.rows is not None)
        tables.append(_pooled(parts).assign(part=names))
    ranked = len(tables[0]) if tables else 0
    tables += [part.lines.assign(part=part.name) for part in parts if part.lines is not None]
    lines = pd.concat([table[[*_ordered(table).columns, "part"]] for table in tables], ignore_index=True)
    counts = [name for name in lines if name.endswith("_n")]
    lines[counts] = lines[counts].fillna(0)  # a metric that another part has, and this one has not
    out = _ordered(_one_line_each(lines))
    if len(out) > ranked:
        _log.info("%d lines came without their rows; ranks and groups are left empty", len(out) - ranked)
        return _without_ranks(out)
    return out


def leaderboard_merge(paths: list[Path], *, out: Path) -> int:
    """Join the results of several runs in one leaderboard, if their numbers may share a table.

    Results of another protocol, other scorer weights, another data set or other clips are refused. What is there twice
    counts once. Ranks and groups are left empty if a line came without its rows, which is logged.

    Args:
        paths: Results folders, their clips.csv, or leaderboard.csv files.
        out: The CSV file to write.
    """
    from rich.console import Console

    if out.is_dir() or any(path.exists() and out.resolve() == path.resolve() for path in paths):
        raise ValueError(f"--out {out} is a folder or one of the results. Expected a new file, such as --out all.csv")
    table = merge_leaderboards(*(read_part(path) for path in paths))
    write_atomic(out, csv_text(table))
    console = Console()
    console.print(rich_table(table, str(out)))
    console.print(f"table: {printable(str(out))}", markup=False)
    return 0
