"""Every variant of every registered cell, small, with weights and inputs to try it on."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from hiddenstate.cells import CELLS, Cell, build
from hiddenstate.errors import SpecError

D, H, B, T = 3, 5, 3, 7
TIGHT = {"rtol": 1e-12, "atol": 1e-12}


def variants(name: str, hidden_size: int = H) -> Iterator[Cell]:
    """All combinations of options that the cell itself does not refuse."""
    kind = CELLS[name]
    choices: dict[str, tuple[Any, ...]] = {"biases": (0, 1, 2), **kind.options}
    if any(field.name == "projection" for field in dataclasses.fields(kind)):
        choices["projection"] = (None, 2)
    for values in itertools.product(*choices.values()):
        try:
            yield build(name, D, hidden_size, **dict(zip(choices, values, strict=True)))
        except SpecError:
            continue


def every_variant() -> list[Cell]:
    return [cell for name in sorted(CELLS) for cell in variants(name)]


def families() -> list[list[Cell]]:
    """Variants that differ only in their number of biases, together."""
    by_convention: dict[tuple[str, str], list[Cell]] = {}
    for cell in every_variant():
        by_convention.setdefault((cell.name, cell.convention), []).append(cell)
    return list(by_convention.values())


def hold(law: Callable[[Cell], None], cells: list[Cell]) -> None:
    """Apply a law to each cell; a failure names the cell."""
    for cell in cells:
        try:
            law(cell)
        except Exception as failure:
            failure.add_note(f"the law {law.__name__} is broken by {cell}")
            raise


def label(value: Any) -> str | None:
    if isinstance(value, list):
        return f"{value[0].name}: {value[0].convention}".replace(" ", "_")
    if isinstance(value, Cell):
        return f"{value.name}: {value.convention}, biases={value.biases}".replace(" ", "_")
    return value.__name__ if callable(value) else None


def params_of(cell: Cell, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights with no zeros and no symmetry, of a size that uses the gates' whole range."""
    rng = np.random.default_rng(seed)
    return {name: 0.7 * rng.standard_normal(shape) for name, shape in cell.shapes().items()}


def input_of(cell: Cell, batch: int = B, time: int = T, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, time, cell.input_size))


def state_of(cell: Cell, batch: int = B, seed: int = 2) -> Any:
    rng = np.random.default_rng(seed)
    return cell.State(
        *(0.5 * rng.standard_normal((batch, width)) for width in cell.state_shapes().values())
    )


def as_torch(value: Any, grad: bool = False) -> Any:
    """Arrays, mappings and named tuples of arrays as float64 tensors."""
    if isinstance(value, dict):
        return {key: as_torch(each, grad) for key, each in value.items()}
    if isinstance(value, tuple):
        return type(value)(*(as_torch(each, grad) for each in value))
    return torch.tensor(value, dtype=torch.float64, requires_grad=grad)


def same(left: Any, right: Any) -> bool:
    """Bitwise equal, NaN equal to NaN."""
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(left, right, strict=True))
