# SPDX-License-Identifier: Apache-2.0
"""The one reader of a results folder."""

import math
import os
from pathlib import Path

import pandas as pd
import pytest

from lipsync_bench.papers import load_table, read_sources
from lipsync_bench.report.boards import boards
from lipsync_bench.report.contents import read_results
from lipsync_bench.results.folder import ResultsFolder, read_board
from lipsync_bench.results.leaderboard import write_leaderboard
from lipsync_bench.results.manifest import Run, session
from lipsync_bench.results.merge import read_input
from lipsync_bench.results.rows import RowFile, read_rows


def write_rows(folder: Path, psnr: float = 30.0) -> None:
    file = RowFile(folder / "clips.csv")
    for method in ("ground_truth", "NA", "wav2lip"):
        for k in range(3):
            row = {"protocol": "hyperlips-v2", "method": method, "clip": f"nan/{k}", "audio_clip": f"nan/{k}"}
            value = math.inf if method == "ground_truth" else psnr + k / 7
            file.append({**row, "status": "ok", "frames": 25, "psnr": value, "package_version": "0.1.0"})
    file.append({**row, "clip": "nan/3", "audio_clip": "nan/3", "status": "failed", "reason": "no face"})
    file.close()


@pytest.fixture
def results(tmp_path) -> Path:
    write_rows(tmp_path)
    write_leaderboard(read_rows(tmp_path), tmp_path / "leaderboard.csv")
    return tmp_path


def test_text_cells_are_text_and_missing_numbers_nan(results):
    folder = ResultsFolder(results)
    for rows in (folder.rows(), read_input(results / "clips.csv").rows):
        assert set(rows["method"]) == {"ground_truth", "NA", "wav2lip"}  # a method may be called so
        for name in ("generator_sha256", "speaker", "reason", "fid_sha256", "lse_curve_wav2lip_lrs"):
            assert rows[name].map(type).eq(str).all()
        assert rows["psnr"].isna().sum() == 1
        assert rows["psnr"].max() == math.inf
    board = folder.board().set_index("method")
    assert board.loc["ground_truth", ["generator_sha256", "psnr_group", "lse_sha256"]].tolist() == ["", "", ""]
    assert pd.isna(board.loc["ground_truth", "psnr_rank"])
    assert board.loc["NA", "psnr_rank"] == 1
    assert "NA" in read_sources(results)[0].names


def test_the_read_leaderboard_is_the_derived_one(results):
    folder = ResultsFolder(results)
    assert folder.board_is_current
    read = folder.board()
    folder.board_file.unlink()
    assert not folder.board_is_current
    pd.testing.assert_frame_equal(read, folder.board(), check_dtype=False, check_exact=True)


def test_rows_newer_than_the_leaderboard_count_for_all_readers(results):
    folder = ResultsFolder(results)
    (results / "clips.csv").unlink()
    write_rows(results, psnr=40.0)
    os.utime(folder.board_file, (1, 1))
    assert not folder.board_is_current
    assert folder.board().set_index("method").loc["wav2lip", "psnr"] == pytest.approx(40 + 1 / 7)
    (source,) = read_sources(results)
    row = next(row for row in load_table("hyperlips-1").rows if row.name == "wav2lip")
    assert source.score(load_table("hyperlips-1"), row, "psnr").value == pytest.approx(40 + 1 / 7)
    (board,) = boards(read_results(results))
    assert {entry.cells[0].text for entry in board.competitors} == {"40.14"}
    os.utime(folder.board_file)
    assert folder.board_is_current


def test_missing_files_are_empty_results(tmp_path):
    folder = ResultsFolder(tmp_path / "none")
    assert not folder.is_begun
    assert (folder.row_files, folder.manifest(), folder.identity()) == ([], None, {})
    with pytest.raises(FileNotFoundError, match=r"holds no clips\*\.csv"):
        folder.board()


def test_rows_or_a_leaderboard_alone_are_a_begun_folder(results):
    (results / "leaderboard.csv").rename(results / "kept.csv")
    assert ResultsFolder(results).is_begun
    (results / "clips.csv").unlink()
    assert not ResultsFolder(results).is_begun
    (results / "kept.csv").rename(results / "leaderboard.csv")
    assert ResultsFolder(results).is_begun
    assert set(ResultsFolder(results).board()["method"]) == {"ground_truth", "NA", "wav2lip"}


def test_a_manifest_has_what_the_rows_share(results):
    with session(results, Run({"dataset": "lrs2", "split": "test"}, {}, {}, {}, {}, command=["bench"])):
        pass
    folder = ResultsFolder(results)
    assert folder.identity() == {"dataset": "lrs2", "split": "test"}
    assert folder.manifest()["sessions"][0]["outcome"] == "done"
    (results / "manifest.json").write_text('{"schema": 1}')
    with pytest.raises(ValueError, match=r"is not a manifest of results.*bench evaluate"):
        folder.identity()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"leaderboard\.csv: has no header"),
        ("method,psnr\nwav2lip,30\n", r"has no column protocol, clips, failures.*bench evaluate"),
        (
            "protocol,method,clips,failures,psnr_rank\np-v1,wav2lip,3,0,inf\n",
            r"'inf' in the column psnr_rank, not a whole number",
        ),
    ],
)
def test_a_file_that_is_not_a_leaderboard_is_refused(results, text, message):
    (results / "leaderboard.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        ResultsFolder(results).board()


def test_a_leaderboard_without_entries_is_refused(results):
    path = results / "leaderboard.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(ValueError, match=r"has no entry\. Expected a leaderboard\.csv"):
        read_board(path)


def test_an_empty_row_file_is_not_a_column_of_a_papers_table(tmp_path):
    RowFile(tmp_path / "clips.csv").close()
    assert read_sources(tmp_path) == ()
