"""Problems with known answers: data from a seed, floors and ceilings by formula, a length axis."""

from __future__ import annotations

from hiddenstate.tasks.problems.cases import Cases, Part
from hiddenstate.tasks.problems.problem import (
    Problem,
    ProblemMetric,
    Published,
    Span,
)
from hiddenstate.tasks.problems.registry import PREFIX, PROBLEMS, parse_problem

__all__ = [
    "PREFIX",
    "PROBLEMS",
    "Cases",
    "Part",
    "Problem",
    "ProblemMetric",
    "Published",
    "Span",
    "parse_problem",
]
