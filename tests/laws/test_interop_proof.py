"""A proof fails where two models differ: faults that real converters had, planted one by one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hiddenstate.cells import GRU, LSTM, NUMPY, Elman
from hiddenstate.cells.conventions import ConversionRefusal
from hiddenstate.cells.state import map_state
from hiddenstate.errors import ShapeError, SpecError
from hiddenstate.interop import Way, Weights, prove
from hiddenstate.interop.proof import difference
from hiddenstate.kernels import scan
from tests.laws.interop_cases import CELLS, D, H, way, weights

ONE, BOTH, TWO = "one layer", "both directions", "two layers, both directions"
Run = Callable[..., tuple[Any, Any]]


def proven(given: Weights, run: Run, dtype: str = "float64") -> Any:
    return prove(given, run, lengths=True, states=True, dtype=dtype)


def changed(given: Weights, change: Callable[[dict[str, Any]], None]) -> Run:
    """Return the run of a model whose first layer's parameters were changed."""
    first = given.layers[0][0]
    params = {name: array.copy() for name, array in first.params.items()}
    change(params)
    layers = ((first._replace(params=params), *given.layers[0][1:]), *given.layers[1:])
    return Weights(layers).run


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_model_is_proven_equal_to_itself(cell: str, dtype: str) -> None:
    given = weights(cell, TWO, dtype)
    found = proven(given, given.run, dtype)
    assert len(found.cases) == 7
    assert found.dtype == dtype
    # In float64 the reference of the proof is the very same computation.
    assert found.output == found.state == 0.0 or dtype == "float32"


def b_hn_only_with_a_state(given: Weights) -> Run:
    """mlx 3251: b_hn was left out of the first step where no state was given."""
    without = changed(given, lambda params: params["b_h"].__setitem__(slice(2 * H, None), 0.0))

    def run(x: Any, lengths: Any, states: Any) -> Any:
        if states is not None:
            return given.run(x, lengths, states)
        first = without(x[:, :1], None if lengths is None else np.minimum(lengths, 1))
        rest = None if lengths is None else np.maximum(lengths - 1, 0)
        output, last = given.run(x[:, 1:], rest, first.states)
        return np.concatenate([first.output, output], 1), last

    return run


def b_hn_left_out(given: Weights) -> Run:
    """flax 5594."""
    return changed(given, lambda params: params["b_h"].__setitem__(slice(2 * H, None), 0.0))


def b_hn_outside(given: Weights) -> Run:
    """The biases of n merged into one."""

    def merge(params: dict[str, Any]) -> None:
        params["b_x"][2 * H :] += params["b_h"][2 * H :]
        params["b_h"][2 * H :] = 0.0

    return changed(given, merge)


def reset_before(given: Weights) -> Run:
    """pytorch 189225, onnxscript 2852: linear_before_reset was not set."""
    first = given.ways[0]
    return Weights(((Way(GRU(D, H, 2, reset="before"), first.params),),)).run


def gates_in_the_order_zrn(given: Weights) -> Run:
    def exchange(params: dict[str, Any]) -> None:
        for name in params:
            r, z, n = np.split(params[name], 3)
            params[name] = np.concatenate([z, r, n])

    return changed(given, exchange)


def time_first(given: Weights) -> Run:
    """openvino 37820: the layout was taken for the other one."""

    def run(x: Any, lengths: Any, states: Any) -> Any:
        output, last = given.run(x, lengths, states)
        return output.swapaxes(0, 1), last

    return run


def padding_read(given: Weights) -> Run:
    """Lengths do not reach the model."""
    return lambda x, _, states: given.run(x, None, states)


def reversed_with_the_padding(given: Weights) -> Run:
    """The backward direction begins in the padding."""
    turned = Weights(((given.layers[0][1]._replace(reverse=False),),))

    def run(x: Any, lengths: Any, states: Any) -> Any:
        right = given.run(x, lengths, states)
        if lengths is None:
            return right
        first = None if states is None else ((states[0][1],),)
        output = turned.run(x[:, ::-1], None, first).output[:, ::-1]
        both = np.concatenate([right.output[..., :H], output], -1)
        return both, right.states

    return run


def directions_exchanged(given: Weights) -> Run:
    def run(x: Any, lengths: Any, states: Any) -> Any:
        output, last = given.run(x, lengths, states)
        return np.concatenate([output[..., H:], output[..., :H]], -1), last

    return run


def carry_c_first(given: Weights) -> Run:
    """Flax carries (c, h): taken for (h, c), a state is exchanged on its way in."""

    def exchange(state: Any) -> Any:
        return tuple(tuple(type(s)(s.c, s.h) for s in ways) for ways in state)

    return lambda x, lengths, states: given.run(x, lengths, states and exchange(states))


def first_state_forgotten(given: Weights) -> Run:
    return lambda x, lengths, _: given.run(x, lengths, None)


def last_state_of_the_padded_row(given: Weights) -> Run:
    def run(x: Any, lengths: Any, states: Any) -> Any:
        return given.run(x, lengths, states).output, given.run(x, None, states).states

    return run


def nan_in_an_empty_row(given: Weights) -> Run:
    """pytorch 11514: rows of length 0."""

    def run(x: Any, lengths: Any, states: Any) -> Any:
        output, last = given.run(x, lengths, states)
        if lengths is None:
            return output, last
        return output, map_state(lambda a: np.where((lengths == 0)[:, None], np.nan, a), last)

    return run


def forget_bias_added(given: Weights) -> Run:
    """TF1 cells add 1 to the forget gate's input beside its bias."""
    return changed(given, lambda params: params["b_x"].__setitem__(slice(H, 2 * H), 1.0))


def an_approximate_sigmoid(given: Weights) -> Run:
    """hard_sigmoid, or a fast tanh: right to a few digits."""

    def run(x: Any, lengths: Any, states: Any) -> Any:
        output, last = given.run(x, lengths, states)
        return output * (1 + 1e-4), last

    return run


FAULTS = [
    (b_hn_only_with_a_state, "gru", ONE),
    (b_hn_left_out, "gru", ONE),
    (b_hn_outside, "gru", ONE),
    (reset_before, "gru", ONE),
    (gates_in_the_order_zrn, "gru", ONE),
    (time_first, "lstm", ONE),
    (padding_read, "lstm", TWO),
    (reversed_with_the_padding, "lstm", BOTH),
    (directions_exchanged, "gru", BOTH),
    (carry_c_first, "lstm", ONE),
    (first_state_forgotten, "elman", ONE),
    (last_state_of_the_padded_row, "gru", ONE),
    (nan_in_an_empty_row, "lstm", ONE),
    (forget_bias_added, "lstm one bias", ONE),
    (an_approximate_sigmoid, "gru", ONE),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("fault", "cell", "shape"), FAULTS, ids=lambda f: getattr(f, "__name__", f)
)
def test_a_planted_fault_is_found(fault: Any, cell: str, shape: str, dtype: str) -> None:
    given = weights(cell, shape, dtype)
    with pytest.raises(ConversionRefusal) as raised:
        proven(given, fault(given), dtype)
    assert not raised.value.measured_error <= 1e-5
    assert f"{raised.value.measured_error:.2g}" in raised.value.wrong


def test_the_tolerance_follows_the_dtype_and_the_model() -> None:
    given = weights("gru", TWO, "float64")
    wide, narrow = (
        {case.name: case.tolerance for case in proven(w, w.run, w.dtype.name).cases}
        for w in (given, given.astype(np.float32))
    )
    for name in wide:
        assert wide[name] < 1e-13 < 1e-6 < narrow[name] < 1e-4
    # A model that blows its rounding up is allowed more after many steps, not after one.
    rng = np.random.default_rng(0)
    wild = Elman(D, 16)
    params = {name: 4 * array for name, array in way(wild, rng, "float32").params.items()}
    chaotic = Weights(((Way(wild, params),),))
    allowed = {case.name: case.tolerance for case in proven(chaotic, chaotic.run, "float32").cases}
    assert allowed["random"] > 10 * allowed["one step"]


def test_a_proof_is_told_in_words_and_as_json() -> None:
    given = weights("lstm", ONE, "float64")
    found = prove(given, lambda x, *_: (given.run(x).output, None), lengths=False, states=False,
                  dtype="float64")  # fmt: skip
    assert [case.name for case in found.cases] == ["random", "one step", "saturated"]
    assert found.state is None
    assert json.loads(json.dumps(found.to_json()))["cases"][0]["steps"] == 11
    lines = str(found).splitlines()
    assert lines[0].split() == ["case", "rows", "x", "steps", "output", "state", "allowed"]
    assert len(lines) == 4


def test_a_difference_is_the_largest_of_the_outputs() -> None:
    given = weights("gru", ONE, "float64")
    assert difference(given, given.run) == 0.0
    assert difference(given, lambda x, *_: (given.run(x).output + 0.25, None)) == pytest.approx(
        0.25
    )


@pytest.mark.parametrize("shape", [ONE, TWO])
def test_weights_run_as_the_reference_does(shape: str) -> None:
    given = weights("lstm", shape, "float64")
    x = np.random.default_rng(1).standard_normal((3, 5, D))
    lengths = np.array([5, 0, 2])
    output, states = x, []
    for ways in given.layers:
        scans = [
            scan(NUMPY, each.cell, each.params, output, None, lengths, reverse=each.reverse)
            for each in ways
        ]
        output = np.concatenate([each.output for each in scans], -1)
        states.append(tuple(each.state for each in scans))
    found = given.run(x, lengths)
    np.testing.assert_array_equal(found.output, output)
    assert str(found.states) == str(tuple(states))
    again = given.run(x, lengths, given.zero_states(3))
    np.testing.assert_array_equal(again.output, output)


def test_weights_that_do_not_fit_are_refused() -> None:
    rng = np.random.default_rng(0)
    one, wide = way(LSTM(D, H), rng, "float32"), way(LSTM(H + 1, H), rng, "float32")
    back = one._replace(reverse=True)
    with pytest.raises(SpecError, match="got no layers"):
        Weights(())
    with pytest.raises(SpecError, match=f"Layer 0 gives {H} features, layer 1 reads {H + 1}"):
        Weights(((one,), (wide,)))
    for ways in ((), (one, one), (back, one), (one, back, back)):
        with pytest.raises(SpecError, match=f"Layer 0 has {len(ways)} directions"):
            Weights((ways,))
    with pytest.raises(ShapeError, match="b_x"):
        Weights(((Way(LSTM(D, H, 2), one.params),),))
    with pytest.raises(ShapeError, match="float16"):
        Weights(((Way(one.cell, {k: v.astype(np.float16) for k, v in one.params.items()}),),))
    with pytest.raises(ShapeError, match="float32, float64"):
        Weights(((one, Way(one.cell, way(LSTM(D, H), rng, "float64").params, True)),))
    broken = {**one.params, "w_h": np.full_like(one.params["w_h"], np.nan)}
    with pytest.raises(ShapeError, match=f"holds {4 * H * H} NaN"):
        Weights(((Way(one.cell, broken),),))
