# SPDX-License-Identifier: Apache-2.0
"""The pages of docs/methods/: what they name in the code exists, and they leave out no method, protocol or table."""

import importlib
import inspect
import re
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml

from lipsync_bench.evaluation.task.protocol import list_protocols, load_protocol
from lipsync_bench.models import list_methods

ROOT = Path(__file__).parents[1]
MADE = re.compile(r"<!-- table: .*?<!-- end of table -->", re.DOTALL)  # tested in test_docs.py
PAGES = {
    path.stem: MADE.sub("", path.read_text())
    for path in sorted((ROOT / "docs" / "methods").glob("*.md"))
    if path.stem != "index"
}
HEADER = ["paper's statement", "where the project does it", "deviation, and where it is declared"]
OURS = {name: kind for name, kind in list_methods().items() if kind.__module__.startswith("lipsync_bench.models.")}
PAPERS = {name: load_protocol(name).paper for name in list_protocols() if load_protocol(name).paper}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("| ").split(" | ")]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


ROWS = [
    pytest.param(*cells(line), id=f"{page}:{number}")
    for page, text in PAGES.items()
    for number, line in enumerate(text.splitlines(), 1)
    if line.startswith("| ") and cells(line) != HEADER
]


def member(found: Any, name: str) -> Any:
    """The attribute, key or constructor's argument of that name."""
    if isinstance(found, dict):
        return found[name]
    if hasattr(found, name):
        return getattr(found, name)
    return inspect.signature(found).parameters[name]


def loaded(path: str) -> Any:
    assert (ROOT / path).is_file(), path
    if path.endswith(".yaml"):
        return yaml.safe_load((ROOT / path).read_text())
    folder, _, _ = path.partition("/")
    package = "" if folder == "lipsync_bench" else "lipsync_bench."
    return importlib.import_module(package + path.removesuffix(".py").replace("/", "."))


def test_every_table_has_the_three_columns():
    heads = [line for text in PAGES.values() for line in text.splitlines() if set(line) == {"|", "-"}]
    assert len(heads) >= len(PAGES) >= 5
    assert sum(cells(line) == HEADER for text in PAGES.values() for line in text.splitlines()) == len(heads)
    assert len(ROWS) > 100


@pytest.mark.parametrize(("statement", "where", "deviation"), ROWS)
def test_what_a_row_names_exists(statement: str, where: str, deviation: str):
    file: Any = None
    for name in quoted(where):
        if "/" in name:
            file = loaded(name)
        else:
            assert file is not None, f"{name}: no file before it"
            reduce(member, name.split("."), file)
    assert (file is None) == (where == "not here")
    assert re.match(r"(as stated|differs: |not here)", deviation)
    declared = re.findall(r"\(declared in ([^)]+)\)", deviation)
    assert declared or not deviation.startswith("differs"), "a deviation that nothing declares"
    for path in (path for place in declared for path in quoted(place)):
        assert (ROOT / path).is_file(), path


def test_every_method_of_ours_has_a_page():
    assert len(OURS) >= 5
    for name, kind in OURS.items():
        page = PAGES[kind.__module__.split(".")[2]]
        assert f"`{name}`" in page
        assert f"`{kind.__name__}" in page


@pytest.mark.parametrize("name", PAPERS)
def test_every_protocol_of_a_paper_is_on_its_page(name: str):
    assert f"`{name}`" in PAGES[PAPERS[name]]


@pytest.mark.parametrize("table", [path.stem for path in sorted((ROOT / "experiments" / "tables").glob("*.yaml"))])
def test_every_table_of_a_paper_is_on_its_page(table: str):
    assert f"experiments/tables/{table}.yaml" in PAGES[table.rpartition("-")[0]]


def test_every_experiment_that_a_page_trains_exists():
    named = {name for text in PAGES.values() for name in re.findall(r"-c ([\w/]+)", text)}
    assert len(named) >= 15
    assert [name for name in sorted(named) if not (ROOT / "experiments" / f"{name}.yaml").is_file()] == []
