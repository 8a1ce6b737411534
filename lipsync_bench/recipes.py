# SPDX-License-Identifier: Apache-2.0
"""The recipe of a method that is named: what `bench prepare --for NAME` cuts faces by."""

from lipsync_bench.datamodules.recipe import Recipe
from lipsync_bench.datamodules.recipe_options import RecipeOptions
from lipsync_bench.models import list_methods

__all__ = ["recipe_named"]


def recipe_named(name: str, options: RecipeOptions = RecipeOptions()) -> Recipe:
    """Stands here until the one of the branch `recipes` is merged."""
    recipe = getattr(list_methods().get(name), "recipe", None)
    if not isinstance(recipe, Recipe):
        raise ValueError(f"{name}: no method of that name. Expected one of {', '.join(list_methods())} (--for)")
    return options.applied(recipe)
