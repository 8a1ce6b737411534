# SPDX-License-Identifier: Apache-2.0
"""CSV files of another shape: each is an error that names the file and the line."""

from pathlib import Path

import pandas as pd
import pytest

from lipsync_bench.results.csv_tables import csv_text, read_cells, read_table
from lipsync_bench.results.errors import OtherResultsError
from lipsync_bench.results.leaderboard import read_leaderboard
from lipsync_bench.results.rows import FIELDS, RowFile, read_rows


def read(path: Path) -> pd.DataFrame:
    return read_table(path, "a table", "Mend it", texts=["name"], numbers=["x"], counts=["n", "k"], filled=["name"])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "has no header"),
        ("\n\n", "has no header"),
        ("name,x\na,1,2\n", "line 2 has 3 cells, the header 2"),
        ("name,x\na\n", "line 2 has 1 cells, the header 2"),
        ("name,name\na,b\n", "two columns are called 'name'"),
        ("x\n1\n", "has no column name"),
        ("name,x\n,1\n", "line 2 has an empty cell in the column name"),
        ("name,x\na,1\nb,one\n", "line 3 has 'one' in the column x, not a number"),
        ("name,x\na,True\n", "line 2 has 'True' in the column x, not a number"),
        ("name,n\na,-1\n", "in the column n, not a whole number"),
        ("name,n\na,1.5\n", "in the column n, not a whole number"),
        ("name,n\na,1e400\n", "in the column n, not a whole number"),
        ('name,x\na,"1\n', "is not CSV"),
        ("name,x\na," + "1" * 200_000 + "\n", "is not CSV"),
    ],
)
def test_a_table_of_another_shape_is_refused(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"a\.csv: .*{found}.*Expected a table\. Mend it$"):
        read(tmp_path / "a.csv")


def test_a_correct_table_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfname,x,n,k\r\n'=1+1,-1.5,2,\r\nNA,,0,3\r\n")
    table = read(tmp_path / "a.csv")
    assert table["name"].tolist() == ["=1+1", "NA"]
    assert table["x"][0] == -1.5
    assert table["x"].isna().tolist() == [False, True]
    assert table["k"].isna().tolist() == [True, False]
    assert csv_text(table) == "name,x,n,k\n'=1+1,-1.5,2,\nNA,,0,3.0\n"
    assert list(read_cells(tmp_path / "a.csv", "", ""))[1] == ["=1+1", "-1.5", "2", ""]


def row(**cells: object) -> dict[str, object]:
    return {"protocol": "p-v1", "method": "m", "clip": "a/1", "audio_clip": "a/1", "status": "ok", **cells}


def test_rows_of_names_like_formulas_are_found_again(tmp_path: Path) -> None:
    rows = RowFile(tmp_path / "clips.csv")
    rows.append(row(method="=x", clip="+a/1", psnr=-1.5, expert_curve="-0.1 0.2 nan"))
    rows.close()
    cells = (tmp_path / "clips.csv").read_text().splitlines()[1].split(",")
    assert "'=x" in cells
    assert "'+a/1" in cells
    assert "-1.5" in cells
    assert "-0.1 0.2 nan" in cells
    again = RowFile(tmp_path / "clips.csv")
    assert ("p-v1", "=x", "", "", "", "+a/1", "a/1") in again
    again.close()
    table = read_rows(tmp_path)
    assert (table["method"][0], table["clip"][0], table["psnr"][0]) == ("=x", "+a/1", -1.5)


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        ({"status": "fine"}, "has the status 'fine'"),
        ({"method": ""}, "empty cell in the column method"),
        ({"psnr": "high"}, "'high' in the column psnr"),
        ({"expert_curve": "0.1 x"}, "something else than numbers in expert_curve"),
    ],
)
def test_rows_with_other_values_name_the_file(tmp_path: Path, cells: dict[str, object], found: str) -> None:
    rows = RowFile(tmp_path / "clips.csv")
    rows.append(row(**cells))
    rows.close()
    with pytest.raises(OtherResultsError, match=rf"clips\.csv: .*{found}"):
        read_rows(tmp_path)


@pytest.mark.parametrize("data", [b"\xff\n", b"a,b\n", b"," * len(FIELDS) + b"\n"])
def test_lines_of_another_kind_among_rows_name_the_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "clips.csv"
    path.write_bytes(",".join(FIELDS).encode() + b"\n" + data)
    with pytest.raises(OtherResultsError, match=r"clips\.csv"):
        read_rows(tmp_path)


@pytest.mark.parametrize("data", [b"a,b\n", b'"\n'])
def test_an_evaluation_removes_incomplete_lines_and_logs_it(
    tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "clips.csv"
    path.write_bytes(",".join(FIELDS).encode() + b"\n" + data)
    rows = RowFile(path)
    rows.append(row())
    rows.close()
    assert "clips.csv: 1 lines are not complete rows and are removed" in caplog.text
    assert len(read_rows(tmp_path)) == 1


def test_an_evaluation_does_not_append_to_a_file_of_other_bytes(tmp_path: Path) -> None:
    path = tmp_path / "clips.csv"
    path.write_bytes(",".join(FIELDS).encode() + b"\n\xff\n")
    with pytest.raises(ValueError, match=r"clips\.csv: line 2 is not UTF-8"):
        RowFile(path)


def test_a_line_that_is_being_written_is_not_a_row_yet(tmp_path: Path) -> None:
    rows = RowFile(tmp_path / "clips.csv")
    rows.append(row())
    rows.close()
    with (tmp_path / "clips.csv").open("ab") as file:
        file.write(b"p-v1,m,\xc3")
    assert len(read_rows(tmp_path)) == 1


def test_a_leaderboard_without_the_numbers_of_a_metric_is_refused(tmp_path: Path) -> None:
    (tmp_path / "leaderboard.csv").write_text("protocol,method,clips,failures,psnr\np-v1,m,3,0,20.5\n")
    with pytest.raises(ValueError, match=r"leaderboard\.csv has no column psnr_low, psnr_high, psnr_n"):
        read_leaderboard(tmp_path / "leaderboard.csv")
