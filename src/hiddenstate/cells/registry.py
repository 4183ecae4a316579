"""Cells by name: how a specification on disk or on a command line becomes a cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from hiddenstate.cells.cell import Cell
from hiddenstate.errors import SpecError, nearest

CELLS: dict[str, type[Cell]] = {}
"""Every cell class by its name."""

C = TypeVar("C", bound=type[Cell])


def register(cell: C) -> C:
    """Class decorator: make a cell known by its name."""
    CELLS[cell.name] = cell
    return cell


def build(name: str, input_size: int, hidden_size: int, **options: Any) -> Cell:
    """Build a cell by name; raises SpecError for an unknown name or option.

    >>> build("gru", 3, 2, reset="before").parameter_count
    36
    """
    if name not in CELLS:
        raise SpecError(
            f"There is no cell {name!r}.",
            f"The cells are {', '.join(sorted(CELLS))}.",
            f"Choose one of them.{nearest(name, CELLS)}",
        )
    known = [field.name for field in fields(CELLS[name])][2:]
    for option in options:
        if option not in known:
            raise SpecError(
                f"The cell {name} has no option {option!r}.",
                f"Its options are {', '.join(known)}.",
                f"Remove it.{nearest(option, known)}",
            )
    return CELLS[name](input_size, hidden_size, **options)


def from_json(spec: Mapping[str, Any]) -> Cell:
    """Build the cell that `Cell.to_json` described; raises SpecError for anything else."""
    missing = [key for key in ("cell", "input_size", "hidden_size") if key not in spec]
    if missing:
        raise SpecError(
            f"A cell's specification lacks {', '.join(missing)}.",
            "It names the cell, input_size and hidden_size, and may set options.",
            "Write it with to_json.",
        )
    rest = {key: value for key, value in spec.items() if key != "cell"}
    return build(spec["cell"], **rest)
