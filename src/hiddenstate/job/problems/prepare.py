"""From a problem's name and a recipe to everything that training needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from hiddenstate.artifact import Artifact, HeadSpec, ModelSpec
from hiddenstate.errors import UsageError
from hiddenstate.job.card import About, layers_in_words
from hiddenstate.job.layers import model_spec
from hiddenstate.job.prepared import Json, Prepared
from hiddenstate.job.problems.evaluate import evaluate_problem
from hiddenstate.job.problems.feed import ProblemFeed, samples
from hiddenstate.runtime import Model as Runtime
from hiddenstate.schema import Plain
from hiddenstate.tasks.problems import Problem, parse_problem
from hiddenstate.tasks.problems.streams import stream
from hiddenstate.train import Feed, Recipe, SampleFeed


@dataclass(frozen=True)
class PreparedProblem(Prepared):
    """A problem and the model that is to learn it."""

    problem: Problem
    # A mean over lengths that somebody chose.
    scores_all_lengths: ClassVar[bool] = False

    @cached_property
    def spec(self) -> ModelSpec:
        """The recipe's network over what the problem shows."""
        problem = self.problem
        head = HeadSpec(
            {"task": problem.text, "classes": list(problem.classes)},
            output="classes" if problem.classes else "numbers",
            pool=None if problem.per_step else self.recipe.model.pool,
        )
        return model_spec(Plain(problem.code_sizes, problem.number_names), (head,), self.recipe)

    @property
    def longest_steps(self) -> int:
        """Steps of the longest training sequence."""
        return max(int(self.problem.steps(np.array(self.problem.length)).max()), 3)

    @property
    def longest_length(self) -> int:
        """The greatest length of the problem."""
        return self.problem.length.high

    def steps_at(self, length: int) -> int:
        """Return the steps of a sequence."""
        return int(self.problem.steps(np.array([length]))[0])

    @property
    def test_lengths(self) -> list[int]:
        """Lengths of the final score."""
        given = self.recipe.problems.test_lengths
        return sorted(set(self.problem.length)) if given is None else given

    def identity(self) -> Json:
        """Return the problem and how much of it is drawn."""
        settings = self.recipe.problems
        return {
            "cases": settings.sequences,
            "events": settings.sequences * (self.recipe.train.epochs or 1),
            "digest": self.problem.text,
        }

    def feeds(self) -> tuple[Feed, Feed | None]:
        """Return sequences drawn in every epoch, and some that stay the same."""
        settings, train = self.recipe.problems, self.recipe.train
        rng = stream("validation", train.seed)
        lengths = self.problem.length.draw(rng, settings.validation_sequences)
        judged = SampleFeed(samples(self.problem, rng, lengths, "validation"))
        return ProblemFeed(self.problem, settings, train.seed, train.epochs or 1), judged

    def finishing(self) -> Feed | None:
        """Return None: there is always more to draw."""
        return None

    def floors(self) -> tuple[Json, dict[str, np.ndarray]]:
        """Return nothing: the floor is a formula."""
        return {}, {}

    def facts(self) -> Json:
        """Return the problem and the sizes that were drawn."""
        settings = self.recipe.problems
        return {
            "problem": self.problem.text,
            "test_lengths": self.test_lengths,
            "test_sequences": settings.test_sequences,
            "published": [
                {"cell": p.cell, "score": p.score, "setting": p.setting, "source": p.source}
                for p in self.problem.published
            ],
        }

    def about(self) -> About:
        """Return what the model card tells."""
        settings, problem = self.recipe.problems, self.problem
        where = "at steps of a sequence" if problem.per_step else "after the last step"
        drawn = "drawn anew for every epoch" if settings.fresh else "the same in every epoch"
        figures = (
            f"Published, {p.cell}: {p.score:g} ({p.setting}; {p.source})."
            for p in problem.published
        )
        return About(
            answers=f"This model answers {problem.name} {where}.",
            layers=layers_in_words(self.spec.layers),
            inputs=", ".join(
                [*(f"a symbol of {size}" for size in problem.code_sizes), *problem.number_names]
            ),
            found=f"{settings.sequences:,} sequences an epoch, {drawn}, lengths {problem.length} "
            f"({problem.length_means}),",
            split="by streams of their own for validation and test",
            limits=("The sequences are made, and stand for no data of anybody.", *figures),
        )

    def score(self, artifact: Artifact, seed: int) -> Json:
        """Score on sequences of the lengths asked for."""
        scores = evaluate_problem(
            Runtime(artifact),
            self.problem,
            self.test_lengths,
            count=self.recipe.problems.test_sequences,
            seed=seed,
        )
        return {"part": "test", **scores}


def prepare(source: Any, recipe: Recipe, tell: Callable[[str], None]) -> PreparedProblem:
    """Read the problem's name, which the source and the task both are."""
    problem = parse_problem(recipe.tasks[0])
    if isinstance(source, str) and parse_problem(source) != problem:
        raise UsageError(
            f"The source is {source}, and the task {recipe.tasks[0]}.",
            "A problem is its own source.",
            "Name it once.",
        )
    problem.check_lengths(np.array(recipe.problems.test_lengths or problem.length))
    if recipe.model.bidirectional and problem.per_step:
        tell("Both directions are read: answers may stand in the steps to come.")
    return PreparedProblem(problem.text, recipe, (), problem)
