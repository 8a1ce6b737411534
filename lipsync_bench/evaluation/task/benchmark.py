# SPDX-License-Identifier: Apache-2.0
"""experiments/benchmarks/NAME.yaml: which data, which methods, which checkpoints make a leaderboard."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentError, ArgumentParser
from pydantic import ValidationError

from lipsync_bench.datamodules.clip_datamodule import ClipDataModule
from lipsync_bench.datamodules.datasets.dataset import dataset_class
from lipsync_bench.datamodules.datasets.splits import Split
from lipsync_bench.datamodules.files.texts import flat, read_yaml
from lipsync_bench.evaluation.elsewhere.command import Command
from lipsync_bench.evaluation.task.lse_script import LSEScript, lse_script
from lipsync_bench.experiment_files import experiment_file, first_fault, named_file
from lipsync_bench.old_names import renamed
from lipsync_bench.runs import run_checkpoint

__all__ = ["Benchmark", "load_benchmark"]


@dataclass(frozen=True)
class Benchmark:
    """A leaderboard to be made.

    Args:
        name: Of the YAML file.
        data: The data set, not yet set up.
        methods: Checkpoint of each method (a run's folder is replaced by it), or the word `official`.
        split: Which clips are scored.
        lse: Which of Wav2Lip's scripts gives LSE on its frames.
        commands: Methods of other repositories.
    """

    name: str
    data: ClipDataModule
    methods: Mapping[str, Path | Literal["official"]]
    split: Split
    lse: LSEScript
    commands: Mapping[str, Command] = field(default_factory=dict)


def _read(name: str) -> tuple[Path, Any]:
    """Where a benchmark is described, and how; a data set of another package needs no YAML."""
    kind = "" if experiment_file("benchmarks", name) else dataset_class(name)
    if kind:
        return Path(f"{name}.yaml"), {"data": {"class_path": kind, "init_args": {"root": f"data/{name}"}}}
    path = named_file("benchmarks", name, "--dataset")
    return path, renamed(read_yaml(path, "a benchmark", "See experiments/benchmarks/"))


def _commands(path: Path, node: Any) -> dict[str, Command]:
    """The methods that a benchmark states as mappings; they are taken out of it."""
    methods = node.get("methods") if isinstance(node, dict) else None
    if not isinstance(methods, dict):
        return {}
    stated = {name: x for name, x in methods.items() if isinstance(x, dict)}
    out: dict[str, Command] = {}
    for name, method in stated.items():
        try:
            out[str(name)] = Command(**method)
        except ValidationError as error:
            found = first_fault(error)
        except TypeError:  # keys that are no texts
            found = f"is {method!r:.80}"
        else:
            continue
        raise ValueError(
            f"{path}: method {name}: {flat(found)}. Expected a path, or the keys command (which names {{video}}, "
            "{audio} and {out}), cwd, env, timeout, version. Correct it; see docs/other_methods.md"
        )
    node["methods"] = {name: x for name, x in methods.items() if name not in stated}
    return out


def load_benchmark(
    name: str, root: Path | None = None, methods: Mapping[str, Path] | None = None, split: str | None = None
) -> Benchmark:
    """Read a benchmark's YAML and apply what the command line says instead.

    Args:
        name: Of a benchmark, or of a data set of another package; or the path of a YAML.
        root: Folder of prepared clips, instead of the YAML's.
        methods: Checkpoints, each instead of or beside the YAML's.
        split: Instead of the YAML's.

    Raises:
        FileNotFoundError: No such YAML.
        ValueError: The YAML has other keys or types than expected.
    """
    path, node = _read(name)
    commands = _commands(path, node)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ClipDataModule, "data")
    parser.add_argument("--methods", type=dict[str, Literal["official"] | Path], default={})
    parser.add_argument("--split", type=Split, default="test")
    parser.add_argument("--in_papers", type=str, default="")  # read by lipsync_bench.papers.comparable, too
    parser.add_argument("--lse", type=LSEScript | None, default=None)
    try:
        config = parser.parse_object(node)
        if root is not None:
            config["data"]["init_args"]["root"] = root
        if split is not None:
            config["split"] = split
        data = parser.instantiate(config)["data"]
    except FileNotFoundError:  # of the data
        raise
    except (ArgumentError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a benchmark: {flat(error)[:500]}. Expected the keys data, methods, split, in_papers, lse. "
            "See experiments/benchmarks/"
        ) from error
    paths = {**config["methods"], **(methods or {})}
    commands = {name: command for name, command in commands.items() if name not in paths}
    files = {name: given if given == "official" else run_checkpoint(Path(given)) for name, given in paths.items()}
    lse = config["lse"] or lse_script(config["in_papers"] or path.stem)
    return Benchmark(path.stem, data, files, config["split"], lse, commands)
