# SPDX-License-Identifier: Apache-2.0
import csv
import math
import os
import resource

import pandas as pd
import pytest

from lipsync_bench.metrics.registry import COLUMNS
from lipsync_bench.papers.leaderboards import methods_in, read_sources
from lipsync_bench.results.errors import OtherResultsError
from lipsync_bench.results.leaderboard import leaderboard, rich_table, write_leaderboard
from lipsync_bench.results.rows import FIELDS, RowFile, read_rows


def row(clip: str, method: str = "wav2lip", sha: str = "aa", **values: object) -> dict[str, object]:
    base = {
        "protocol": "p-v1",
        "method": method,
        "generator_sha256": sha,
        "paste": "box",
        "clip": clip,
        "audio_clip": clip,
        "status": "ok",
        "psnr": 30.0,
    }
    return {**base, **values}


def write(path, *rows):
    file = RowFile(path)
    for item in rows:
        file.append(item)
    file.close()


def test_rows_come_back_as_written(tmp_path):
    write(tmp_path / "clips.csv", row("a/1", psnr=1 / 3, reason='line\nbreak, "quote"', status="failed"), row("a/2"))
    table = read_rows(tmp_path)
    assert list(table.columns) == list(FIELDS)
    assert table["psnr"].tolist() == [1 / 3, 30.0]
    assert table["reason"][0] == 'line break, "quote"'


def test_an_incomplete_line_is_removed_and_its_clip_scored_again(tmp_path):
    path = tmp_path / "clips.csv"
    write(path, row("a/1"), row("a/2"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    file = RowFile(path)
    assert ("p-v1", "wav2lip", "aa", "box", "", "a/1", "a/1") in file
    assert ("p-v1", "wav2lip", "aa", "box", "", "a/2", "a/2") not in file
    file.append(row("a/2"))
    file.close()
    assert path.read_bytes() == whole


def test_blanks_in_a_name_are_kept(tmp_path):
    """Otherwise the row of a method with such a name would belong to no candidate and never be replaced."""
    write(tmp_path / "clips.csv", row("s/1", method="my  method", reason="two\nlines"))
    read = read_rows(tmp_path).iloc[0]
    assert (read["method"], read["reason"]) == ("my  method", "two lines")


def test_a_folder_without_rows_has_no_entry(tmp_path):
    """After a run that was stopped before its first clip."""
    write(tmp_path / "clips.csv")
    assert read_sources(tmp_path) == ()
    assert methods_in(tmp_path) == frozenset()


def test_nothing_is_written_twice(tmp_path):
    path = tmp_path / "clips.csv"
    write(path, row("a/1"))
    before = path.read_bytes()
    write(path, row("a/1", psnr=99.0))
    assert path.read_bytes() == before


def test_a_file_of_another_version_is_refused(tmp_path):
    path = tmp_path / "clips.csv"
    path.write_text("method,clip\n")
    with pytest.raises(OtherResultsError, match=r"another version.*--out"):
        RowFile(path)


def as_earlier(path):
    """The file as versions without `generator_weights` wrote it."""
    at = FIELDS.index("generator_weights")
    lines = list(csv.reader(path.read_text().splitlines()))
    text = "".join(f"{','.join(line[:at] + line[at + 1 :])}\n" for line in lines)
    path.write_text(text)


def test_rows_of_the_version_before_are_read_and_new_ones_appended(tmp_path):
    path = tmp_path / "clips.csv"
    write(path, row("a/1"), row("a/2"), row("a/3"))
    with_it = read_rows(tmp_path)
    as_earlier(path)
    assert "generator_weights" not in path.read_text()
    before = path.read_bytes()
    pd.testing.assert_frame_equal(read_rows(tmp_path), with_it, check_dtype=False)
    assert path.read_bytes() == before  # reading changes nothing
    path.write_bytes(before[:-3])  # killed while it wrote
    file = RowFile(path, holds=lambda row: row["clip"] != "a/2")
    assert {identity[5] for identity in file.done} == {"a/1"}
    file.append(row("a/4", generator_weights="official"))
    file.close()
    rows = read_rows(tmp_path).set_index("clip")
    assert rows["generator_weights"].fillna("").to_dict() == {"a/1": "", "a/4": "official"}
    superseded = list(csv.reader((tmp_path / "superseded.csv").read_text().splitlines()))
    assert superseded[0] == [name for name in FIELDS if name != "generator_weights"]  # as they were
    assert {len(line) for line in superseded} == {len(FIELDS) - 1}


def test_unknown_fields_are_refused(tmp_path):
    file = RowFile(tmp_path / "clips.csv")
    with pytest.raises(ValueError, match="psrn"):
        file.append(row("a/1", psrn=3))
    file.close()


def test_the_rows_of_all_ranks_are_read_once_each(tmp_path):
    write(tmp_path / "clips.rank0.csv", row("a/1"), row("a/3"))
    write(tmp_path / "clips.rank1.csv", row("a/2"), row("a/1"))
    assert read_rows(tmp_path)["clip"].tolist() == ["a/1", "a/2", "a/3"]


def test_reading_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="bench evaluate"):
        read_rows(tmp_path)


def table(*rows: dict[str, object]) -> pd.DataFrame:
    return pd.DataFrame([{name: r.get(name, math.nan) for name in FIELDS} for r in rows])


def test_the_mean_is_over_scored_clips_and_failures_are_counted():
    rows = table(row("a/1", psnr=20.0), row("a/2", psnr=30.0), row("a/3", psnr=math.nan, status="failed"))
    line = leaderboard(rows).iloc[0]
    assert (line["psnr"], line["clips"], line["failures"], line["psnr_n"]) == (25.0, 2, 1, 2)


def test_infinite_values_stay_out_of_the_mean_unless_all_are():
    some = leaderboard(table(row("a/1", psnr=math.inf), row("a/2", psnr=30.0))).iloc[0]
    assert (some["psnr"], some["psnr_n"]) == (30.0, 1)
    every = leaderboard(table(row("a/1", psnr=math.inf))).iloc[0]
    assert every["psnr"] == math.inf


def test_other_weights_make_another_entry():
    board = leaderboard(table(row("a/1", sha="aa"), row("a/1", sha="bb", psnr=40.0)))
    assert board["psnr"].tolist() == [30.0, 40.0]


def test_the_written_leaderboard_is_the_derived_one(tmp_path):
    rows = table(row("a/1", psnr=20.0), row("a/2", psnr=30.0))
    board = write_leaderboard(rows, tmp_path / "leaderboard.csv")
    again = pd.read_csv(tmp_path / "leaderboard.csv")
    assert list(again.columns) == list(board.columns)
    assert again["psnr"].tolist() == board["psnr"].tolist() == [25.0]
    assert again["psnr_low"].tolist() == board["psnr_low"].tolist()


def test_the_printed_table_has_every_measured_metric_and_marks_the_best():
    board = leaderboard(table(row("a/1", psnr=20.0), row("a/1", method="other", psnr=30.0)))
    shown = rich_table(board, "title")
    assert [column.header for column in shown.columns] == ["", "other", "wav2lip"]
    assert [list(column.cells) for column in shown.columns] == [
        ["clips", "PSNR (dB) ↑"],
        ["1", "[bold]30.00[/bold]"],
        ["1", "20.00"],
    ]


def test_the_printed_table_has_the_number_of_clips_in_a_mean():
    board = leaderboard(table(row("a/1", lmd=1.0), row("a/2", lmd=math.nan), row("a/3", status="failed")))
    cells = [list(column.cells) for column in rich_table(board, "title").columns]
    assert cells[1][0] == "2 of 3"
    assert cells[1][-1] == "[bold]1.000 (1 of 2)[/bold]"


def test_column_names_are_unique():
    names = [c.name for c in COLUMNS]
    assert len(names) == len(set(names)) >= 10


def records(path):
    with path.open(newline="") as file:
        return [(line["clip"], line["psnr"]) for line in csv.DictReader(file)]


def test_invalid_rows_are_moved_to_another_file(tmp_path):
    path = tmp_path / "clips.csv"
    write(path, row("a/1"), row("a/2", psnr=20.0), row("a/3", status="failed"))
    write(tmp_path / "clips.rank4.csv", row("b/1"))
    (tmp_path / "leaderboard.csv").touch()
    RowFile(path, lambda line: line["clip"] == "a/1").close()
    assert records(path) == [("a/1", "30.0")]
    assert records(tmp_path / "clips.rank4.csv") == []
    assert sorted(records(tmp_path / "superseded.csv")) == [("a/2", "20.0"), ("b/1", "30.0")]
    assert not (tmp_path / "leaderboard.csv").exists()  # it counted them
    write(path, row("a/2", psnr=25.0))
    assert read_rows(tmp_path)["psnr"].tolist() == [30.0, 25.0]


def test_a_file_that_another_process_appends_to_is_not_replaced(tmp_path):
    path = tmp_path / "clips.csv"
    first = RowFile(path)
    first.append(row("a/1"))
    second = RowFile(path, lambda line: False)
    assert ("p-v1", "wav2lip", "aa", "box", "", "a/1", "a/1") not in second
    second.append(row("a/1", psnr=31.0))
    first.append(row("a/2"))
    first.close()
    second.close()
    assert records(path) == [("a/1", "30.0"), ("a/1", "31.0"), ("a/2", "30.0")]
    assert read_rows(tmp_path)["psnr"].tolist() == [31.0, 30.0]  # the younger one counts


def test_of_two_files_the_one_written_last_counts(tmp_path):
    write(tmp_path / "other" / "clips.csv", row("a/1", psnr=2.0))
    write(tmp_path / "clips.csv", row("a/1", psnr=1.0))
    (tmp_path / "other" / "clips.csv").rename(tmp_path / "clips.rank1.csv")
    for k, name in enumerate(("clips.rank1.csv", "clips.csv")):
        os.utime(tmp_path / name, (k, k))
    assert read_rows(tmp_path)["psnr"].tolist() == [1.0]
    os.utime(tmp_path / "clips.rank1.csv", (9, 9))
    assert read_rows(tmp_path)["psnr"].tolist() == [2.0]


def test_a_partly_written_row_is_not_a_row(tmp_path):
    path = tmp_path / "clips.csv"
    file = RowFile(path)
    file.append(row("a/1"))
    whole = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 10, limits[1]))  # as on a full disk
    try:
        with pytest.raises(OSError, match=r"clips\.csv"):
            file.append(row("a/2"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == whole
    file.append(row("a/2"))
    file.close()
    assert read_rows(tmp_path)["clip"].tolist() == ["a/1", "a/2"]


def test_a_row_is_written_completely_if_the_system_writes_in_parts(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:7]))
    write(tmp_path / "clips.csv", row("a/1"))
    monkeypatch.undo()
    assert read_rows(tmp_path)["clip"].tolist() == ["a/1"]


def test_reading_rows_of_another_version_is_an_error(tmp_path):
    (tmp_path / "clips.csv").write_text("protocol,method,clip\np-v1,mine,a/1\n")
    with pytest.raises(OtherResultsError, match=r"clips\.csv was written by another version"):
        read_rows(tmp_path)


def test_a_pipe_among_the_rows_is_refused(tmp_path):
    os.mkfifo(tmp_path / "clips.csv")
    for read in (RowFile, lambda path: read_rows(path.parent)):
        with pytest.raises(OtherResultsError, match=r"clips\.csv is not a regular file"):
            read(tmp_path / "clips.csv")
