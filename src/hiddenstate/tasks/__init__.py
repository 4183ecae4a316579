"""What is predicted, how it is scored, and what it has to beat."""

from __future__ import annotations

from hiddenstate.tasks.class_floors import ClassFloors
from hiddenstate.tasks.compare import Metric, Verdict, compare
from hiddenstate.tasks.durations import RemainingTime, TimeToNext
from hiddenstate.tasks.floors import Floors, fit_floors, floors_from
from hiddenstate.tasks.judged import (
    ClassJudge,
    Judged,
    JudgedClasses,
    JudgedNumbers,
    NumberJudge,
    judge,
)
from hiddenstate.tasks.next_event import END, NextEvent
from hiddenstate.tasks.number_floors import NumberFloors
from hiddenstate.tasks.outcome import Occurs, Outcome
from hiddenstate.tasks.registry import TASKS, from_json, parse
from hiddenstate.tasks.resampling import Score
from hiddenstate.tasks.scores import Scores, score
from hiddenstate.tasks.task import UNKNOWN_CLASS, Kind, Targets, Task

__all__ = [
    "END",
    "TASKS",
    "UNKNOWN_CLASS",
    "ClassFloors",
    "ClassJudge",
    "Floors",
    "Judged",
    "JudgedClasses",
    "JudgedNumbers",
    "Kind",
    "Metric",
    "NextEvent",
    "NumberFloors",
    "NumberJudge",
    "Occurs",
    "Outcome",
    "RemainingTime",
    "Score",
    "Scores",
    "Targets",
    "Task",
    "TimeToNext",
    "Verdict",
    "compare",
    "fit_floors",
    "floors_from",
    "from_json",
    "judge",
    "parse",
    "score",
]
