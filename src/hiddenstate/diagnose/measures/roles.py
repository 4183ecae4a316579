"""What each gate of a cell does, so that the rules need not know cells by name."""

from __future__ import annotations

from hiddenstate.cells import Cell
from hiddenstate.diagnose.tracing.record import Floats, LayerTrace


def keeping(layer: LayerTrace) -> Floats | None:
    """Return the share [B, T, H] of the old memory that stays at each step: f, or z of a GRU.

    Read as the cell's convention points it; None where no gate keeps. 0 or 1 past a row's length.
    """
    for name, sign in layer.cell.keep_rows.items():
        gate: Floats = getattr(layer.gates, name)
        return gate if sign > 0 else 1 - gate
    return None


def keeping_name(cell: Cell) -> str:
    """Return what the gate of `keeping` is called, as it is read: f, z, 1 - z."""
    return next((name if sign > 0 else f"1 - {name}" for name, sign in cell.keep_rows.items()), "")


def writing(layer: LayerTrace) -> Floats | None:
    """Return the share [B, T, H] of the candidate that is written: i, or 1 - z; None: all of it."""
    if "i" in layer.gates._fields:
        gate: Floats = layer.gates.i
        return gate
    kept = keeping(layer)
    return None if kept is None else 1 - kept


def gate_names(cell: Cell) -> list[str]:
    """Return the gates between 0 and 1 that have weights of their own."""
    return [name for name in cell.blocks if cell.gate_ranges.get(name, (-1, 1))[0] == 0]


def candidate_name(cell: Cell) -> str:
    """Return the row block of what would be written: g, n, or h of a cell without gates."""
    signed = [name for name, (low, _) in cell.gate_ranges.items() if low < 0]
    return signed[0] if signed else cell.blocks[-1]


def candidate(layer: LayerTrace) -> Floats:
    """Return what would be written at each step [B, T, H], past a row's length anything."""
    name = candidate_name(layer.cell)
    values: Floats = getattr(layer.gates if name in layer.gates._fields else layer.states, name)
    return values


def block(cell: Cell, weights: Floats, name: str) -> Floats:
    """Return the rows [H, .] or [H] of one block of stacked weights or biases."""
    row = cell.blocks.index(name) * cell.hidden_size
    return weights[row : row + cell.hidden_size]
