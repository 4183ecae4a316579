"""What every family of tasks brings to a fit: data in parts, a specification, feeds and scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from hiddenstate.artifact import Artifact, ModelSpec
from hiddenstate.job.card import About
from hiddenstate.models import Regularisation, SequenceModel, Trainable
from hiddenstate.train import Feed, Recipe

Json = dict[str, Any]


@dataclass(frozen=True)
class Prepared(ABC):
    """A source that was read and a model that was decided, before the first training step.

    source:  what the source is called
    recipe:  what was asked for
    remarks: what had to be told about the data

    scores_all_lengths: whether the score of all lengths together says something
    """

    source: str
    recipe: Recipe
    remarks: tuple[str, ...]
    scores_all_lengths: ClassVar[bool] = True

    @property
    @abstractmethod
    def spec(self) -> Any:
        """What the model is: the recipe's network over what was read."""

    def with_recipe(self, recipe: Recipe) -> Self:
        """Return the same data with the network and the training of another recipe.

        What it says of tasks, reading and splitting comes too late to change anything.
        """
        return replace(self, recipe=recipe)

    @property
    def longest_steps(self) -> int:
        """Steps of the longest training sequence: a chrono start lets gates remember so long."""
        return max(int(self.feeds()[0].lengths.max(initial=0)), 3)

    @property
    def longest_length(self) -> int:
        """The greatest length in training, counted as the scores by length count."""
        return int(self.feeds()[0].lengths.max(initial=0))

    def steps_at(self, length: int) -> int:
        """Return the steps of a sequence of a length, counted as the scores by length count."""
        return length

    def build(self) -> Trainable:
        """Return the torch model with first weights drawn by torch's generator."""
        return sequence_model(self.spec, self.recipe, self.longest_steps)

    @abstractmethod
    def identity(self) -> Json:
        """Return counts and a digest of what was read: a resumed fit must find the same."""

    def parts_of_cases(self) -> Iterable[tuple[str, str]]:
        """Return the part (train, validation, test) of every named case; none where cases have no
        names."""
        return ()

    @abstractmethod
    def feeds(self) -> tuple[Feed, Feed | None]:
        """Return what is trained on, and what decides when to stop (None: nothing does)."""

    @abstractmethod
    def finishing(self) -> Feed | None:
        """Return training and validation part together for the last epochs.

        None for none, and where there is no test part: the validation part is then what is scored.
        """

    @abstractmethod
    def floors(self) -> tuple[Json, dict[str, np.ndarray]]:
        """Return the floors' settings by task, and their arrays by "INDEX/NAME"."""

    @abstractmethod
    def facts(self) -> Json:
        """Return what else the metrics keep: sizes, the split, how to read later files."""

    @abstractmethod
    def about(self) -> About:
        """Return what the model card tells."""

    @abstractmethod
    def score(self, artifact: Artifact, seed: int) -> Json:
        """Return the scores of the finished weights on the held-back part, beside the floors.

        `part` names what was scored; the rest is as `job.scores` makes it.
        """


def sequence_model(spec: ModelSpec, recipe: Recipe, longest_steps: int) -> SequenceModel:
    """Return the torch model of a ModelSpec with a recipe's noise, kernel and first weights."""
    settings = recipe.train
    return SequenceModel(
        spec,
        Regularisation(
            settings.dropout, settings.input_dropout, settings.variational, settings.dropconnect
        ),
        settings.kernel,
        recipe.model.init or ("orthogonal" if recipe.model.cell == "elman" else "chrono"),
        longest_steps,
    )


def called(source: Any) -> str:
    """What a source is called in the run folder and on the model card."""
    if isinstance(source, str | Path):
        return str(source)
    if isinstance(source, list | tuple):
        return ", ".join(map(str, source))
    return f"a {type(source).__module__.partition('.')[0]} {type(source).__name__}"
