"""An event log that was read and shared out, with what shall be learnt from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate import data
from hiddenstate.artifact import Artifact, HeadSpec, ModelSpec
from hiddenstate.job.card import About, layers_in_words
from hiddenstate.job.events.digest import digest
from hiddenstate.job.events.evaluate import Ceiling, evaluate_log
from hiddenstate.job.layers import model_spec
from hiddenstate.job.prepared import Json, Prepared
from hiddenstate.runtime import Model as Runtime
from hiddenstate.schema import EventLog, Schema
from hiddenstate.tasks import Floors, Task
from hiddenstate.train import Feed, LogFeed, recency_weights


@dataclass(frozen=True)
class PreparedLog(Prepared):
    """What was read and decided before the first training step.

    parts: training, validation and test cases
    """

    log: EventLog
    split: data.Split
    parts: tuple[EventLog, EventLog, EventLog]
    tasks: tuple[Task, ...]
    fitted_floors: tuple[Floors, ...]
    schema: Schema
    heads: tuple[HeadSpec, ...]
    reading: Mapping[str, Any]
    ceiling: Ceiling | None

    @cached_property
    def spec(self) -> ModelSpec:
        """The recipe's network over the log's schema."""
        return model_spec(self.schema, self.heads, self.recipe)

    @property
    def both(self) -> EventLog:
        """The training and validation cases together, as `parts` has them, by start."""
        kept = np.sort(np.concatenate([self.split.train, self.split.validation]))
        together = data.Split(kept, kept[:0], kept[:0], "", self.split.until_us)
        return together.parts(self.log)[0]

    def feed(self, log: EventLog, recency: float = 0.0) -> LogFeed:
        """Return cases as a feed; see `recency_weights`."""
        weights = recency_weights(log, recency)
        return LogFeed(log, self.schema, self.tasks, self.heads, weights)

    def feeds(self) -> tuple[Feed, Feed | None]:
        """Return the training cases, the newer ones counting more, and the validation cases."""
        training, validation, _ = self.parts
        judged = self.feed(validation) if validation.cases else None
        return self.feed(training, self.recipe.train.recency), judged

    def finishing(self) -> Feed | None:
        """Return training and validation cases together, where there are others to score."""
        return self.feed(self.both, self.recipe.train.recency) if self.parts[2].cases else None

    def identity(self) -> Json:
        """Return counts and a digest of the log."""
        return {"cases": self.log.cases, "events": self.log.events, "digest": digest(self.log)}

    def parts_of_cases(self) -> Iterator[tuple[str, str]]:
        """Yield the part of every case."""
        for part, log in zip(("train", "validation", "test"), self.parts, strict=True):
            for name in log.case_ids:
                yield str(name), part

    def floors(self) -> tuple[Json, dict[str, NDArray[Any]]]:
        """Return the floors of every task."""
        arrays = {
            f"{index}/{name}": array
            for index, floor in enumerate(self.fitted_floors)
            for name, array in floor.to_arrays().items()
        }
        return {task.name: f.to_json() for task, f in zip(self.tasks, self.fitted_floors)}, arrays

    def facts(self) -> Json:
        """Return sizes, the split, and how to read later files."""
        return {
            "cases": self.log.cases,
            "events": self.log.events,
            "split": {
                "description": self.split.description,
                "cases": [part.cases for part in self.parts],
            },
            "reading": {"with_times": self.log.time_us is not None, **self.reading},
        }

    def about(self) -> About:
        """Return what the model card tells."""
        schema = self.schema
        return About(
            answers="At every step of a case's history this model answers: "
            + "; ".join(_question(name) for name in self.spec.task_names)
            + ".",
            layers=layers_in_words(self.spec.layers),
            inputs=", ".join([*schema.vocabularies, *schema.number_names]),
            found=f"{self.log.cases:,} cases, {self.log.events:,} events",
            split=self.split.description,
            limits=(
                "Activities that were not in the training part are read as one unknown activity "
                "and can never be predicted.",
                "Probabilities are those of the recorded process; they say what usually happens "
                "next, not what should.",
            ),
        )

    def score(self, artifact: Artifact, seed: int) -> Json:
        """Score the test cases; without any, the validation cases, or the training ones."""
        named = zip(("test", "validation", "training"), self.parts[::-1], strict=True)
        part, log = next((name, each) for name, each in named if each.cases)
        floors = {task.name: floor for task, floor in zip(self.tasks, self.fitted_floors)}
        scores = evaluate_log(Runtime(artifact), floors, log, seed=seed, ceiling=self.ceiling)
        return {"part": part, **scores}


def _question(task: str) -> str:
    kind, _, rest = task.partition(":")
    return {
        "next_event": "what happens next",
        "remaining_time": "how many days until the case ends",
        "time_to_next": "how many days until the next event",
        "occurs": f"will {rest} still happen",
        "outcome": f"how will the case end ({rest.removeprefix('column=')})",
    }[kind]
