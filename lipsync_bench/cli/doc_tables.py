# SPDX-License-Identifier: Apache-2.0
"""Tables of the documentation that are made of what the package knows of itself: metrics, methods, data sets, licences.

`python -m lipsync_bench.cli.doc_tables`, typed in a checkout, renews each between a comment `<!-- table: KIND NAME -->`
and `<!-- end of table -->`.
"""

import inspect
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

from lipsync_bench.datamodules.clip_datamodule import ClipDataModule
from lipsync_bench.datamodules.datasets.dataset import dataset_names, find_dataset
from lipsync_bench.datamodules.files.disk import write_atomic
from lipsync_bench.datamodules.files.texts import read_yaml
from lipsync_bench.datamodules.recipes.recipe import Recipe
from lipsync_bench.datamodules.weights.registry import WeightFile, official_files
from lipsync_bench.evaluation.networks import way_to
from lipsync_bench.evaluation.task.protocol import list_protocols, load_protocol
from lipsync_bench.experiment_files import experiment_names, installed_experiments, run_file
from lipsync_bench.metrics.metric import Column, Description
from lipsync_bench.metrics.registry import METRICS
from lipsync_bench.models import TalkingFaceModule, list_methods
from lipsync_bench.papers import list_tables
from lipsync_bench.recipes import recipe_named
from lipsync_bench.weights import KINDS

_PLACE = re.compile(r"(<!-- table: (\w+) ?([\w-]*) -->\n).*?(\n<!-- end of table -->)", re.DOTALL)
_ARROWS = {True: " ↑", False: " ↓", None: ""}
_BETTER = {True: "higher", False: "lower", None: "neither"}
_MODELS = "lipsync_bench.models."

__all__ = ["documents", "metric_table", "renewed"]


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [tuple(head), *(tuple(cell or "–" for cell in row) for row in rows)]
    texts = [f"| {' | '.join(cells)} |" for cells in lines]
    return "\n".join([texts[0], "|" + "---|" * len(lines[0]), *texts[1:]])


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _needs(metric: Description, column: Column | None = None) -> str:
    networks = (n for n in metric.networks if column is None or n.name == column.network)
    return _quoted(dict.fromkeys(way_to(network) for network in networks))


def metric_table(name: str = "") -> str:
    """A line for each metric's file. An arrow points to the better side of a column."""
    rows = (
        (", ".join(f"`{c.name}`{_ARROWS[c.higher_is_better]}" for c in metric.columns), _needs(metric), metric.checked)
        for metric in METRICS
    )
    return _table(("column", "needs", "checked against"), rows)


def _metric(name: str) -> str:
    """A line for each column of one metric's file."""
    metric = next(metric for metric in METRICS if metric.module.rpartition(".")[2] == name)
    rows = (
        (
            f"`{c.name}`",
            c.heading.replace(_ARROWS[c.higher_is_better], ""),
            c.about,
            _BETTER[c.higher_is_better],
            f"{c.bounds[0]:g} to {c.bounds[1]:g}".replace("inf", "∞"),
            {"none": ""}.get(c.reference, c.reference),
            _needs(metric, c),
            c.source,
        )
        for c in metric.columns
    )
    return _table(("column", "in tables", "what it says", "better", "range", "compared with", "needs", "source"), rows)


def _paper_of(module: str) -> str:
    """The folder of models/ that a module lies in, which is also the name of the paper's page."""
    return module.removeprefix(_MODELS).split(".")[0] if module.startswith(_MODELS) else ""


def _methods(paper: str) -> dict[str, type[TalkingFaceModule]]:
    return {name: kind for name, kind in list_methods().items() if _paper_of(kind.__module__) == paper}


def _runs(paper: str) -> list[str]:
    """Names of the YAMLs that train a class of the paper."""

    def trained(name: str) -> str:
        kind = read_yaml(run_file(name), "a run", "Correct it")["model"]["class_path"]
        return _paper_of(getattr(import_module("lipsync_bench.models"), kind.rpartition(".")[2]).__module__)

    return [name for name in experiment_names("") if trained(name) == paper]


@cache
def _recipe(method: str) -> Recipe:
    """The published recipe at full size: of the method's YAML, else of its defaults."""
    return recipe_named(method)


def _faces(method: str) -> str:
    """The crop rule as `--recipe.crop` names it, and the size as papers print it, height first."""
    recipe = _recipe(method)
    height, width = recipe.size_hw
    return f"`{re.split(r'[^a-z0-9]', recipe.crop.text())[0]}`, {height} x {width}"


def _weights(paper: str) -> Iterator[tuple[str, str, str]]:
    for kind in KINDS.values():
        if _paper_of(kind.build.__module__) == paper:
            yield from ((f"`{file.id}`", file.what, file.licence) for file in kind.files)


def _tables(paper: str) -> list[str]:
    return [id for id, table in list_tables().items() if table.paper.key == paper]


def _paper(name: str) -> str:
    """What the package has of one paper."""
    protocols = [protocol for protocol in list_protocols() if load_protocol(protocol).paper == name]
    overlays = sorted(path.stem for path in (installed_experiments() / name).glob("*.yaml"))
    rows = [
        *((f"method `{method}`", f"recipe `{_recipe(method).text()}`") for method in _methods(name)),
        ("runs: `lightning fit -c`", _quoted(_runs(name))),
        ("overlays: `-c`", _quoted(f"{name}/{overlay}" for overlay in overlays)),
        ("protocols: `--protocol`", _quoted(protocols)),
        ("tables: `bench table`", _quoted(_tables(name))),
    ]
    weights = list(_weights(name))
    files = _table(("`bench weights fetch`", "what it is", "licence of these weights"), weights)
    there = _table(("what", "names"), (row for row in rows if row[1]))
    return there + (f"\n\n{files}" if weights else "\n\nThere are no official weights.")


def _state(page: str) -> str:
    """How many of a paper's statements are met, by the page's own tables."""
    found = Counter(re.findall(r"\| (as stated|differs|not here)[^|]*\|$", page, re.MULTILINE))
    return f"{found['as stated']} / {found['differs']} / {found['not here']}"


def _papers(name: str) -> str:
    """A line for each page of docs/methods/; `name` is the folder that links lead to."""
    rows = []
    for path in sorted(path for path in Path("docs/methods").glob("*.md") if path.stem != "index"):
        text, paper = path.read_text(encoding="utf-8"), path.stem
        title, year = re.findall(r"^# (.+)$", text, re.MULTILINE)[0], re.findall(r"\b20\d\d\b", text)
        tables = [id.rpartition("-")[2] for id in _tables(paper)]
        rows.append(
            (
                f"[{title}]({name}/{path.name}) {year[0]}",
                _quoted(_methods(paper)),
                "; ".join(dict.fromkeys(map(_faces, _methods(paper)))),
                _quoted(_runs(paper)),
                _quoted(file.id for method in _methods(paper) if method in KINDS for file in KINDS[method].files),
                f"`{paper}-{tables[0]}` to `-{tables[-1]}`" if tables else "",
                _state(text),
            )
        )
    head = (
        "paper",
        "methods",
        "faces: crop rule, height x width",
        "runs",
        "official weights",
        "tables",
        "statements as stated / differ / not here",
    )
    return _table(head, rows)


def _licences(name: str) -> str:
    """A line for each licence: its official files and what needs them; without files that nothing needs."""
    lines: dict[str, list[WeightFile]] = {}
    for file in official_files().values():
        if not file.use.startswith("nothing here yet"):
            lines.setdefault(file.licence, []).append(file)
    rows = (
        (licence, _quoted(file.id for file in files), "; ".join(dict.fromkeys(file.use for file in files)))
        for licence, files in lines.items()
    )
    return _table(("licence", "`bench weights fetch`", "needed by"), rows)


def _datasets(name: str) -> str:
    """A line for each data set that `bench prepare --dataset` takes."""
    package = import_module("lipsync_bench.datamodules.datasets")
    modules = [import_module(file.name) for file in walk_packages(package.__path__, f"{package.__name__}.")]
    classes: dict[str, Any] = {
        kind.name: kind
        for module in modules
        for kind in vars(module).values()
        if inspect.isclass(kind) and issubclass(kind, ClipDataModule) and kind.__module__ == module.__name__
    }
    benchmarks: dict[str, list[str]] = {}
    for benchmark in experiment_names("benchmarks"):
        path = run_file(f"benchmarks/{benchmark}")
        kind = read_yaml(path, "a benchmark", "Correct it")["data"]["class_path"].rpartition(".")[2]
        benchmarks.setdefault(kind, []).append(benchmark)
    rows = (
        (
            f"`{id}`",
            f"`{classes[id].__name__}`",
            f"`{find_dataset(id).videos}`" if find_dataset(id).videos else "any tree",
            " / ".join(str(count) for count in classes[id].official_counts.values()),
            _quoted(benchmarks.get(classes[id].__name__, [])),
        )
        for id in dataset_names()
        if id in classes
    )
    return _table(("`--dataset`", "class", "videos below `--source`", "clips: train / val / test", "benchmarks"), rows)


TABLES: dict[str, Callable[[str], str]] = {
    "metrics": metric_table,
    "metric": _metric,
    "paper": _paper,
    "papers": _papers,
    "datasets": _datasets,
    "licences": _licences,
}


def renewed(document: Path) -> str:
    """The text of a document with its tables renewed.

    Raises:
        ValueError: It names a table that there is not.
    """

    def table(match: re.Match[str]) -> str:
        start, kind, name, end = match.groups()
        if kind not in TABLES:
            raise ValueError(
                f"{document}: <!-- table: {kind} --> found. Expected one of {', '.join(TABLES)}. Correct the comment"
            )
        text = TABLES[kind](os.path.relpath("docs/methods", document.parent) if kind == "papers" else name)
        return f"{start}\n{text}\n{end}"

    return _PLACE.sub(table, document.read_text(encoding="utf-8"))


def documents() -> list[Path]:
    """The documents of a checkout, the working folder, that have such tables."""
    files = [*Path().glob("*.md"), *sorted(Path("docs").rglob("*.md"))]
    return [file for file in files if _PLACE.search(file.read_text(encoding="utf-8"))]


if __name__ == "__main__":
    for document in documents():
        write_atomic(document, renewed(document))
        sys.stdout.write(f"{document}\n")
