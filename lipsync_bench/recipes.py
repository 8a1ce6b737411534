# SPDX-License-Identifier: Apache-2.0
"""The recipe of a method that is named: what `bench prepare --for NAME` cuts faces by."""

from importlib import import_module
from typing import Any

import torch

from lipsync_bench.datamodules.files.texts import read_yaml
from lipsync_bench.datamodules.recipes.options import RecipeOptions
from lipsync_bench.datamodules.recipes.recipe import Recipe
from lipsync_bench.experiment_files import experiment_file
from lipsync_bench.models import list_methods
from lipsync_bench.models.core.training import BenchModule

__all__ = ["recipe_named"]


def _of_run(name: str) -> tuple[Any, dict[str, Any]]:
    """The model's class and arguments that the YAMLs of a run state, the later ones over the earlier; None for none."""
    kind: Any = None
    arguments: dict[str, Any] = {}
    for part in name.split("+"):
        file = experiment_file("", part)
        if file is None:
            return None, {}
        model = read_yaml(file, "a training run", "See: bench experiments list").get("model") or {}
        if "class_path" in model:
            package, _, class_name = str(model["class_path"]).rpartition(".")
            kind = getattr(import_module(package), class_name)
        arguments |= model.get("init_args") or {}
    return kind, arguments


def recipe_named(name: str, options: RecipeOptions = RecipeOptions()) -> Recipe:
    """How the faces of a method or of a training run are fed.

    Args:
        name: One of `list_methods()`, by name or class; or YAMLs of a run as `bench experiments list` names them,
            joined by plus signs: wav2lip_gan, hyperlips_hr+hyperlips/x2.
        options: Parts that are replaced.

    Raises:
        ValueError: There is no such method or run, or it sees no faces.
    """
    kind, arguments = _of_run(name)
    methods = list_methods()
    kind = kind or methods.get(name) or {kind.__name__: kind for kind in methods.values()}.get(name)
    recipe = None
    if isinstance(kind, type) and issubclass(kind, BenchModule):
        with torch.device("meta"):  # no memory: only its recipe is asked for
            recipe = kind(**arguments).recipe
    if recipe is None:
        found = "no method or run of that name" if kind is None else "sees no faces"
        raise ValueError(
            f"{name}: {found}. Expected one of {', '.join(methods)}, or a run (bench experiments list), with + "
            "between a YAML and its overlay. Correct --for"
        )
    return options.applied(recipe)
