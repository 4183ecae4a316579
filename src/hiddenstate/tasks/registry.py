"""The tasks by name: from the command line, and from an artifact's JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hiddenstate.errors import UsageError, nearest
from hiddenstate.tasks.durations import RemainingTime, TimeToNext
from hiddenstate.tasks.next_event import NextEvent
from hiddenstate.tasks.outcome import Occurs, Outcome
from hiddenstate.tasks.task import Task, read_classes

TASKS: dict[str, type[Task]] = {
    task.type: task for task in (NextEvent, Outcome, Occurs, RemainingTime, TimeToNext)
}
_FORMS = {"outcome": "outcome:column=<column>", "occurs": "occurs:<activity>"}


def parse(text: str) -> Task:
    """Return the (not yet fitted) task that a text names; UsageError with the nearest name.

    >>> parse("occurs:Return ER").name
    'occurs:Return ER'
    """
    kind, colon, rest = text.strip().partition(":")
    if kind not in TASKS:
        forms = [_FORMS.get(name, name) for name in TASKS]
        raise UsageError(
            f"There is no task {kind!r}.",
            f"The tasks are {', '.join(forms)}.",
            f"Name one of them.{nearest(kind, TASKS)}",
        )
    column = rest.removeprefix("column=") if kind == "outcome" else ""
    if kind == "outcome" and column and column != rest:
        return Outcome(column=column)
    if kind == "occurs" and rest:
        return Occurs(happening=rest)
    if kind in _FORMS or colon:
        form = _FORMS.get(kind, kind)
        meant = f" Did you mean outcome:column={rest}?" if kind == "outcome" and rest else ""
        raise UsageError(
            f"The task {text!r} is not complete or says too much.",
            f"It is written {form}.",
            f"Write it in that form.{meant}",
        )
    return TASKS[kind]()


def from_json(value: Mapping[str, Any]) -> Task:
    """Return the fitted task that `Task.to_json` wrote."""
    return replace(parse(str(value["task"])), classes=read_classes(value))
