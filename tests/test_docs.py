# SPDX-License-Identifier: Apache-2.0
"""The pages of docs/: their tables are those of the code, and they leave out no metric and no public name."""

import ast
import json
import re
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from benchmarks.draw_metric_curves import drawn_metrics
from lipsync_bench.cli.doc_tables import documents, renewed
from lipsync_bench.evaluation.task.protocol import list_protocols
from lipsync_bench.metrics.registry import METRICS
from lipsync_bench.version import __version__

ROOT = Path(__file__).parents[1]
NAMES = [metric.module.rpartition(".")[2] for metric in METRICS if metric.entry is None]
API = {path: re.findall(r"^::: (\S+)", path.read_text(), re.MULTILINE) for path in (ROOT / "docs/api").glob("*.md")}


def test_tables_are_those_of_the_code(monkeypatch):
    """If it fails, run: python -m lipsync_bench.cli.doc_tables"""
    monkeypatch.chdir(ROOT)
    pages = documents()
    assert len(pages) >= len(NAMES) + 5
    assert [str(page) for page in pages if renewed(page) != page.read_text(encoding="utf-8")] == []


def test_the_table_of_methods_has_the_sizes_of_the_papers():
    row = next(line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| [G4G]"))
    assert "`g4g`, 416 x 320 |" in row  # the size of the first stage, 104 x 80, is not that of the method


def test_an_unknown_table_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- table: recipes -->\n\n<!-- end of table -->\n")
    with pytest.raises(ValueError, match=r"page\.md: <!-- table: recipes --> found\. Expected one of metrics, "):
        renewed(page)


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_has_a_page(name: str):
    page = (ROOT / "docs" / "metrics" / f"{name}.md").read_text()
    assert f"<!-- table: metric {name} -->" in page
    assert page.index("## What it sees") < page.index("## What it does not see")
    assert f"({name}.md)" in (ROOT / "docs" / "metrics" / "index.md").read_text()
    plot = f"images/{name}.svg"
    assert (plot in page) == (ROOT / "docs" / "metrics" / plot).is_file() == (name in drawn_metrics())


def test_every_protocol_is_in_the_table_of_protocols():
    page = (ROOT / "docs" / "protocols.md").read_text()
    assert [name for name in list_protocols() if f"| `{name}` |" not in page] == []


@pytest.mark.parametrize("package", ["evaluation", "papers", "report", "models"])
def test_the_api_pages_have_all_public_names(package: str):
    module = import_module(f"lipsync_bench.{package}")
    shown = API[ROOT / "docs" / "api" / f"{package}.md"]
    assert sorted(shown) == sorted(f"{module.__name__}.{name}" for name in module.__all__)


@pytest.mark.parametrize("name", sorted({name for names in API.values() for name in names}))
def test_what_the_api_pages_name_exists(name: str):
    module, _, member = name.rpartition(".")
    assert hasattr(import_module(module), member)


def test_every_reason_not_to_compare_with_a_paper_is_explained():
    code = (ROOT / "lipsync_bench" / "papers" / "comparable.py").read_text()
    reasons = set(re.findall(r'f"([a-z][a-z ]{9,}?)(?: \(|,)', code))
    assert len(reasons) >= 10
    page = (ROOT / "docs" / "evaluation.md").read_text()
    first = ", ".join(re.findall(r"^\| ([^|]+) \|", page, re.MULTILINE))
    assert [reason for reason in sorted(reasons) if reason not in first] == []


def test_the_citation_names_this_version():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__


def test_the_notebook_has_ten_cells_whose_imports_exist():
    cells = json.loads((ROOT / "docs" / "first_steps.ipynb").read_text())["cells"]
    assert len(cells) == 10
    assert not any(cell.get("outputs") for cell in cells)
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    nodes = [node for cell in code for node in ast.walk(ast.parse(cell)) if isinstance(node, ast.ImportFrom)]
    assert len(nodes) >= 5
    for node in nodes:
        module = import_module(node.module or "")
        assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
