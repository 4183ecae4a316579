"""One cell's arrays as a system lays them out, written and read by the facts of its convention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hiddenstate.cells import CELLS, Cell, build
from hiddenstate.errors import ShapeError, SpecError
from hiddenstate.interop.conventions import Convention, Place
from hiddenstate.interop.weights import FLOATS, Array, Way


def write(way: Way, convention: Convention) -> dict[str, Array]:
    """Return a system's arrays by name, from a way that `express` gave."""
    arrays: dict[str, Array] = {}
    halves: dict[str, list[Array]] = {}
    for place in convention.places:
        if place.ours not in way.params:
            continue
        array = way.params[place.ours]
        blocks = {} if place.ours == "w_p" else by_block(array, way.cell.blocks)
        if "{gate}" in place.theirs:
            for gate in place.only or convention.blocks:
                turned = _turned(blocks[gate], place, convention)
                arrays[place.theirs.format(gate=gate)] = np.ascontiguousarray(turned)
            continue
        if blocks:
            array = np.concatenate([blocks[gate] for gate in convention.blocks])
        array = np.ascontiguousarray(_turned(array, place, convention))
        if place.join:
            halves.setdefault(place.theirs, []).append(array)
            joined = halves[place.theirs]
            array = np.stack(joined) if place.join == "rows" else np.concatenate(joined)
        arrays[place.theirs] = array
    return arrays


def read(
    convention: Convention,
    arrays: Mapping[str, Any],
    *,
    reverse: bool = False,
    where: str = "",
    **options: object,
) -> Way:
    """Return the cell that a system's arrays are, on copies in float32 or float64.

    where:   what the arrays belong to, for messages
    options: of our cell, which the arrays do not tell (an Elman's activation)

    Raises SpecError for missing or unknown arrays, ShapeError for shapes that do not fit.
    """
    where = where or convention.name
    _require_names(convention, set(arrays), where)
    blocks = convention.blocks
    order = build(convention.cell, 1, 1, **dict(convention.options)).blocks
    given = {name: as_floats(array) for name, array in arrays.items()}
    params: dict[str, Array] = {}
    for place in convention.places:
        if "{gate}" in place.theirs:
            each = {gate: given.get(place.theirs.format(gate=gate)) for gate in order}
            some = next((array for array in each.values() if array is not None), None)
            if some is not None:
                filled = [np.zeros_like(some) if a is None else a for a in each.values()]
                axis = -1 if _is_turned(place, convention) else 0
                params[place.ours] = _turned(np.concatenate(filled, axis), place, convention)
        elif place.theirs in given:
            array = _turned(_half(given[place.theirs], place, where), place, convention)
            params[place.ours] = array if place.ours == "w_p" else _reordered(array, blocks, order)
    cell = _cell(convention, params, options, where)
    expected = cell.shapes()
    wrong = {name: a.shape for name, a in params.items() if a.shape != expected[name]}
    if wrong:
        raise ShapeError(
            f"{where} has {', '.join(f'{name} {list(shape)}' for name, shape in wrong.items())} "
            "(read as [rows, inputs]).",
            f"With D={cell.input_size} and H={cell.hidden_size}, as its w_x tells, these are "
            f"{', '.join(f'{name} {list(expected[name])}' for name in wrong)}.",
            "Give the arrays of one layer.",
        )
    return Way(cell, {name: params[name].copy() for name in expected}, reverse)


def names(convention: Convention) -> list[str]:
    """Return the names of all arrays that a layer can have."""
    found: list[str] = []
    for place in convention.places:
        gates = place.only or convention.blocks
        found += [place.theirs.format(gate=gate) for gate in gates]
    return list(dict.fromkeys(found))


def as_floats(array: Any) -> Array:
    """Return a NumPy array in float32 or float64; narrower floats become float32 exactly."""
    found = np.asarray(array)
    if found.dtype in FLOATS:
        return found
    if found.dtype.kind in "iub" or found.dtype.kind == "c" or found.dtype.itemsize > 4:
        raise ShapeError(
            f"An array of weights {list(found.shape)} is of type {found.dtype}.",
            "Weights are floats of 16, 32 or 64 bits.",
            "Convert them first; quantised weights have to be brought back to floats.",
        )
    return found.astype(np.float32)


def in_order(state: Any, convention: Convention) -> tuple[Array, ...]:
    """Return the arrays of our State in the system's order."""
    return tuple(getattr(state, name) for name in convention.state)


def from_order(arrays: Sequence[Any], convention: Convention) -> Any:
    """Return our State from arrays in the system's order."""
    given = {name: np.asarray(each) for name, each in zip(convention.state, arrays, strict=True)}
    return CELLS[convention.cell].State(**given)


def _require_names(convention: Convention, given: set[str], where: str) -> None:
    expected = names(convention)
    biases = {name for name in expected if _place(convention, name).ours.startswith("b_")}
    optional = {"weight_hr"}
    if convention.system.biases_absent and not given & biases:
        optional |= biases
    missing, unknown = set(expected) - optional - given, given - set(expected)
    if missing or unknown:
        told = [f"{', '.join(sorted(missing))} missing"] if missing else []
        told += [f"{', '.join(sorted(unknown))} unknown"] if unknown else []
        raise SpecError(
            f"{where} has the arrays {', '.join(sorted(given)) or '(none)'}: {'; '.join(told)}.",
            f"{convention.name} has {', '.join(expected)}.",
            "Give the arrays of one such layer.",
        )


def _place(convention: Convention, name: str) -> Place:
    for place in convention.places:
        if name in {place.theirs.format(gate=gate) for gate in place.only or convention.blocks}:
            return place
    raise KeyError(name)


def _is_turned(place: Place, convention: Convention) -> bool:
    return convention.system.transposed and place.ours.startswith("w_")


def _turned(array: Array, place: Place, convention: Convention) -> Array:
    return array.T if _is_turned(place, convention) else array


def _reordered(array: Array, blocks: Sequence[str], order: Sequence[str]) -> Array:
    if array.ndim == 0 or array.shape[0] % len(blocks):
        # Left as it is: the check of shapes tells the sizes.
        return array
    by_gate = by_block(array, blocks)
    return np.concatenate([by_gate[gate] for gate in order])


def by_block(array: Array, blocks: Sequence[str]) -> dict[str, Array]:
    """Cut stacked rows into the gates' blocks."""
    return dict(zip(blocks, np.split(array, len(blocks)), strict=True))


def _half(array: Array, place: Place, where: str) -> Array:
    """Return one of the two biases that an array holds, or the array."""
    if not place.join:
        return array
    rows = place.join == "rows"
    if array.ndim != (2 if rows else 1) or (array.shape[0] != 2 if rows else array.shape[0] % 2):
        raise ShapeError(
            f"{where}'s {place.theirs} has shape {list(array.shape)}.",
            "It holds two biases, for the input and for the state, "
            + ("as [2, rows]." if rows else "one after the other."),
            "Check which form of the layer the weights belong to.",
        )
    half: Array = (array if rows else array.reshape(2, -1))[place.part]
    return half


def _cell(
    convention: Convention, params: Mapping[str, Array], options: Mapping[str, object], where: str
) -> Cell:
    w_x, w_h, gates = params["w_x"], params["w_h"], len(convention.blocks)
    if w_x.ndim != 2 or w_h.ndim != 2 or w_x.shape[0] % gates or not w_x.size:
        raise ShapeError(
            f"{where} has weights {list(w_x.shape)} and {list(w_h.shape)} (read as "
            "[rows, inputs]).",
            f"{convention.name} has {gates} x H rows.",
            "Check that these arrays are such a layer's.",
        )
    given: dict[str, Any] = {**convention.options, **options}
    if "w_p" in params:
        given["projection"] = params["w_p"].shape[0]
    biases = sum(name in params for name in ("b_x", "b_h"))
    return build(convention.cell, w_x.shape[1], w_x.shape[0] // gates, biases=biases, **given)
