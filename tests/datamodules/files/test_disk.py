# SPDX-License-Identifier: Apache-2.0
"""Atomic files, temporary names, printable names, and cells that no spreadsheet runs."""

import errno
import os
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lipsync_bench.datamodules.files import disk as files
from lipsync_bench.datamodules.files.csv_files import are_numbers, quoted, unquoted, write_csv
from lipsync_bench.datamodules.files.disk import (
    atomic_path,
    is_leftover,
    printable,
    read_arrays,
    remove_leftovers,
    temporary_path,
    write_arrays,
)
from tests.leftovers import left_by_the_dead

WEEK_S = 7 * 86400


def test_only_files_of_ended_processes_of_this_host_are_removed(tmp_path: Path) -> None:
    ours, dead = temporary_path(tmp_path / "a.mp4"), left_by_the_dead(tmp_path / "a.mp4")
    given_anew = Path(str(ours).replace(f"-{os.getpid()}-", f"-{os.getpid()}-1"))  # same id, another start
    other_host = Path(str(dead).replace(f".tmp-{files._place()}", ".tmp-0123456789ab"))
    old, notes = Path(f"{other_host}7"), tmp_path / ".a.tmp-notes"
    for path in (ours, dead, given_anew, other_host, old, notes):
        path.write_text("half")
    os.utime(old, (time.time() - WEEK_S - 60,) * 2)
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([ours, other_host, notes])


def test_containers_and_boots_are_other_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = left_by_the_dead(tmp_path / "a")
    dead.touch()
    assert is_leftover(dead)
    monkeypatch.setattr(files, "_place", lambda: "0123456789ab")
    assert not is_leftover(dead)


def test_a_long_name_leaves_room_for_a_temporary_one(tmp_path: Path) -> None:
    for path in (tmp_path / ("ü" * 120), tmp_path / ("x" * 255)):
        with atomic_path(path) as temporary:
            temporary.write_text("whole")
        assert path.read_text() == "whole"


def fail(path: Path, error: Exception, size: int = 0) -> None:
    with atomic_path(path, size) as temporary:
        temporary.touch()
        raise error


def test_a_system_error_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.bin'") as error:
        fail(tmp_path / "a.bin", OSError(errno.ENOSPC, "of a call without a name"))
    assert error.value.filename == str(tmp_path / "a.bin")
    with pytest.raises(FileNotFoundError, match="'source'"):
        fail(tmp_path / "a.bin", FileNotFoundError(errno.ENOENT, "of another file", "source"))
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file"):
        fail(tmp_path / "file" / "a.bin", ValueError())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_that_a_library_hides_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(OSError, match="No space left"):
            fail(tmp_path / "a", RuntimeError("in words of its own"))
    with pytest.raises(RuntimeError, match="a fault"):
        fail(tmp_path / "a", RuntimeError("a fault"))
    with pytest.raises(OSError, match=r"'.*a'"):  # more than any disk has
        fail(tmp_path / "a", ValueError(), size=1 << 62)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Zoë 明 👩‍💻.mp4", "Zoë 明 👩‍💻.mp4"),
        ("a\x1b[31mred", "a\\x1b[31mred"),
        ("a\nerror: b\r", "a\\nerror: b\\r"),
        ("a\u202egpj.exe", "a\\u202egpj.exe"),
        ("a\udcff", "a\\udcff"),
        ("\x9b31m\u2028", "\\x9b31m\\u2028"),
    ],
)
def test_characters_that_control_a_terminal_are_escaped(name: str, shown: str) -> None:
    assert printable(name) == shown
    printable(name).encode()


@pytest.mark.parametrize("text", ["=1+1", "+1+1.mp4", "-2+3", "@SUM(1)", "\t=1", "'=1", "''@x", "=", "＝1"])
def test_a_formula_is_quoted_and_read_back(text: str, tmp_path: Path) -> None:
    assert quoted(text) == f"'{text}"
    assert unquoted(quoted(text)) == text
    write_csv(tmp_path / "a.csv", ["name"], [[text]])
    assert f"'{text}" in (tmp_path / "a.csv").read_text()


@pytest.mark.parametrize("text", ["-1.5", "+3", "-1e-05", "-0.1 0.2 nan", "a=b", "'quoted'", "it's", "", "a-b"])
def test_numbers_and_other_texts_stay(text: str) -> None:
    assert quoted(text) == text
    assert unquoted(text) == text
    assert are_numbers("-0.1 nan inf")
    assert not are_numbers("1 x")


def test_arrays_are_read_within_the_size_of_their_file(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_arrays(path, a=np.arange(3), b="text")
    found = read_arrays(path)
    np.testing.assert_array_equal(found["a"], [0, 1, 2])
    assert found["b"] == "text"
    whole = path.read_bytes()
    np.savez_compressed(path, a=np.zeros(10_000_000))
    bomb = path.read_bytes()
    path.unlink()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00\x10\x00{'shape': 'x'}  \n")
    for data in (bomb, path.read_bytes(), whole[:-20], b"", b"text"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"a\.npz: no arrays"):
            read_arrays(path)


def test_a_reader_that_seeks_before_the_start_means_a_damaged_file(tmp_path: Path) -> None:
    """The system's error, an invalid argument, has no name."""
    path = tmp_path / "a.npz"
    files.write_arrays(path, x=np.zeros(3))
    content = path.read_bytes()
    path.write_bytes(content[40:])  # the directory at the end counts from where the file began
    with pytest.raises(ValueError, match=r"a\.npz: no arrays"):
        files.read_arrays(path)
