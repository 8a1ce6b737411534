# SPDX-License-Identifier: Apache-2.0
"""The folder of a training run, `runs/NAME`, and how the stages of a method find each other's checkpoints through it.

NAME is made from the YAMLs that are given: `-c hyperlips_hr -c overlays/mead` is the run `hyperlips_hr+mead`. A run
that needs the checkpoint of another one writes `run:hyperlips_base` or `run:hyperlips_base/last.ckpt` for it, which is
that run with the same overlays, as far as it has been trained with them, on the same data set;
`run:hyperlips_sync_expert@LRS2` is the one that was trained on LRS2, whatever the other run is trained on.
"""

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from lipsync_bench.datamodules.files.texts import few, read_yaml

RUNS = Path("runs")
CONFIG = "config.yaml"
LOGGERS = "loggers"  # folder of overlays
STAGE = "run:"
_LISTED = 3  # differences that a message names
_SHOWN = {f"trainer.{name}" for name in ("enable_progress_bar", "enable_model_summary", "profiler")}
_OTHERWISE = {
    "run",
    "resume",
    "overwrite",
    "ckpt_path",
    "weights_only",
    "config",
    "sample_clips",
} | _SHOWN  # not what a run trains

__all__ = [
    "CONFIG",
    "RUNS",
    "STAGE",
    "check_name",
    "dataset_of",
    "delete_run",
    "refuse_other",
    "run_checkpoint",
    "run_name",
    "stage_checkpoint",
]


def run_name(files: Sequence[Path]) -> str:
    """The name of the run that YAMLs make: the first one's name, then those of its overlays, sorted.

    Overlays of loggers are no part of it: they do not change what is trained.

    Args:
        files: As given with `-c`, in their order.
    """
    if not files:
        return ""
    first, *overlays = files
    run = first.parent.name if first.name == CONFIG and first.parent.name else first.stem
    base, *older = run.split("+")  # `config.yaml` of a run that had overlays itself
    names = {file.parent.name if file.stem == base else file.stem for file in overlays if file.parent.name != LOGGERS}
    return "+".join([base, *sorted({*older, *names})])


def check_name(name: str) -> None:
    """Refuse what is no name of a run.

    Raises:
        ValueError: It has other characters than letters, digits, `.`, `_`, `-` and `+`, or begins with a dot.
    """
    if not re.fullmatch(r"[\w+-][\w.+-]*", name):
        raise ValueError(f"run {name!r}. Expected a name such as wav2lip_1, whose folder is runs/wav2lip_1. Set --run")


def dataset_of(config: Mapping[str, Any]) -> str:
    """The class of the clips that a run is trained on, from its configuration; "" where it names none."""
    data = config.get("data") or {}
    clips = (data.get("init_args") or {}).get("clips")
    inner = clips.get("class_path") if isinstance(clips, Mapping) else None
    return str(inner or data.get("class_path") or "")


def _held_config(folder: Path) -> dict[str, Any]:
    """The configuration of a run; empty if it has none.

    Raises:
        ValueError: It is no YAML.
    """
    path = folder / CONFIG
    if not path.is_file():
        return {}
    node = read_yaml(path, "the configuration of a run", "Name another run with --run, or --overwrite this one")
    return dict(node) if isinstance(node, Mapping) else {}


def _flat(config: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(config, Mapping) and config:
        for name, value in config.items():
            yield from _flat(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, config


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The arguments in which two configurations train differently, as `NAME (VALUE, was OTHER)`."""
    new, old = (
        {key: value for key, value in _flat(c) if key not in _OTHERWISE and not key.startswith("trainer.logger")}
        for c in (one, other)
    )
    keys = [key for key in {**new, **old} if new.get(key) != old.get(key)]
    return [f"{key} ({new.get(key)}, was {old.get(key)})" for key in keys]


def refuse_other(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a folder that holds checkpoints of another configuration; a run that has none left nothing to lose.

    Raises:
        ValueError: It does; names what differs.
    """
    if not any(folder.glob("*.ckpt")):
        return
    held = _held_config(folder)
    other = differences(config, held) if held else []
    if held and not other:
        return
    found = few(other, _LISTED) or f"checkpoints without a {CONFIG}"
    raise ValueError(
        f"{folder} holds another run: {found}. Expected this one's, or an empty "
        "folder. Name another with --run NAME, train that one further with --resume, or delete it with --overwrite"
    )


def delete_run(folder: Path) -> None:
    """Delete the checkpoints, samples, logs and configuration that a folder holds; other files stay."""
    for path in [*folder.glob("*.ckpt"), folder / CONFIG]:
        path.unlink(missing_ok=True)
    for name in ("lightning_logs", "wandb", "mlruns", "samples"):
        shutil.rmtree(folder / name, ignore_errors=True)


def run_checkpoint(path: Path) -> Path:
    """The checkpoint that a run's folder stands for: `best.ckpt` where a validation chose one, else `last.ckpt`.

    Any other path is itself.
    """
    best = path / "best.ckpt"
    return (best if best.is_file() else path / "last.ckpt") if path.is_dir() else path


def stage_checkpoint(reference: str, name: str, runs: Path, dataset: str, argument: str) -> Path:
    """The checkpoint that `run:NAME` or `run:NAME/FILE` means in a run.

    It is that of NAME with the run's overlays, or with as many of them as NAME has been trained with; trained on the
    run's data set, or on DATASET, the name of its class, in `run:NAME@DATASET/FILE`.

    Args:
        reference: `run:NAME/FILE`, or `run:NAME` for the checkpoint that its folder stands for; after the name may
            stand @DATASET.
        name: Of the run that refers to it.
        runs: The folder in which runs are looked for.
        dataset: The class of that run's clips.
        argument: Of the command line, which takes the checkpoint's path instead.

    Raises:
        FileNotFoundError: The stage has not been trained.
        ValueError: `reference` has another form; or the stage was trained on another data set.
    """
    stage, slash, file = reference.removeprefix(STAGE).partition("/")
    if not stage or (slash and not file):
        raise ValueError(
            f"{reference}: no checkpoint of a run. Expected {STAGE}NAME or {STAGE}NAME/last.ckpt. Correct the YAML"
        )
    overlays = name.split("+")[1:]
    stage, _, trained_on = stage.partition("@")
    dataset = trained_on or dataset
    names = [
        "+".join([stage, *some]) for count in range(len(overlays), -1, -1) for some in combinations(overlays, count)
    ]
    paths = [runs / name / file if file else run_checkpoint(runs / name) for name in names]
    there = [path for path in paths if path.is_file()]
    how = f" on {trained_on}" if trained_on else f" with the overlays of {name}" if overlays else ""
    command = f"lightning fit -c {stage}{how}"
    if not there:
        raise FileNotFoundError(
            f"{name} needs {reference}, and there is no {' nor '.join(map(str, paths))}. Expected the checkpoint of "
            f"that stage. Train it first: {command}; or name a checkpoint with --{argument} PATH"
        )
    datasets = {path: dataset_of(_held_config(path.parent)) for path in there}
    fitting = [
        path for path in there if not (datasets[path] and dataset) or f".{datasets[path]}".endswith(f".{dataset}")
    ]
    if not fitting:
        raise ValueError(
            f"{there[0]} was trained on {datasets[there[0]]}, and {name} needs {reference}. Expected that stage "
            f"trained on {dataset}. Train it: {command}; or name a checkpoint with --{argument} PATH"
        )
    return fitting[0]
