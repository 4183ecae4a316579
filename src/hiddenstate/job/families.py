"""Which kind of data a task is about, and who reads, prepares and serves it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from hiddenstate.errors import UsageError, nearest
from hiddenstate.tasks import TASKS


@dataclass(frozen=True)
class Family:
    """Tasks over one kind of data; its room is `hiddenstate.job.NAME`.

    The room's module `prepare` makes everything ready for a fit (and may load torch), its module
    `model` holds what a fitted model can do (and never does).
    """

    name: str
    tasks: tuple[str, ...]

    def prepare(self, *arguments: Any, **options: Any) -> Any:
        """Read a source: `prepare(source, recipe, tell)` of the room, giving a `Prepared`."""
        return import_module(f"hiddenstate.job.{self.name}.prepare").prepare(*arguments, **options)

    def model(self, *arguments: Any, **options: Any) -> Any:
        """Wrap an artifact: `Fitted(artifact, weights)` of the room, a `job.model.Model`."""
        return import_module(f"hiddenstate.job.{self.name}.model").Fitted(*arguments, **options)

    def evidence(self, *arguments: Any, **options: Any) -> Any:
        """Gather what a diagnosis asks for: `Gathered` of the room, a `job.evidence.Evidence`."""
        room = import_module(f"hiddenstate.job.{self.name}.evidence")
        return room.Gathered(*arguments, **options)


EVENTS = Family("events", ())
FAMILIES = (
    Family("text", ("lm",)),
    Family("labels", ("classify", "label", "regress", "regress_steps")),
    Family("series", ("forecast", "next_frame")),
    Family("pairs", ("translate",)),
    Family("problems", ("problem",)),
    EVENTS,
)


def family_of(tasks: Sequence[str]) -> Family:
    """Return the family of tasks by their first words; every other task is about event logs.

    Raises UsageError for an unknown task, for tasks of several families, and for several where one
    is learnt at a time.
    """
    found = [_of(task) for task in tasks]
    if len(tasks) > 1 and any(family is not EVENTS for family in found):
        raise UsageError(
            f"The tasks {', '.join(tasks)} are asked for together.",
            "Several tasks can be learnt at once from event logs only.",
            "Fit one model for each.",
        )
    return found[0]


def _of(task: str) -> Family:
    kind = task.partition(":")[0]
    known = [*TASKS, *(name for family in FAMILIES for name in family.tasks)]
    if kind not in known:
        raise UsageError(
            f"There is no task {kind!r}.",
            f"The tasks are {', '.join(known)}.",
            f"Name one of them.{nearest(kind, known)}",
        )
    return next((family for family in FAMILIES if kind in family.tasks), EVENTS)
