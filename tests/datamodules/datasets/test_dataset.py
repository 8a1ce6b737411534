# SPDX-License-Identifier: Apache-2.0
"""What the files of data sets say of where their videos lie, and which videos are found there."""

from pathlib import Path

import pytest

from lipsync_bench.datamodules.datasets import dataset
from lipsync_bench.datamodules.datasets.dataset import Dataset, dataset_names, find_dataset
from lipsync_bench.datamodules.prepare.sources import find_sources, source_root


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a test puts files of data sets."""
    path = tmp_path / "sets"
    path.mkdir()
    monkeypatch.setattr(dataset, "FOLDERS", [*dataset.FOLDERS, str(path)])
    return path


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_literals_are_read_and_nothing_is_run(folder: Path) -> None:
    (folder / "grid.py").write_text(
        "import package_that_nobody_has\n\nclass Grid(Anything):\n"
        '    name: str = "grid"\n    videos = "s/{speaker}/{clip}"\n    lists = True\n    size = 3 + other\n'
    )
    (folder / "deep").mkdir()
    (folder / "deep" / "datamodule.py").write_text('class Deep(X):\n    name = "deep"\n    videos = ""\n')
    (folder / "deep" / "parts.py").write_text('class Part(X):\n    name = "part"\n    videos = ""\n')
    (folder / "stills.py").write_text('class Stills(X):\n    name = "stills"\n')
    assert find_dataset("grid") == Dataset("grid", "s/{speaker}/{clip}", "", True)
    assert set(dataset_names()) == {"deep", "folder", "grid", "hdtf", "hdtf_512", "lrs2", "mead", "synthetic"}
    with pytest.raises(ValueError, match=r"dataset 'grids', expected one of deep, folder, grid, .*--dataset"):
        find_dataset("grids")


def test_what_is_no_literal_and_what_is_there_twice_is_named(folder: Path) -> None:
    (folder / "a.py").write_text('class A(X):\n    name = "a"\n    videos = ROOT + "/{clip}"\n')
    with pytest.raises(ValueError, match=r"a\.py: A\.videos is ROOT \+ '/\{clip\}'\. Expected a literal"):
        dataset_names()
    (folder / "a.py").write_text('class A(X):\n    name = "mead"\n    videos = ""\n')
    with pytest.raises(ValueError, match=r"another data set is called 'mead' too\. Expected one"):
        dataset_names()


@pytest.mark.parametrize("videos", ["s{speaker}/{clip}", "{speaker}/clips", "{clip}", "{speaker}/{speaker}/{clip}"])
def test_a_layout_has_one_speaker_and_ends_with_the_clip(videos: str) -> None:
    with pytest.raises(ValueError, match=r"data set x: videos is '.*'\. Expected a path of folders, one of them \{sp"):
        Dataset("x", videos)
    with pytest.raises(ValueError, match=r"\* for any folder where no lists"):
        Dataset("x", "{speaker}/*/{clip}", lists=True)


def test_only_folders_of_the_layout_are_entered(folder: Path, tmp_path: Path) -> None:
    (folder / "films.py").write_text(
        'class Films(X):\n    name = "films"\n    videos = "raw/{speaker}/*/{clip}"\n    audio = "wav/{clip}.wav"\n'
    )
    root = tmp_path / "in"
    touch(root, "raw/anna/1999/b c.mp4", "raw/anna/1999/a.mkv", "raw/anna/x.mp4", "raw/anna/1999/cut/y.mp4", "z.mp4")
    touch(root, "raw/.git/1999/h.mp4", "raw/bob/2001/d.mp4", "raw/out/2001/o.mp4", "wav/a.wav")
    found = find_sources(root, "films", exclude=[root / "raw" / "out"])
    assert [(item.id, item.path.relative_to(root).as_posix()) for item in found] == [
        ("anna/a", "raw/anna/1999/a.mkv"),
        ("anna/b_c", "raw/anna/1999/b c.mp4"),
        ("bob/d", "raw/bob/2001/d.mp4"),
    ]
    assert [item.audio for item in found] == [root / "wav" / "a.wav", None, None]
    assert source_root(root / "raw", "films") == root
    with pytest.raises(FileNotFoundError, match=r"no folder raw\. Expected raw/<speaker>/\*/<clip>\.mp4"):
        find_sources(tmp_path / "sets", "films")
    touch(tmp_path / "other", "raw/anna/x.mp4")
    with pytest.raises(FileNotFoundError, match="films: no videos in"):
        find_sources(tmp_path / "other", "films")


def test_an_empty_list_is_a_list(tmp_path: Path) -> None:
    touch(tmp_path, "main/a/1.mp4", "train.txt")
    with pytest.raises(FileNotFoundError, match="lrs2: no videos in"):
        find_sources(tmp_path, "lrs2")
