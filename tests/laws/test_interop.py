"""Weights go to every system and back unchanged, and each system's own run equals ours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hiddenstate.cells import GRU, LSTM, build
from hiddenstate.cells.conventions import ConversionRefusal
from hiddenstate.errors import SpecError
from hiddenstate.interop.conventions import SYSTEMS, TABLE, Convention, System, find
from hiddenstate.interop.express import convention_of, express
from hiddenstate.interop.layout import names, read, write
from hiddenstate.interop.weights import Way, Weights
from tests.laws.interop_cases import CELLS, DTYPES, FACES, SHAPES, D, Face, H, same, way, weights

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ONE, BOTH, TWO = SHAPES
# Keras is slow, and JAX compiles for seconds: benchmarks.interop runs them all.
CASES = [(face, cell, ONE, "float64") for face in ("torch", "haste", "keras") for cell in CELLS]
CASES += [(face, cell, TWO, "float32") for face in ("torch", "haste") for cell in CELLS]
CASES += [("keras", cell, TWO, "float32") for cell in ("lstm", "gru before")]
CASES += [("flax", "lstm", ONE, "float64"), ("flax", "gru", BOTH, "float32")]
CASES += [("nnx", "elman relu", ONE, "float64"), ("nnx", "lstm", ONE, "float32")]

BEFORE = {"gru before", "gru before two"}
PLAIN = {"lstm projection", "lstm peephole", "lstm layer norm"}
REFUSED = {
    "torch": {"lstm peephole", "lstm layer norm", *BEFORE},
    "keras": PLAIN,
    "haste": {"elman", "elman relu", *PLAIN, *BEFORE},
    "flax": PLAIN | BEFORE,
    "nnx": {"gru", "gru writes", *PLAIN, *BEFORE},
}


def expressed(layers: Weights, system: System) -> Weights:
    """Return the cells that the system's layers stand for."""
    return Weights(
        tuple(
            tuple(express(each, convention_of(system, each)) for each in ways)
            for ways in layers.layers
        )
    )


def outcome(layers: Weights, system: System) -> Exception | None:
    """Return how the system has to refuse, None where it has to take the layers."""
    if system.both == "no" and any(each.reverse for each in layers.ways):
        return SpecError("", "", "")
    try:
        expressed(layers, system)
    except (ConversionRefusal, SpecError) as refusal:
        return refusal
    return None


@pytest.mark.parametrize(("name", "cell", "shape", "dtype"), CASES)
def test_there_and_back(name: str, cell: str, shape: str, dtype: str) -> None:
    face = FACES[name]
    module = face.load()
    given = weights(cell, shape, dtype)
    convert = getattr(module, face.to)
    refusal = outcome(given, face.system)
    if refusal is not None:
        with pytest.raises(type(refusal)) as raised:
            convert(given)
        error = getattr(raised.value, "measured_error", None)
        assert error == getattr(refusal, "measured_error", None)
        return
    converted = convert(given)
    assert {case.name for case in converted.proof.cases} >= {"random", "one step", "given states"}
    assert converted.proof.state is not None
    activation = getattr(given.ways[0].cell, "activation", "tanh")
    back = face.back(module, converted.value, activation)
    wanted = expressed(given, face.system)
    assert same(back.weights, wanted.astype(np.float32) if name == "keras" else wanted)


@pytest.mark.parametrize("name", FACES)
def test_a_system_takes_every_cell_that_it_can_express(name: str) -> None:
    given = {cell: weights(cell, ONE, "float64") for cell in CELLS}
    refused = {cell for cell, layers in given.items() if outcome(layers, FACES[name].system)}
    assert refused == REFUSED[name]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.system.name}-{row.layer}")
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_layout_is_read_as_it_was_written(row: Convention, dtype: str) -> None:
    rng = np.random.default_rng(0)
    absent = (0,) if row.system.biases_absent else ()
    for biases in (row.biases, *absent):
        cell = build(row.cell, D, H, biases=biases, **dict(row.options))
        given = express(way(cell, rng, dtype), row)
        arrays = write(given, row)
        assert set(arrays) <= set(names(row))
        again = read(row, arrays)
        assert again.cell == given.cell
        for name, array in given.params.items():
            np.testing.assert_array_equal(again.params[name], array, strict=True)
        for name, array in write(again, row).items():
            np.testing.assert_array_equal(arrays[name], array, strict=True)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.system.name}-{row.layer}")
def test_blocks_stand_where_the_table_says(row: Convention) -> None:
    """Each gate's rows carry its own number, and are found in the system's order."""
    cell = build(row.cell, D, H, biases=row.biases, **dict(row.options))
    marks = {gate: 1.0 + k for k, gate in enumerate(cell.blocks)}
    column = np.repeat([marks[gate] for gate in cell.blocks], H)
    params = {
        name: np.broadcast_to(column.reshape(-1, *(1,) * (len(shape) - 1)), shape).copy()
        for name, shape in cell.shapes().items()
    }
    place = row.places[0]
    arrays = write(Way(cell, params), row)
    if "{gate}" in place.theirs:
        for gate, mark in marks.items():
            assert (arrays[place.theirs.format(gate=gate)] == mark).all()
        return
    array = arrays[place.theirs]
    array = array.T if row.system.transposed else array
    assert array.shape == (len(row.blocks) * H, D)
    assert [array[k * H, 0] for k in range(len(row.blocks))] == [marks[g] for g in row.blocks]


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
@pytest.mark.parametrize("cell", ["lstm peephole", "gru", "gru before", "gru writes"])
def test_the_error_of_a_refusal_is_the_error_of_the_conversion(system: System, cell: str) -> None:
    given = weights(cell, "one layer", "float64")
    source = given.ways[0]
    row = find(system, source.cell)
    assert row is not None
    try:
        express(source, row)
    except ConversionRefusal as refusal:
        told = refusal
    else:
        return
    forced = forcibly(source, row)
    x = np.random.default_rng(0).standard_normal((20, 16, D)).swapaxes(0, 1)
    error = np.abs(given.run(x).output - Weights(((forced,),)).run(x).output).max()
    assert told.measured_error == pytest.approx(error, rel=1e-9)
    assert error > 1e-3
    assert f"{error:.2g}" in str(told)


def forcibly(source: Way, row: Convention) -> Way:
    """Write a cell in a layer's convention as one might who does not know better."""
    params, cell = dict(source.params), source.cell
    if isinstance(cell, LSTM):
        target = replace(cell, peephole=False)
        return Way(target, {name: params[name] for name in target.shapes()})
    assert isinstance(cell, GRU)
    if cell.update == "writes":
        for name in params:
            params[name] = params[name].copy()
            params[name][H : 2 * H] *= -1
    both = params.pop("b_x") + params.pop("b_h", 0.0)
    target = replace(cell, biases=row.biases, update="keeps", reset=row.options["reset"])
    given = {**params, "b_x": both, "b_h": np.zeros_like(both)}
    return Way(target, {name: given[name] for name in target.shapes()})


def test_an_lstm_whose_peepholes_are_zero_has_none() -> None:
    source = weights("lstm peephole", "one layer", "float64").ways[0]
    params = {n: np.zeros_like(a) if n[:2] == "p_" else a for n, a in source.params.items()}
    moved = express(Way(source.cell, params), convention_of(FACES["torch"].system, source))
    assert isinstance(moved.cell, LSTM)
    assert not moved.cell.peephole


def test_every_face_has_a_law() -> None:
    """A system that is entered into the table has to be entered here too."""
    assert {face.system.name for face in FACES.values()} | {"onnx"} == {s.name for s in SYSTEMS}
    assert all(isinstance(face, Face) for face in FACES.values())
