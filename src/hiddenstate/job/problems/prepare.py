"""From a problem's name and a recipe to everything that training needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hiddenstate.artifact import Artifact, HeadSpec, ModelSpec
from hiddenstate.errors import UsageError
from hiddenstate.job.card import About, layers_in_words
from hiddenstate.job.layers import layers_of
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

    source: str
    problem: Problem
    recipe: Recipe
    spec: ModelSpec
    remarks: tuple[str, ...] = ()
    # A mean over lengths that somebody chose.
    scores_all_lengths: ClassVar[bool] = False

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

    def feeds(self, recipe: Recipe) -> tuple[Feed, Feed | None]:
        """Return sequences drawn in every epoch, and some that stay the same."""
        settings, seed = recipe.problems, recipe.train.seed
        rng = stream("validation", seed)
        lengths = self.problem.length.draw(rng, settings.validation_sequences)
        judged = SampleFeed(samples(self.problem, rng, lengths, "validation"))
        return ProblemFeed(self.problem, settings, seed, recipe.train.epochs or 1), judged

    def finishing(self, recipe: Recipe) -> Feed | None:  # noqa: ARG002
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
    """Decide the specification; the source and the task are both the problem's name."""
    problem = parse_problem(recipe.tasks[0])
    if isinstance(source, str) and parse_problem(source) != problem:
        raise UsageError(
            f"The source is {source}, and the task {recipe.tasks[0]}.",
            "A problem is its own source.",
            "Name it once.",
        )
    problem.check_lengths(np.array(recipe.problems.test_lengths or problem.length))
    schema = Plain(problem.code_sizes, problem.number_names)
    widths = tuple(min(recipe.model.embedding_size, size) for size in problem.code_sizes)
    head = HeadSpec(
        {"task": problem.text, "classes": list(problem.classes)},
        output="classes" if problem.classes else "numbers",
        pool=None if problem.per_step else recipe.model.pool,
    )
    if recipe.model.bidirectional and problem.per_step:
        tell("Both directions are read: answers may stand in the steps to come.")
    layers = layers_of(recipe, sum(widths) + len(problem.number_names))
    model = recipe.model
    spec = ModelSpec(schema, widths, layers, (head,), model.residual, model.layer_norm)
    return PreparedProblem(problem.text, problem, recipe, spec)
