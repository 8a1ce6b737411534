# SPDX-License-Identifier: Apache-2.0
"""Where the YAMLs of runs, benchmarks, protocols and tables lie: in experiments/ here, else in the installation's.

Protocols and tables are read and checked by pydantic; a benchmark by jsonargparse, as runs are, because its `data` is a
class with arguments.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import lipsync_bench
from lipsync_bench.datamodules.files.texts import flat, read_yaml

if TYPE_CHECKING:
    from pydantic import ValidationError

HERE = Path("experiments")
_LONGEST = 200  # name of a file, which a file system may refuse to look up
_Model = TypeVar("_Model")

__all__ = [
    "experiment_file",
    "experiment_folders",
    "experiment_names",
    "first_fault",
    "installed_experiments",
    "named_file",
    "plain_name",
    "read_experiment",
    "run_file",
]


def installed_experiments() -> Path:
    """The folder that comes with the package."""
    folders = [Path(folder) / "experiments" for folder in lipsync_bench.__path__]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def _folders(kind: str) -> list[Path]:
    return [HERE / kind, installed_experiments() / kind]


def experiment_names(kind: str) -> list[str]:
    """Names of all YAMLs of a kind, sorted.

    Args:
        kind: "benchmarks", "protocols" or "tables"; "" for the runs of methods.
    """
    return sorted({path.stem for folder in _folders(kind) for path in folder.glob("*.yaml")})


def experiment_folders() -> list[str]:
    """Names of the folders of YAMLs: benchmarks, protocols, tables, and those of overlays; sorted."""
    folders = (folder for root in _folders("") for folder in root.glob("*/") if any(folder.glob("*.yaml")))
    return sorted({folder.name for folder in folders})


def experiment_file(kind: str, name: str) -> Path | None:
    """The YAML of that name, the working folder's before the installation's; None if neither has one."""
    files = (folder / f"{name}.yaml" for folder in _folders(kind))
    return next((path for path in files if path.is_file()), None)


def named_file(kind: str, name: str, option: str) -> Path:
    """The YAML of a name, or the one at a path that ends in .yaml or .yml.

    Args:
        kind: As for `experiment_names`.
        name: The name or path.
        option: What takes it on the command line, for messages.

    Raises:
        FileNotFoundError: Neither; lists the names there are.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else experiment_file(kind, name)
    if path is None or not path.is_file():
        known = ", ".join(experiment_names(kind))
        raise FileNotFoundError(
            f"no {kind.removesuffix('s')} {name!r}. Expected one of {known}, or the path of a YAML: {option} FILE.yaml"
        )
    return path


def plain_name(name: str) -> str:
    """The name of a YAML without `experiments/` and the suffix, with which it may be typed."""
    return name.removeprefix("experiments/").removesuffix(".yaml").removesuffix(".yml")


def run_file(name: str) -> Path:
    """The YAML of a training run or an overlay: a path, or its name, with or without `experiments/` and the suffix.

    Args:
        name: Such as `wav2lip`, `overlays/mead`, `experiments/wav2lip.yaml`, `my_folder/mine.yaml`.

    Raises:
        FileNotFoundError: Neither a file here nor one of the package; lists the names there are.
    """
    if os.path.isfile(name):  # noqa: PTH113 (a path raises for a long name)
        return Path(name)
    stem = plain_name(name)
    known = experiment_file("", stem) if stem and len(stem) < _LONGEST else None
    if known is None:
        raise FileNotFoundError(
            f"-c {name}: no such file. Expected a YAML, or one of {', '.join(experiment_names(''))}. See: bench "
            "experiments list"
        )
    return known


def first_fault(error: "ValidationError") -> str:
    """What pydantic found first, in words."""
    fault = error.errors(include_url=False)[0]
    key = ".".join(map(str, fault["loc"]))
    return {
        "missing": f"has no {key}",
        "extra_forbidden": f"has the unknown key {key}",
        "unexpected_keyword_argument": f"has the unknown key {key}",
    }.get(
        fault["type"],
        f"{key} is {fault['input']!r:.80} ({fault['msg']})" if key else fault["msg"].removeprefix("Value error, "),
    )


def read_experiment(kind: str, path: Path, model: Callable[..., _Model], *, printed: bool = False) -> _Model:
    """What a YAML holds as a pydantic model; keys, types and values that the model does not take are refused.

    Args:
        kind: "protocols" or "tables".
        path: The file.
        model: A pydantic dataclass or BaseModel.
        printed: Every value is the text that stands there.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else; names the file, the first key that is wrong, its value and what is wrong.
    """
    from pydantic import ValidationError

    expected, repair = f"a {kind.removesuffix('s')}", f"Correct it; those of the package are in experiments/{kind}/"
    node = read_yaml(path, expected, repair, printed=printed)
    try:
        return model(**node)
    except ValidationError as error:
        found = first_fault(error)
    except TypeError as error:  # no mapping, keys that are no texts, or one that the model is given already
        found = f"holds {node!r:.80} ({error})"
    raise ValueError(f"{path}: {flat(found)}. Expected {expected}. {repair}")
