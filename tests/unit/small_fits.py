"""A small log, model and feed for the tests of training."""

from __future__ import annotations

from typing import Any

from hiddenstate.job.events.prepare import prepare
from hiddenstate.job.events.prepared import PreparedLog
from hiddenstate.models import SequenceModel
from hiddenstate.schema import EventLog
from hiddenstate.train import LogFeed, Recipe, read_recipe

TRACES = [["a", "b", "c"], ["a", "c"], ["a", "b", "b", "c"], ["b"]] * 5
SMALL: dict[str, Any] = {
    "hidden_size": 4,
    "epochs": 3,
    "batch_size": 4,
    "embedding_size": 3,
    "threads": 1,
}


def small_recipe(**settings: object) -> Recipe:
    """Return a recipe that trains in no time."""
    return read_recipe(None, {**SMALL, **settings})


def small_log() -> EventLog:
    """Return twenty short cases without times."""
    return EventLog.from_traces(TRACES)


def prepared(recipe: Recipe) -> PreparedLog:
    """Return the small log prepared for training."""
    return prepare(small_log(), recipe, lambda _: None)


def feed(ready: PreparedLog, part: int = 0, weights: Any = None) -> LogFeed:
    """Return a part of a prepared log as a feed."""
    log = ready.parts[part]
    return LogFeed(log, ready.schema, ready.tasks, ready.spec.heads, weights)


def model(ready: PreparedLog) -> SequenceModel:
    """Return a fresh model of the prepared specification."""
    return SequenceModel(ready.spec)
