# SPDX-License-Identifier: Apache-2.0
"""What `bench report` does to the folder it writes into, and the command itself."""

import configparser
import os
from pathlib import Path

import pytest

from lipsync_bench import report
from lipsync_bench.datamodules.files.disk import temporary_path
from lipsync_bench.datamodules.media.video_files import REPORT_MARKER
from lipsync_bench.report import charts, site, write_report
from tests.commands import run_bench
from tests.leftovers import left_by_the_dead
from tests.lipsync_bench.report.report_fixture import clip_ids, make_results, write_rows


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return make_results(tmp_path_factory.mktemp("results") / "demo", count=6)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def _few_drawings(monkeypatch):
    """Most of a small report's time goes into drawings, of which nothing here depends."""
    monkeypatch.setattr(charts, "_distributions", lambda *_: [])


def test_an_older_report_is_replaced_completely(results, tmp_path):
    write_report(results, tmp_path / "a")
    (tmp_path / "a" / "clips" / "gone.html").write_text("of a clip that is no more")
    write_report(results, tmp_path / "a")
    assert not (tmp_path / "a" / "clips" / "gone.html").exists()
    assert (tmp_path / "a" / REPORT_MARKER).is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_empty_folder_is_used_and_any_other_refused(results, tmp_path):
    (tmp_path / "empty").mkdir()
    write_report(results, tmp_path / "empty")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"mine is not empty and was not made by bench report\. Expected .* --out"):
        write_report(results, tmp_path / "mine")
    assert files(tmp_path / "mine") == {"thesis.tex": b"years of work"}
    with pytest.raises(ValueError, match=r"is a file\. Expected a folder"):
        write_report(results, tmp_path / "mine" / "thesis.tex")


def test_results_inside_an_older_report_are_not_replaced_with_it(results, tmp_path):
    write_report(results, tmp_path / "a")
    inside = make_results(tmp_path / "a" / "results", count=5)
    with pytest.raises(ValueError, match=r"holds the results themselves\. Expected"):
        write_report(inside, tmp_path / "a")
    assert (inside / "clips.csv").is_file()
    assert write_report(inside, inside / "report").is_file()


def test_a_run_that_fails_leaves_the_older_report(results, tmp_path, monkeypatch):
    write_report(results, tmp_path / "a")
    before = files(tmp_path / "a")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(site, "_write_clip_pages", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_report(results, tmp_path / "a")
    assert files(tmp_path / "a") == before
    with pytest.raises(KeyboardInterrupt):
        write_report(results, tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_a_killed_run_left_is_removed(results, tmp_path):
    dead, alive = left_by_the_dead(tmp_path / "a"), temporary_path(tmp_path / "a")
    for folder in (dead, alive, tmp_path / ".a.tmp-notes"):
        folder.mkdir()
        (folder / "index.html").write_text("half")
    write_report(results, tmp_path / "a")
    assert not dead.exists()
    assert alive.is_dir()
    assert (tmp_path / ".a.tmp-notes").is_dir()


def test_results_without_rows_are_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no clips\*\.csv\. Expected a results folder; make one with"):
        write_report(tmp_path, tmp_path / "out")
    write_rows(tmp_path, [])
    with pytest.raises(FileNotFoundError, match=r"has no rows\. Expected at least one row"):
        write_report(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_a_leaderboard_is_refused(tmp_path):
    write_rows(tmp_path, clip_ids(5))
    (tmp_path / "leaderboard.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"has no column protocol, method.* Remove the file"):
        write_report(tmp_path, tmp_path / "out")


def test_a_video_is_copied_where_no_link_can_be_made(tmp_path, monkeypatch):
    folder = make_results(tmp_path / "r", count=7, videos=True)

    def other_device(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_device)
    write_report(folder, tmp_path / "out")
    copies = sorted(path.read_bytes() for path in (tmp_path / "out" / "videos").rglob("*.mp4"))
    originals = sorted(path.read_bytes() for path in (folder / "videos").rglob("*.mp4"))
    assert copies == originals
    assert len(copies) == 6


def test_an_installation_holds_templates_styles_and_scripts():
    folder = Path(report.__file__).parent
    settings = configparser.ConfigParser()
    settings.read(folder.parent.parent / "setup.cfg")
    patterns = settings["options.package_data"]["lipsync_bench.report"].split(",")
    packed = {path for pattern in patterns for path in folder.glob(pattern.strip())}
    there = {path for kind in ("html", "css", "js") for path in folder.rglob(f"*.{kind}")}
    assert packed == there
    assert len(there) == 15


def test_the_command_takes_the_results_by_position(results, tmp_path):
    assert run_bench("report", results, "--out", tmp_path / "out", "--tables", "[g4g-2]", "--title", "T") == 0
    assert "<title>Leaderboard – T</title>" in (tmp_path / "out" / "index.html").read_text()
    assert 'id="g4g-2"' in (tmp_path / "out" / "papers.html").read_text()
    assert run_bench("report", tmp_path, "--out", tmp_path / "out") == 1
