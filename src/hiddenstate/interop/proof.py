"""Two systems run the same input: a conversion counts once their numbers agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from hiddenstate.cells.conventions import ConversionRefusal
from hiddenstate.interop.weights import Array, States, Weights, astype_states

ROWS, STEPS = 5, 11
LENGTHS = (STEPS, 1, 0, 7, 4)
SATURATING = 50.0
"""Factor on standard normal inputs that drives gates to 0 and 1."""

Runner: TypeAlias = Callable[[Array, Array | None, States | None], tuple[Array, States | None]]
"""x [B, T, D], lengths [B] int64 or None, States or None -> output [B, T, P], last States.

What stands in the output past a row's length is not looked at. A system that shows no last states
gives None for them.
"""

T_co = TypeVar("T_co", covariant=True)


class Case(NamedTuple):
    """Largest differences over one input; `state` is None where the other system shows none."""

    name: str
    rows: int
    steps: int
    output: float
    state: float | None
    tolerance: float

    @property
    def worst(self) -> float:
        """The larger of the two differences; NaN where a difference is."""
        return self.output if self.state is None else float(np.maximum(self.output, self.state))


@dataclass(frozen=True)
class Proof:
    """The differences between our reference and another system, case by case."""

    dtype: str
    cases: tuple[Case, ...]

    @property
    def output(self) -> float:
        """Largest difference of outputs."""
        return max(case.output for case in self.cases)

    @property
    def state(self) -> float | None:
        """Largest difference of last states, None where the other system shows none."""
        return max((case.state for case in self.cases if case.state is not None), default=None)

    def rows(self) -> list[list[str]]:
        """Return a row of words for each case: name, B x T, output, state, tolerance."""
        return [
            [
                case.name,
                f"{case.rows} x {case.steps}",
                f"{case.output:.1e}",
                "" if case.state is None else f"{case.state:.1e}",
                f"{case.tolerance:.1e}",
            ]
            for case in self.cases
        ]

    def to_json(self) -> dict[str, object]:
        """Return the proof as JSON values."""
        cases = [case._asdict() for case in self.cases]
        return {"dtype": self.dtype, "output": self.output, "state": self.state, "cases": cases}

    def __str__(self) -> str:
        """Return the table, one case a line."""
        lines = [COLUMNS, *self.rows()]
        widths = [max(len(line[k]) for line in lines) for k in range(len(COLUMNS))]
        return "\n".join(
            "  ".join(word.ljust(width) for word, width in zip(line, widths)).rstrip()
            for line in lines
        )


COLUMNS = ["case", "rows x steps", "output", "state", "allowed"]


@dataclass(frozen=True, eq=False)
class Converted(Generic[T_co]):
    """A model of the other system, what it was made from or into, and the proof that they agree.

    value:   the other system's model, or its weights
    weights: ours
    notes:   what somebody who goes on with the result should know
    """

    value: T_co
    weights: Weights
    proof: Proof
    notes: tuple[str, ...] = ()


def prove(
    weights: Weights,
    run: Runner,
    *,
    lengths: bool,
    states: bool,
    dtype: DTypeLike,
    shortest: int = 0,
    slack: int = 16,
) -> Proof:
    """Run both sides on random and on edge inputs and return the differences.

    lengths:  the other side takes lengths, of at least `shortest`
    states:   it takes first states
    dtype:    in which it runs, float32 or float64
    slack:    how much worse than our own reference its rounding may be

    A difference is taken against our reference in float64. Allowed is what rounding explains:
    `slack` times what our own reference loses in float32 on this input and these weights, brought
    to `dtype`, and some ulp of the largest number.

    Raises ConversionRefusal when a case differs by more.
    """
    kind = np.dtype(dtype)
    exact = weights.astype(kind).astype(np.float64)
    single = exact.astype(np.float32)
    found = []
    for name, x, counts, first in _inputs(exact, kind, lengths, states, shortest):
        truth = exact.run(x.astype(np.float64), counts, astype_states(first, np.float64))
        rough = single.run(x.astype(np.float32), counts, astype_states(first, np.float32))
        output, last = run(x, counts, first)
        live = _live(counts, x)
        lost = max(_largest(truth.output, rough.output), _largest_state(truth.states, rough.states))
        size = max(1.0, _size(truth.output), *(map(_size, _arrays(truth.states))))
        ulp = float(np.finfo(kind).eps)
        found.append(
            Case(
                name,
                ROWS,
                x.shape[1],
                _largest(truth.output, _shaped(output, truth.output, live)),
                None if last is None else _largest_state(truth.states, last),
                slack * lost * ulp / float(np.finfo(np.float32).eps) + 16 * ulp * size,
            )
        )
    proof = Proof(kind.name, tuple(found))
    require_equal(proof)
    return proof


def difference(weights: Weights, run: Runner, dtype: DTypeLike = np.float64) -> float:
    """Return the largest difference of outputs over random input, to tell a refused error."""
    x = np.random.default_rng(0).standard_normal((ROWS, STEPS, weights.input_size))
    x = x.astype(dtype)
    exact = weights.astype(np.float64)
    return _largest(exact.run(x.astype(np.float64)).output, np.asarray(run(x, None, None)[0]))


def _inputs(
    weights: Weights, kind: Any, lengths: bool, states: bool, shortest: int
) -> Iterator[tuple[str, Array, Array | None, States | None]]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS, STEPS, weights.input_size)).astype(kind)
    drawn = tuple(
        tuple(
            way.cell.State(
                *(
                    (0.5 * rng.standard_normal((ROWS, width))).astype(kind)
                    for width in way.cell.state_shapes().values()
                )
            )
            for way in ways
        )
        for ways in weights.layers
    )
    counts = np.maximum(LENGTHS, shortest).astype(np.int64)
    yield "random", x, None, None
    yield "one step", x[:, :1], None, None
    yield "saturated", (SATURATING * x).astype(kind), None, None
    if states:
        yield "given states", x, None, drawn
        yield "one step, given states", x[:, :1], None, drawn
    if lengths:
        yield "ragged", x, counts, None
    if lengths and states:
        yield "ragged, given states", x, counts, drawn


def require_equal(proof: Proof) -> None:
    """Raise ConversionRefusal when a case differs by more than is allowed."""
    # Written so that NaN is a difference.
    wrong = [case for case in proof.cases if not case.worst <= case.tolerance]
    if wrong:
        worst = max(wrong, key=lambda case: np.nan_to_num(case.worst, nan=np.inf))
        told = "; ".join(f"{case.name} by {case.worst:.2g}" for case in wrong)
        raise ConversionRefusal(
            f"The two models differ: {told}.",
            f"In {proof.dtype} rounding explains at most {worst.tolerance:.2g} there.",
            "Check that the weights belong to this model, and that its options are those that "
            "hiddenstate reads.",
            worst.worst,
        )


def _live(counts: Array | None, x: Array) -> Array:
    ends = np.full(x.shape[0], x.shape[1]) if counts is None else counts
    live: Array = (np.arange(x.shape[1]) < ends[:, None])[..., None]
    return live


def _shaped(output: Array, like: Array, live: Array) -> Array:
    """Return an output of the shape [B, T, P] with zeros past each row's length."""
    output = np.asarray(output)
    return np.where(live, output, 0.0) if output.shape == like.shape else output


def _largest(left: Array, right: Array) -> float:
    if left.shape != right.shape:
        return float("inf")
    return float(np.abs(left - right).max(initial=0.0))


def _largest_state(left: States, right: States) -> float:
    pairs = zip(_arrays(left), _arrays(right), strict=True)
    return max(_largest(a, np.asarray(b)) for a, b in pairs)


def _arrays(states: States) -> list[Array]:
    return [array for ways in states for state in ways for array in state]


def _size(array: Array) -> float:
    return float(np.abs(array).max(initial=0.0))
