# SPDX-License-Identifier: Apache-2.0
"""Text files of users: whatever lies there, the error is one line that names the file, and comes at once."""

import os
from pathlib import Path

import pytest

from lipsync_bench.datamodules.files.texts import YAML_BYTES, TextError, read_json, read_text, read_yaml

LAUGHS = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 9)
)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"fine\nnot \xe9\n", r"line 2 is not UTF-8 text \(byte 0xe9\)"),
        ("fine".encode("utf-16"), "is UTF-16"),
        (b"a\nb\0c", "line 2 has a NUL byte"),
        (b"x" * 101, "has 101 bytes, more than the 100"),
    ],
)
def test_a_file_that_is_not_text_is_an_error(tmp_path: Path, data: bytes, found: str) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(TextError, match=rf"a\.txt: {found}.*Expected a list\. Mend it$"):
        read_text(tmp_path / "a.txt", "a list", "Mend it", 100)


def test_a_path_that_is_not_a_file_is_an_error_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, error, found in (
        ("", TextError, "is a folder"),
        ("pipe", TextError, "not a regular file"),
        ("none", FileNotFoundError, "no such file"),
        ("pipe/none", FileNotFoundError, "no such file"),
    ):
        with pytest.raises(error, match=found):
            read_text(tmp_path / name, "a list", "Mend it")


def test_a_byte_order_mark_and_an_incomplete_line_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfone\ntw\xc3")
    assert read_text(tmp_path / "a", "a list", "", growing=True) == "one\n"
    with pytest.raises(TextError, match="line 2 is not UTF-8"):
        read_text(tmp_path / "a", "a list", "")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (LAUGHS, "20,000 values"),
        ("a: &a [*a]", "contains itself"),
        ("&a {*a : 1}", "contains itself"),
        ("a: " + "[" * 5000 + "]" * 5000, "more than 40 levels"),
        ("- " * 50_000, "more than 40 levels"),
        ("- 1\n" * 30_000, "20,000 values"),
        ("a: " + "x" * YAML_BYTES, "bytes, more than"),
        ("size: 1\nsize: 2", r"two values for \['size'\]"),
        ("a: " + "1" * 5000, "digits"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a: *b", "undefined alias"),
        ("{[1]: 2}", "unhashable"),
    ],
)
def test_a_yaml_bomb_or_fault_is_refused_at_once(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    for printed in (False, True):
        if printed and found in ("digits", "could not determine a constructor", "unhashable"):
            continue
        with pytest.raises(TextError, match=found) as error:
            read_yaml(tmp_path / "a.yaml", "a table", "Mend it", printed=printed)
        assert str(error.value).startswith(f"{tmp_path / 'a.yaml'}: ")
        assert "\n" not in str(error.value)


def test_aliases_and_merges_of_a_sensible_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]\nd: 1.50\n")
    assert read_yaml(tmp_path / "a.yaml", "", "") == {
        "a": {"x": 1},
        "b": {"x": 1, "y": 2},
        "c": [{"x": 1}, {"x": 1}],
        "d": 1.5,
    }
    assert read_yaml(tmp_path / "a.yaml", "", "", printed=True)["d"] == "1.50"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"a": NaN}', "[" * 100_000, '{"a":' * 100_000, '{"a": ' + "1" * 5000 + "}"]
)
def test_a_json_file_of_another_kind_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(TextError, match=r"a\.json: .*Expected a manifest\. Mend it$"):
        read_json(tmp_path / "a.json", "a manifest", "Mend it")
