"""The recipes: one module per paper, and every number with its source."""

import difflib

from training.recipes import (
    digits,
    dmrnet,
    fine_tune,
    ortho_plain_net,
    resnet,
    wide_resnet,
)
from training.recipes.recipe import PRECISIONS, Recipe, parse_setting

__all__ = [
    "PRECISIONS",
    "RECIPES",
    "Recipe",
    "find",
    "parse_setting",
    "table",
]

MODULES = digits, wide_resnet, dmrnet, ortho_plain_net, resnet, fine_tune

RECIPES = {
    recipe.name: recipe for module in MODULES for recipe in module.RECIPES
}


def find(name):
    """Returns the recipe of that name.

    Raises:
        ValueError: If there is none. The message names the most similar ones.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, cutoff=0.0)
        raise ValueError(
            "`--recipe` should be one of those that `--list` shows, such as "
            f"{', '.join(near)}. Received: --recipe {name}"
        )
    return RECIPES[name]


def table(part=""):
    """Returns the recipes as lines of text: what `--list` prints.

    Args:
        part: str. Lists only the recipes with it in their names. Defaults to
            `""`.

    Raises:
        ValueError: If there are none with `part` in their names.
    """
    rows = [("recipe", "data set", "epochs", "published error", "source")]
    for recipe in RECIPES.values():
        if part not in recipe.name:
            continue
        error = "-" if recipe.error is None else f"{recipe.error:g} %"
        rows.append(
            (
                recipe.name,
                recipe.dataset,
                str(recipe.epochs),
                f"{error} {recipe.note}".strip(),
                recipe.source,
            )
        )
    if len(rows) == 1:
        raise ValueError(
            "`--list` should be a part of a recipe's name, or nothing for all. "
            f"Received: --list {part}"
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    )
