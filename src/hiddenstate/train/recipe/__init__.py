"""The recipe: every choice of a fit in one tree, from defaults, a TOML file and flags."""

from hiddenstate.train.recipe.read import parse_settings, read_recipe
from hiddenstate.train.recipe.sections import Input, Model, Split, Train
from hiddenstate.train.recipe.tree import DEFAULTS, Recipe

__all__ = [
    "DEFAULTS",
    "Input",
    "Model",
    "Recipe",
    "Split",
    "Train",
    "parse_settings",
    "read_recipe",
]
