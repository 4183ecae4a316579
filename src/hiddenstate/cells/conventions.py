"""The same recurrence in another convention: exact, or refused with the error it would make."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hiddenstate.cells.arrays import NUMPY
from hiddenstate.cells.cell import Cell, Params
from hiddenstate.cells.gru import GRU
from hiddenstate.errors import HiddenstateError, SpecError

Arrays: TypeAlias = dict[str, NDArray[Any]]


class ConversionRefusal(HiddenstateError):
    """A conversion between two conventions would change what the cell computes.

    measured_error: largest difference in the state that a forced conversion made
    """

    def __init__(self, wrong: str, expected: str, remedy: str, measured_error: float) -> None:
        super().__init__(wrong, expected, remedy)
        self.measured_error = measured_error


def convert(source: Cell, params: Params, target: Cell) -> Arrays:
    """Return NumPy parameters with which `target` computes what `source` does with `params`.

    Exact to rounding: an update gate that keeps into one that writes and back (its rows are
    negated: 1 - sigmoid(a) = sigmoid(-a)); one bias into two; two into one, except the GRU's b_hn
    where the reset gate acts after the product; any bias that is zero away. A reset gate before
    the product is not one after it, unless W_hn is diagonal and b_hn zero.

    Raises SpecError if the two differ in more than a convention, ConversionRefusal if the
    conversion is not exact.
    """
    _require_same(source, target)
    moved = {name: np.array(value) for name, value in params.items()}
    if _option(source, "update") != _option(target, "update"):
        rows = slice(source.hidden_size, 2 * source.hidden_size)
        for name in ("w_x", "w_h", "b_x", "b_h"):
            if name in moved:
                moved[name][rows] *= -1
    obstacles = _obstacles(source, moved, target)
    same_reset = _option(source, "reset") == _option(target, "reset")
    if not (same_reset and source.biases == target.biases):
        _place_biases(moved, target)
    if obstacles:
        error = measured_error(source, params, target, moved)
        raise ConversionRefusal(
            f"The {source.name} ({source.convention}, biases={source.biases}) cannot become "
            f"({target.convention}, biases={target.biases}): {' and '.join(obstacles)}.",
            f"A conversion has to be exact; this one would move the state by {error:.2g}.",
            "Build the cell in the convention of its weights.",
            error,
        )
    return moved


def measured_error(
    source: Cell,
    params: Params,
    target: Cell,
    converted: Params,
    *,
    batch: int = 16,
    time: int = 20,
) -> float:
    """Return the largest difference in h over standard normal inputs [B, T, D] from zeros."""
    inputs = np.random.default_rng(0).standard_normal((time, batch, source.input_size))
    left = source.initial_state(NUMPY, batch, inputs)
    right = target.initial_state(NUMPY, batch, inputs)
    largest = 0.0
    for x in inputs:
        left, _ = source.step(NUMPY, params, source.project(NUMPY, params, x), left)
        right, _ = target.step(NUMPY, converted, target.project(NUMPY, converted, x), right)
        largest = max(largest, float(np.abs(source.read(left) - target.read(right)).max()))
    return largest


def _option(cell: Cell, option: str) -> str | None:
    return getattr(cell, option) if isinstance(cell, GRU) else None


def _require_same(source: Cell, target: Cell) -> None:
    conventions = {"biases", *(("reset", "update") if isinstance(source, GRU) else ())}
    ours, theirs = source.to_json(), target.to_json()
    differing = [key for key in ours if key not in conventions and ours[key] != theirs.get(key)]
    if differing:
        told = ", ".join(f"{key} {ours[key]!r} and {theirs.get(key)!r}" for key in differing)
        raise SpecError(
            f"The two cells differ in {told}.",
            f"A conversion changes only {', '.join(sorted(conventions))}.",
            "Build a target with the same sizes and options.",
        )


def _obstacles(source: Cell, moved: Arrays, target: Cell) -> list[str]:
    """Return the reasons why the conversion changes the function, from the weights themselves."""
    found = []
    last = slice(2 * source.hidden_size, None)
    if isinstance(source, GRU) and isinstance(target, GRU):
        w_n, b_n = moved["w_h"][last], moved["b_h"][last] if "b_h" in moved else np.zeros(1)
        leaves = source.reset != target.reset or target.biases < 2
        if source.reset == "after" and leaves and np.any(b_n):
            found.append("b_hn is not zero and stands inside the reset product")
        if source.reset != target.reset and np.any(w_n - np.diag(np.diag(w_n))):
            found.append("W_hn is not diagonal, so the reset gate does not pass through it")
    if target.biases == 0 and any(np.any(moved[b]) for b in ("b_x", "b_h") if b in moved):
        found.append("the biases are not zero")
    return found


def _place_biases(moved: Arrays, target: Cell) -> None:
    """Gather all biases in b_x, as far as the target has one, and leave b_h zero."""
    biases = [moved.pop(name) for name in ("b_x", "b_h") if name in moved]
    rows = moved["w_x"].shape[0]
    if target.biases >= 1:
        moved["b_x"] = sum(biases, np.zeros(rows, moved["w_x"].dtype))
    if target.biases == 2:
        moved["b_h"] = np.zeros(rows, moved["w_x"].dtype)
