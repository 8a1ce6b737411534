# SPDX-License-Identifier: Apache-2.0
"""experiments/tables/ID.yaml: read and checked.

Every key is checked: a misspelt metric would otherwise be taken for a detail of the row.
"""

import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NonNegativeInt

from lipsync_bench.experiment_files import experiment_file, experiment_names, read_experiment
from lipsync_bench.papers.printed.paper_metrics import PAPER_METRICS
from lipsync_bench.papers.printed.paper_table import Paper, PaperProtocol, PaperRow, PaperTable, Printed

__all__ = ["list_tables", "load_table", "read_table"]

_NOT_REPORTED = "null"
_NUMBER = re.compile(r"-?\d+(\.\d+)?")

# Details that distinguish rows of one method, and how they are printed after the method's name.
_DETAILS: dict[str, str | dict[str, str]] = {
    "variant": "{}",
    "scale": "x{}",
    "size": "{} px",
    "sketch": {"true": "with sketch", "false": "without sketch"},
    "pretrained_on": "pre-trained on {}",
    "finetuned": {"true": "fine-tuned", "false": "not fine-tuned"},
    "cross_attention": {"true": "with cross-attention", "false": "without cross-attention"},
    "nets": "nets {}",
    "smile": "smile {}",
    "without": "without {}",
}


def _fail(path: Path, found: str, expected: str) -> ValueError:
    return ValueError(
        f"{path}: {found}. Expected {expected}. Correct it; the tables of this package are in experiments/tables/."
    )


_Texts = Annotated[tuple[str, ...], BeforeValidator(lambda node: (node,) if isinstance(node, str) else node)]


class _File(BaseModel):
    """The keys of the YAML, each value the text that stands there."""

    model_config = ConfigDict(extra="forbid")

    id: str
    paper: Paper
    caption: str
    dataset: Annotated[_Texts, Field(min_length=1)]
    clips: str = ""
    clip_count: dict[str, NonNegativeInt] = {}
    split_not_stated: _Texts = ()
    protocol: dict[str, str] | str = {}
    metrics: Annotated[_Texts, Field(min_length=1)]
    rows: list[dict[str, str]]
    notes: _Texts = ()


def _printed(path: Path, where: str, text: str) -> Printed | None:
    if text == _NOT_REPORTED:
        return None
    if not _NUMBER.fullmatch(text):
        raise _fail(path, f"{where} is {text!r}", "a number as printed, or null where the paper reports none")
    return Printed(text, float(text))


def _detail(path: Path, where: str, key: str, text: str) -> str:
    form = _DETAILS[key]
    if isinstance(form, str):
        return form.format(text)
    if text not in form:
        raise _fail(path, f"{where} has {key}: {text}", "true or false")
    return form[text]


def _row(path: Path, number: int, values: dict[str, str], file: _File) -> PaperRow:
    where, datasets, metrics = f"row {number}", file.dataset, file.metrics
    unknown = sorted(set(values) - {"method", "ours", "dataset", *_DETAILS, *metrics})
    if unknown or "method" not in values:
        raise _fail(
            path,
            f"{where} has the unknown keys {unknown}" if unknown else f"{where} has no method",
            f"method, its metrics ({', '.join(metrics)}), and of ours, dataset, {', '.join(_DETAILS)} what applies",
        )
    dataset = values.get("dataset", " and ".join(datasets))
    if "dataset" in values and dataset not in datasets:
        raise _fail(path, f"{where} is on {dataset}", f"a data set of the table ({', '.join(datasets)})")
    printed = {m: _printed(path, f"{m} of {where}", values.get(m, _NOT_REPORTED)) for m in metrics}
    details = tuple(_detail(path, where, key, text) for key, text in values.items() if key in _DETAILS)
    return PaperRow(values["method"], values.get("ours", values["method"]), dataset, details, printed)


def _protocol(path: Path, node: dict[str, str] | str, seen: tuple[str, ...]) -> PaperProtocol:
    if isinstance(node, str):
        named = tuple(node.removeprefix("as ").split(" and ")) if node.startswith("as ") else ()
        files = [path.with_name(f"{name}.yaml") for name in named]
        if not files or set(named) & set(seen) or not all(file.is_file() for file in files):
            raise _fail(path, f"protocol is {node!r}", "a mapping, or: as ID, with the id of another table beside it")
        first = _protocol(
            files[0], read_experiment("tables", files[0], _File, printed=True).protocol, (*seen, named[0])
        )
        return PaperProtocol(first.pairing, first.crop, first.reference, named)
    values = dict(node)
    crop, reference = values.pop("crop", ""), values.pop("reference", "")
    wrong = sorted(
        m for m, pairing in values.items() if m not in PAPER_METRICS or pairing not in ("paired", "unpaired")
    )
    if wrong:
        raise _fail(path, f"protocol says of {wrong[0]}: {values[wrong[0]]}", "paired or unpaired, for a known metric")
    return PaperProtocol(values, crop, reference)


def _check_rows(path: Path, rows: tuple[PaperRow, ...], metrics: tuple[str, ...]) -> None:
    names = [(row.dataset, row.name) for row in rows]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise _fail(path, f"several rows on {doubled[0][0]} are called {doubled[0][1]}", "`ours: NAME`, one name a row")
    printed = [metric for metric in metrics if PAPER_METRICS[metric].study != "votes"]  # which HyperLips only draws
    empty = [metric for metric in printed if all(row.values[metric] is None for row in rows)]
    if empty:
        raise _fail(path, f"no row has a value for {empty}", "at least one value in every column")


def read_table(path: Path) -> PaperTable:
    """Read and check a table.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is not a valid table; the message says where.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no table at {path}. Expected a YAML as in experiments/tables/; see: bench table list")
    file = read_experiment("tables", path, _File, printed=True)
    if file.id != path.stem:
        raise _fail(path, f"its id is {file.id}", f"{path.stem}, as the file is called")
    unknown = [metric for metric in file.metrics if metric not in PAPER_METRICS]
    if unknown or len({PAPER_METRICS[metric].study for metric in file.metrics}) != 1:
        raise _fail(
            path,
            f"its metrics are {list(file.metrics)}",
            f"some of {', '.join(PAPER_METRICS)}; not ratings or votes with others",
        )
    if not set(file.clip_count) <= set(file.dataset):
        raise _fail(path, f"clip_count is {file.clip_count}", f"whole numbers for {', '.join(file.dataset)}")
    if not set(file.split_not_stated) <= set(file.dataset):
        raise _fail(path, f"split_not_stated is {file.split_not_stated}", f"some of {', '.join(file.dataset)}")
    rows = tuple(_row(path, i, row, file) for i, row in enumerate(file.rows, 1))
    _check_rows(path, rows, file.metrics)
    runs = {run.stem for run in path.parent.parent.glob("*.yaml")}
    return PaperTable(
        id=file.id,
        paper=file.paper,
        caption=file.caption,
        datasets=file.dataset,
        clips=file.clips,
        clip_count=file.clip_count,
        split_not_stated=file.split_not_stated,
        protocol=_protocol(path, file.protocol, (path.stem,)),
        metrics=file.metrics,
        rows=rows,
        notes=file.notes,
        trained_here=frozenset(row.method for row in rows if row.method in runs),
    )


def list_tables() -> dict[str, PaperTable]:
    """All tables by id, sorted. Raises ValueError for one that is broken."""
    return {name: load_table(name) for name in experiment_names("tables")}


def load_table(id: str) -> PaperTable:
    """The table of that id.

    Raises:
        FileNotFoundError: There is no such table; the message lists all.
        ValueError: Its file is broken.
    """
    path = experiment_file("tables", id)
    if path is None:
        known = ", ".join(experiment_names("tables"))
        raise FileNotFoundError(f"no table {id!r}. Expected one of {known}; see: bench table list")
    return read_table(path)
