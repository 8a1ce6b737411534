# SPDX-License-Identifier: Apache-2.0
"""Methods, metrics and data sets of other packages take part like ours; what is wrong with one is told in a line."""

import csv
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lipsync_bench.metrics.registry import METRICS, OTHER_FIELDS
from lipsync_bench.results.rows import FIELDS
from tests.lipsync_bench.foreign.installing import REPOSITORY, bench, install, python

START = "import lipsync_bench.bench"
METRIC = (
    'METRIC = Description(columns=(Column("{name}", "Mine", "", None, 1, (0, 255), "none", "x"),), checked="nothing")\n'
)
NAMES = (
    "from lipsync_bench.metrics.registry import METRICS; print([c.name for m in METRICS if m.entry for c in m.columns])"
)
METHODS = "from lipsync_bench.models import list_methods; print(sorted(list_methods()))"

USES = """
import json
from lipsync_bench import datamodules, metrics, models
from lipsync_bench.cli.doc_tables import metric_table
from lipsync_bench.datamodules.datasets.dataset import dataset_names, find_dataset
from lipsync_bench.results.row_schema import row_schema

print(json.dumps({
    "method": models.list_methods()["tint"] is models.Tint,
    "loaded": type(models.load_method("runs/last.ckpt")).__name__,
    "datasets": dataset_names(),
    "videos": find_dataset("plays").videos,
    "class": datamodules.Plays.__module__,
    "schema": row_schema()["properties"]["redness"]["description"],
    "docs": metric_table(),
}))
"""

RUN = """
model: {class_path: lipsync_bench.models.Tint}
data:
  class_path: lipsync_example.dataset.Plays
  init_args: {root: data/plays, batch_size: 2, num_workers: 0}
trainer:
  logger: false
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  max_steps: 1
  callbacks:
  - class_path: pytorch_lightning.callbacks.ModelCheckpoint
    init_args: {dirpath: runs, save_last: true}
"""


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example package of the documentation, installed by pip into a folder of its own."""
    if not importlib.util.find_spec("pip") or not importlib.util.find_spec("setuptools"):
        pytest.skip("no pip or no setuptools in this environment")
    folder = tmp_path_factory.mktemp("example")
    shutil.copytree(REPOSITORY / "docs" / "example_package", folder / "source")  # pip builds where the source is
    offline = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet")
    command = [sys.executable, "-m", "pip", "install", *offline, "--target", folder / "site", folder / "source"]
    subprocess.run(command, check=True)
    return folder / "site"


@pytest.mark.slow
def test_the_example_package_takes_part_everywhere(example: Path, corpus: Path, tmp_path: Path) -> None:
    for speaker in ("s01", "s02"):
        for clip in ("00001", "00002", "00003"):
            video = tmp_path / "source" / speaker / "takes" / f"{clip}.mp4"
            video.parent.mkdir(parents=True, exist_ok=True)
            video.symlink_to(corpus / "videos" / "main" / speaker / f"{clip}.mp4")
    (tmp_path / "tint.yaml").write_text(RUN)
    data = ("--dataset", "plays", "--source", "source", "--out", "data/plays", "--workers", 1, "--for", "tint")
    assert "plays" in bench(example, "prepare", "--help", cwd=tmp_path).stdout
    done = bench(example, "prepare", *data, cwd=tmp_path)
    assert "6 clips prepared" in done.stderr, done.stderr
    done = python(example, "-m", "lipsync_bench", "fit", "-c", "tint.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]

    doctor = json.loads(bench(example, "doctor", "--json", cwd=tmp_path).stdout)
    found = {check["name"]: (check["status"], check["found"]) for check in doctor}
    assert found["method tint"] == ("ok", "lipsync-example 0.1: lipsync_example.method:Tint")
    assert found["metric redness"] == ("ok", "lipsync-example 0.1: lipsync_example.metric")
    assert found["dataset plays"] == ("ok", "lipsync-example 0.1: lipsync_example.dataset:Plays")

    done = bench(
        example, "evaluate", "--dataset", "plays", "--methods.tint", "runs/last.ckpt", "--limit", 1, "--device", "cpu",
        "--out", "results", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    rows = list(csv.DictReader((tmp_path / "results" / "clips.csv").open()))
    assert [(row["method"], row["status"]) for row in rows] == [
        ("ground_truth", "ok"), ("repeated_frame", "ok"), ("tint", "ok")
    ]  # fmt: skip
    assert all(1 < float(row["redness"]) < 254 for row in rows)
    assert float(rows[2]["psnr"]) > 5
    assert "redness_low" in (tmp_path / "results" / "leaderboard.csv").read_text()
    manifest = json.loads((tmp_path / "results" / "manifest.json").read_text())
    assert manifest["sessions"][0]["versions"]["lipsync-example"] == "0.1"

    done = python(example, "-c", USES, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    uses = json.loads(done.stdout)
    assert uses["method"]
    assert uses["loaded"] == "Tint"
    assert {"lrs2", "plays"} <= set(uses["datasets"])
    assert uses["videos"] == "{speaker}/takes/{clip}"
    assert uses["class"] == "lipsync_example.dataset"
    assert uses["schema"].startswith("Redness in levels")
    assert "| `redness` | – | nothing, it is an example |" in uses["docs"]


def test_help_lists_packages_without_importing_them(tmp_path: Path) -> None:
    explode = "raise RuntimeError('imported')\n"
    points = {
        "methods": "boom = boom.method:Boom",
        "metrics": "boom = boom.metric",
        "datasets": "boom = boom.data:Boom",
    }
    data = explode + "class Boom(X):\n    name = 'boom'\n    videos = '{speaker}/{clip}'\n"
    install(
        tmp_path,
        "boom",
        points,
        __init__=explode,
        method=explode,
        metric=explode + METRIC.format(name="boom"),
        data=data,
    )
    done = bench(tmp_path, "prepare", "--help", cwd=tmp_path)
    assert "boom" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")
    done = python(tmp_path, "-c", NAMES, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("['boom']\n", "")


@pytest.mark.parametrize(
    ("code", "faults"),
    [
        (
            METHODS,
            [
                ({"methods": "x = {package}.bad:X"}, "RuntimeError: no luck"),
                ({"methods": "x = {package}.exits:X"}, "SystemExit: 3"),
                ({"methods": "x = {package}.gone:X"}, "there is no file of a module {package}.gone"),
                ({"methods": "x = nobody.has:X"}, "there is no file of a module nobody.has"),
                ({"methods": "x = {package}.fine:X"}, "has no attribute 'X'"),
                ({"methods": "x = {package}.fine"}, "expected module:Class with a subclass"),
                ({"methods": "x = not a value!"}, "expected module:Class"),
            ],
        ),
        (
            NAMES,
            [
                ({"metrics": "x = {package}.fine"}, "no file of it ends with METRIC"),
                ({"metrics": "x = {package}.syntax"}, "the description cannot be read"),
            ],
        ),
        (
            START,
            [
                ({"methods": "this is no entry point"}, "its entry points cannot be read"),
                ({"datasets": "x = {package}.fine:X"}, "expected module:Class with a class that says"),
                ({"datasets": "x = {package}.syntax:X"}, "SyntaxError"),
                ({"datasets": "x = {package}.folders:X"}, "Expected a path of folders"),
            ],
        ),
    ],
    ids=["methods", "metrics", "start"],
)
def test_a_broken_package_is_one_warning(tmp_path: Path, code: str, faults: list[tuple[dict[str, str], str]]) -> None:
    """All that are broken in one process: each is a line, and the others of its kind are told all the same."""
    for number, (entry_points, _) in enumerate(faults):
        package, name = f"broken{number}", f"x{number}"
        points = {
            group: line.replace("x =", f"{name} =").format(package=package) for group, line in entry_points.items()
        }
        install(
            tmp_path, package, points,
            bad="raise RuntimeError('no\\nluck')\n", exits="import sys; sys.exit(3)\n", fine="Y = 1\n",
            syntax="x ==== 1\nMETRIC = Description(\n",
            folders=f"class X(B):\n    name = '{name}'\n    videos = 'no/clip'\n",
        )  # fmt: skip
    done = python(tmp_path, "-c", f"{code}\n{code}", cwd=tmp_path)
    assert done.returncode == 0
    assert len(done.stderr.splitlines()) == len(faults), done.stderr
    for number, (_, error) in enumerate(faults):
        (line,) = (line for line in done.stderr.splitlines() if f"broken{number} 1.0: " in line)
        assert error.format(package=f"broken{number}") in line


def test_a_name_of_ours_is_refused_with_one_warning(tmp_path: Path) -> None:
    method = "from lipsync_bench.models import Wav2Lip\nclass Other(Wav2Lip): ...\n"
    data = "class Mine(X):\n    name = 'lrs2'\n    videos = '{speaker}/{clip}'\n"
    points = {"methods": "wav2lip = shadow.method:Other", "datasets": "lrs2 = shadow.data:Mine"}
    metrics = {"metrics": "psnr = shadow.metric\nstatus = shadow.row"}
    texts = {"metric": METRIC.format(name="psnr"), "row": METRIC.format(name="status")}
    install(tmp_path, "shadow", {**points, **metrics}, method=method, data=data, **texts)
    module = "print(list_methods()['wav2lip'].__module__)"
    for code, name in ((f"{METHODS}; {module}", "wav2lip"), (START, "lrs2")):
        done = python(tmp_path, "-c", f"{code}\n{code}", cwd=tmp_path)
        assert done.stderr.splitlines() == [
            f"shadow 1.0: its {'method' if name == 'wav2lip' else 'data set'} {name!r} is left out, because "
            "lipsync_bench has one of that name"
        ]
        if name == "wav2lip":
            assert done.stdout.endswith("\nlipsync_bench.models.wav2lip.module\n")
    done = python(tmp_path, "-c", NAMES, cwd=tmp_path)
    assert done.stdout == "[]\n"
    assert [f"its metric '{name}'" in done.stderr for name in ("psnr", "status")] == [True, True]


def test_two_packages_with_one_name_are_both_named(tmp_path: Path) -> None:
    method = "from lipsync_bench.models import Wav2Lip\nclass Mine(Wav2Lip): ...\n"
    data = "class Mine(X):\n    name = 'mine'\n    videos = '{speaker}/{clip}'\n"
    for package in ("one", "two"):
        points = {
            "methods": f"mine = {package}.method:Mine",
            "metrics": f"mine = {package}.metric",
            "datasets": f"mine = {package}.data:Mine",
        }
        install(tmp_path, package, points, method=method, data=data, metric=METRIC.format(name="mine"))
    (tmp_path / "videos").mkdir()
    prepare = ("prepare", "--dataset", "mine", "--source", "videos", "--out", "out")
    calls = (
        ("method", ("-c", METHODS)),
        ("metric", ("-c", NAMES)),
        ("metric", ("-m", "lipsync_bench.bench", "report", "nothing")),
        ("data set", ("-m", "lipsync_bench.bench", *prepare)),
    )  # fmt: skip
    for kind, arguments in calls:
        done = python(tmp_path, *arguments, cwd=tmp_path)
        last = done.stderr.splitlines()[-1]
        assert f"two packages have a {kind} called 'mine': one 1.0 (one." in last
        assert "and two 1.0 (two." in last
        assert done.returncode in (1, 2)
    assert bench(tmp_path, "--help", cwd=tmp_path).returncode == 0


def test_a_metric_that_fails_leaves_its_cells_empty(corpus: Path, tmp_path: Path) -> None:
    fails = "import nothing_of_this_name\n" + METRIC.format(name="fails")
    late = "def scorer(clip):\n    return 3\n\n" + METRIC.format(name="late")
    install(tmp_path / "site", "fragile", {"metrics": "a = fragile.fails\nb = fragile.late"}, fails=fails, late=late)
    arguments = ("evaluate", "--dataset", "synthetic", "--root", corpus / "clips", "--out", "out", "--device", "cpu")
    done = bench(tmp_path / "site", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("fragile 1.0: ") == 2
    assert "No module named 'nothing_of_this_name'" in done.stderr
    rows = list(csv.DictReader((tmp_path / "out" / "clips.csv").open()))
    assert [row["status"] for row in rows] == ["ok"] * 4
    assert {(row["fails"], row["late"]) for row in rows} == {("", "")}


@pytest.mark.slow
def test_a_metric_that_is_installed_later_is_measured_and_one_that_is_gone_is_named(
    corpus: Path, tmp_path: Path
) -> None:
    text = "import numpy as np\nfrom lipsync_bench.metrics.metric import Column, Description, FrameScorer\n\n"
    text += (
        "class S(FrameScorer):\n    def update(self, view):\n        self.add('late', np.ones(len(view.frames)))\n\n"
    )
    text += "def scorer(clip):\n    return S()\n\n" + METRIC.format(name="late")
    install(tmp_path / "site", "late", {"metrics": "late = late.metric"}, metric=text)
    out = tmp_path / "out"
    arguments = ("evaluate", "--dataset", "synthetic", "--root", corpus / "clips", "--out", out, "--device", "cpu")
    assert bench(tmp_path, *arguments, cwd=tmp_path).returncode == 0
    before = list(csv.DictReader((out / "clips.csv").open()))
    assert "late" not in before[0]

    done = bench(tmp_path / "site", *arguments, "--clips", "s01/*", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((out / "clips.csv").open()))
    assert sorted((row["clip"], row["late"]) for row in rows) == [
        ("s01/00003", "1.0"), ("s01/00003", "1.0"), ("s02/00003", ""), ("s02/00003", "")
    ]  # fmt: skip
    assert {row["psnr"] for row in rows} == {row["psnr"] for row in before}
    superseded = list(csv.DictReader((out / "superseded.csv").open()))
    assert [row["clip"] for row in superseded] == ["s01/00003"] * 2

    done = bench(tmp_path, *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert "(late may be of a metric whose package is not installed)" in done.stderr


def test_names_of_other_fields_are_those_of_rows() -> None:
    assert set(OTHER_FIELDS) == set(FIELDS) - set().union(*(metric.fields for metric in METRICS))
