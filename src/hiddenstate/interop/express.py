"""The same function in the cell of another convention, exactly, or a refusal with its error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hiddenstate.cells import GRU, LSTM, Cell
from hiddenstate.cells.conventions import ConversionRefusal, convert, measured_error
from hiddenstate.errors import SpecError
from hiddenstate.interop.conventions import TABLE, Convention, Place, System, find
from hiddenstate.interop.layout import by_block
from hiddenstate.interop.weights import Array, Way, Weights

ALWAYS_OPEN = 1e4
"""Bias of a forget gate that is exactly 1."""


def convention_of(system: System, way: Way, layer: int = 0) -> Convention:
    """Return the layer of a system for a cell; raises SpecError where it has none."""
    found = find(system, way.cell)
    if found is None:
        known = dict.fromkeys(row.cell for row in TABLE if row.system is system)
        raise SpecError(
            f"Layer {layer} is the cell {way.cell.name}.",
            f"{system.title} has layers for {', '.join(known)}.",
            "Convert it to a system that has this cell.",
        )
    return found


def express(way: Way, convention: Convention, *, bare: bool | None = None) -> Way:
    """Return the same function in the cell that the convention stands for.

    bare: without biases; None = where the cell has none and the layer may go without

    Raises ConversionRefusal with the measured error where that would change the function, SpecError
    where the layer has no room for an option of the cell.
    """
    cell, params = _plain(_without_extras(way, convention), convention)
    if isinstance(cell, LSTM) and cell.projection and "projection" not in convention.supports:
        raise SpecError(
            f"This LSTM projects h from {cell.hidden_size} to {cell.projection} features.",
            f"{convention.name} gives h as it is.",
            "Convert it to a system with projections (torch), or train without one.",
        )
    if bare is None:
        bare = convention.system.biases_absent and cell.biases == 0
    changed: dict[str, Any] = {"biases": 0 if bare else convention.biases, **convention.options}
    target = replace(cell, **changed)
    try:
        moved = convert(cell, params, target)
    except ConversionRefusal as refusal:
        raise ConversionRefusal(
            f"{convention.name} cannot hold this. {refusal.wrong}",
            refusal.expected,
            "Convert to a system with this convention, or train in the target's.",
            refusal.measured_error,
        ) from None
    for place in convention.places:
        if place.only and place.ours in moved:
            _gather(moved, place, target.blocks)
    return Way(target, moved, way.reverse)


def changes(before: Weights, after: Weights) -> tuple[str, ...]:
    """Return what somebody who trains on should know about cells that `express` has changed."""
    found = []
    for ours, theirs in zip(before.ways, after.ways, strict=True):
        old, new = ours.cell, theirs.cell
        if new.biases == 2 and old.biases == 1:
            found.append("the second bias is zero, and would be trained as well")
        if new.biases == 1 and old.biases == 2:
            found.append("the two biases are added into one")
        if new.biases and not old.biases:
            found.append("biases of zero are added, and would be trained")
        if getattr(old, "update", None) != getattr(new, "update", None):
            found.append("the rows of the update gate are negated")
        elif (
            isinstance(old, GRU)
            and old.biases == new.biases == 2
            and not np.allclose(ours.params["b_h"], theirs.params["b_h"])
        ):
            found.append("the biases of gates of which only the sum counts are added")
        if isinstance(old, LSTM) and isinstance(new, LSTM):
            if old.coupled and not new.coupled:
                found.append("the forget gate has weights of its own, and would part from i")
            if new.forget_gate and not old.forget_gate:
                found.append(f"a forget gate with a bias of {ALWAYS_OPEN:g} never forgets")
    return tuple(dict.fromkeys(found))


def _plain(way: Way, convention: Convention) -> tuple[Cell, dict[str, Array]]:
    """Give an LSTM that has no weights for its forget gate those that amount to the same."""
    cell, params = way.cell, way.params
    if not isinstance(cell, LSTM) or (cell.forget_gate and not cell.coupled):
        return cell, params
    if cell.coupled and "coupled" in convention.supports:
        return cell, params
    biases = cell.biases if cell.coupled else max(cell.biases, 1)
    full = replace(cell, forget_gate=True, coupled=False, biases=biases)
    height, like = cell.hidden_size, params["w_x"]
    # Coupled: f = 1 - sigmoid(a) = sigmoid(-a), the rows of i negated. None: a bias alone.
    sign = -1.0 if cell.coupled else 0.0
    moved: dict[str, Array] = {}
    for name in full.shapes():
        if name == "p_f":
            moved[name] = sign * params["p_i"]
        elif name.startswith("p_") or name == "w_p":
            moved[name] = params[name]
        else:
            array = params.get(name)
            array = np.zeros(3 * height, like.dtype) if array is None else array
            forget = sign * array[:height]
            if name == "b_x" and not cell.coupled:
                forget = forget + ALWAYS_OPEN
            moved[name] = np.concatenate([array[:height], forget, array[height:]])
    return full, {name: array.astype(like.dtype) for name, array in moved.items()}


def _without_extras(way: Way, convention: Convention) -> Way:
    """Leave out what the layer has no room for, or refuse where it is at work."""
    cell = way.cell
    names = {"peephole": "peepholes", "layer_norm": "layer norm inside the cell"}
    lost = [
        option
        for option in names
        if getattr(cell, option, False) and option not in convention.supports
    ]
    if not lost:
        return way
    without = replace(cell, **dict.fromkeys(lost, False))
    error = measured_error(cell, way.params, without, way.params)
    if error or "layer_norm" in lost:
        raise ConversionRefusal(
            f"{convention.name} has no {' and no '.join(names[option] for option in lost)}.",
            f"A conversion has to be exact; without them the state would move by {error:.2g}.",
            "Keep it as a hiddenstate model, or train one without them.",
            error,
        )
    return Way(without, {name: way.params[name] for name in without.shapes()}, way.reverse)


def _gather(params: dict[str, Array], place: Place, blocks: Sequence[str]) -> None:
    """Add the second bias to the first for gates where only their sum counts."""
    first, second = by_block(params["b_x"], blocks), by_block(params[place.ours], blocks)
    for gate in set(blocks) - set(place.only):
        first[gate], second[gate] = first[gate] + second[gate], np.zeros_like(second[gate])
    params["b_x"] = np.concatenate(list(first.values()))
    params[place.ours] = np.concatenate(list(second.values()))
