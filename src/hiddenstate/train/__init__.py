"""Training: the recipe, the feed, the loop and its checkpoints."""

from hiddenstate.train.feed import Feed, recency_weights
from hiddenstate.train.loop import fit
from hiddenstate.train.progress import Progress
from hiddenstate.train.recipe import Recipe, read_recipe

__all__ = ["Feed", "Progress", "Recipe", "fit", "read_recipe", "recency_weights"]
