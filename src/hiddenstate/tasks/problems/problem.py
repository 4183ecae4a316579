"""What a problem with a known answer is: data drawn from a seed, a floor and a ceiling by formula.

The data cost nothing and never end, every answer follows from the definition, and one number,
the length, says how far a memory has to reach. Learning at some lengths and asking at others
shows whether a rule was learnt or a table.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hiddenstate.errors import UsageError
from hiddenstate.tasks.problems.cases import Cases, Ints, Part, Wanted
from hiddenstate.tasks.task import Kind

ProblemMetric: TypeAlias = Literal["accuracy", "log_loss", "squared_error"]
Floats = NDArray[np.float64]

LONGEST = 1_000_000


class Span(NamedTuple):
    """Lengths from low to high, both included; written 600 or 1-40."""

    low: int
    high: int

    def __str__(self) -> str:
        """Return the span as it is written."""
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"

    def ordered(self) -> Span:
        """Return the span; ValueError where its end comes before its beginning."""
        if self.high < self.low:
            raise ValueError(str(self))
        return self

    def draw(self, rng: np.random.Generator, cases: int) -> Ints:
        """Draw a length for each case [C], uniformly."""
        return rng.integers(self.low, self.high + 1, cases)


SHORT = Span(1, 40)


@dataclass(frozen=True)
class Published:
    """A figure from the literature, read in its source.

    score is in the problem's metric; setting names lengths, sizes and data.
    """

    cell: str
    score: float
    setting: str
    source: str


@dataclass(frozen=True)
class Problem(ABC):
    """A problem with its parameters; one length or a span of lengths is always the first.

    kind:     classes or number
    metric:   accuracy, log_loss (nats) or squared_error, a mean over all answers asked for
    per_step: whether answers are asked for at steps, or one at the end of each case
    ceiling:  the best possible score, None where nobody knows it
    """

    name: ClassVar[str]
    kind: ClassVar[Kind] = "classes"
    metric: ClassVar[ProblemMetric] = "accuracy"
    ceiling: ClassVar[float | None] = 1.0
    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType({})
    """All that a parameter may be, the usual value first, for those that are not any number."""
    limits: ClassVar[Mapping[str, tuple[int, int]]] = MappingProxyType({})
    """Least and greatest value of the parameters that are numbers."""
    length_means: ClassVar[str] = "steps of a case"
    published: ClassVar[tuple[Published, ...]] = ()

    length: Span = SHORT

    def __post_init__(self) -> None:
        """Refuse parameters outside their range."""
        for name, allowed in self.choices.items():
            if getattr(self, name) not in allowed:
                raise UsageError(
                    f"The problem {self.name} got {name}={getattr(self, name)}.",
                    f"It takes {', '.join(map(str, allowed))}.",
                    f"Leave it out for {allowed[0]}.",
                )
        for name, (low, high) in self.limits.items():
            self.require(name, low, high)
        self.check_lengths(np.array(self.length))

    @property
    def per_step(self) -> bool:
        """Whether answers are asked for at steps."""
        return False

    @property
    def shortest(self) -> int:
        """The least length that makes sense."""
        return 1

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """How many values each of the K codes of a step can take."""
        return ()

    @property
    def number_names(self) -> tuple[str, ...]:
        """Names of the F numbers of a step."""
        return ()

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, empty for a number."""

    @property
    def text(self) -> str:
        """The problem as written on the command line, without what is as it usually is."""
        given = [
            f"{field.name}={str(value).lower() if isinstance(value, bool) else value}"
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default
        ]
        return ":".join(["problem", self.name, *([",".join(given)] if given else [])])

    def steps(self, lengths: Ints) -> Ints:
        """Return how many steps cases of these lengths have."""
        return lengths

    def sample(self, rng: np.random.Generator, lengths: Ints, part: Part = "train") -> Cases:
        """Draw one case for each of `lengths` [C]; UsageError where one is too short.

        part matters only to problems made from a file, whose parts have no case in common.
        """
        self.check_lengths(lengths)
        offsets = np.concatenate([[0], np.cumsum(self.steps(lengths))])
        return self.draw(Wanted(rng, np.asarray(lengths, dtype=np.int64), offsets, part))

    @abstractmethod
    def draw(self, wanted: Wanted) -> Cases:
        """Draw the cases of `sample`, whose steps lie at `offsets` [C + 1]."""

    @abstractmethod
    def guess(self, cases: Cases) -> Floats:
        """Predict as the guesser whose score is the floor: probabilities [*, V] or numbers [*]."""

    @property
    def chance(self) -> float:
        """The floor, where it is the same at every length."""
        raise NotImplementedError

    def floor(self, length: int) -> float:  # noqa: ARG002
        """Return the score that `guess` is expected to reach at a length, by formula."""
        return self.chance

    def mean_floor(self, lengths: Ints) -> float:
        """Return the floor over answers of cases of these lengths, each length as often as it is.

        An answer counts the same in a long case and in a short one.
        """
        each, counts = np.unique(lengths, return_counts=True)
        weight = counts * np.array([self.answers(int(length)) for length in each])
        return float(weight @ [self.floor(int(length)) for length in each] / weight.sum())

    def answers(self, length: int) -> int:
        """Return how many answers a case of this length is asked for."""
        return int(self.steps(np.array([length]))[0]) if self.per_step else 1

    def marks(self, cases: Cases, predictions: NDArray[Any]) -> Floats:
        """Return a value for each answer asked for [M], whose mean is the score.

        predictions: as `guess` gives them
        """
        values, given = cases.values[cases.mask], predictions[cases.mask]
        marks: Floats
        if self.metric == "squared_error":
            marks = np.square(given.astype(np.float64) - values)
        elif self.metric == "accuracy":
            marks = np.equal(given.argmax(axis=1), values).astype(np.float64)
        else:
            chosen = given[np.arange(len(values)), values].astype(np.float64)
            marks = -np.log(np.maximum(chosen, np.finfo(np.float32).tiny))
        return marks

    def check_lengths(self, lengths: Ints) -> None:
        """Raise UsageError where a length is out of range."""
        low, high = int(np.min(lengths, initial=LONGEST)), int(np.max(lengths, initial=0))
        if low < self.shortest or high > LONGEST:
            raise UsageError(
                f"The problem {self.name} got length {low if low < self.shortest else high}.",
                f"Its length ({self.length_means}) is at least {self.shortest} and at most "
                f"{LONGEST:,}.",
                "Give lengths in this range.",
            )

    def require(self, name: str, low: int, high: int) -> None:
        """Raise UsageError where a parameter is outside low to high."""
        value = getattr(self, name)
        if not low <= value <= high:
            raise UsageError(
                f"The problem {self.name} got {name}={value}.",
                f"{name} is from {low} to {high}.",
                "Give a value in this range.",
            )


def always(cases: Cases, classes: int, chosen: int) -> Floats:
    """Return predictions [*, V] that are sure of one class everywhere."""
    sure = np.zeros((len(cases.values), classes))
    sure[:, chosen] = 1.0
    return sure
