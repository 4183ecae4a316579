"""Training: the recipe, the feeds, the loop and its checkpoints."""

from hiddenstate.train.feed import Feed, LogFeed, SampleFeed, recency_weights
from hiddenstate.train.loop import fit
from hiddenstate.train.progress import Progress
from hiddenstate.train.recipe import Recipe, read_recipe

__all__ = [
    "Feed",
    "LogFeed",
    "Progress",
    "Recipe",
    "SampleFeed",
    "fit",
    "read_recipe",
    "recency_weights",
]
