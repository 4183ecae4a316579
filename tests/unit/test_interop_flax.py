"""What of Flax is read, linen's parameters and nnx's modules; and haste's arrays."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from hiddenstate.cells import GRU, LSTM
from hiddenstate.cells.conventions import ConversionRefusal
from hiddenstate.errors import SpecError
from hiddenstate.interop.haste import flatten, from_haste, published, to_haste
from hiddenstate.interop.weights import Way, Weights
from tests.naive import haste as naive

needs_flax = pytest.mark.skipif(not find_spec("flax"), reason="flax is not installed")
D, H = 3, 4


def cells(*names: str) -> dict[str, Any]:
    """Return linen parameters of LSTMs and GRUs by the names of their paths, all zero."""
    found: dict[str, Any] = {}
    size = D
    for name in names:
        gates = "ifgo" if "LSTM" in name else "rzn"
        for gate in gates:
            found[f"{name}/i{gate}/kernel"] = np.zeros((size, H), np.float32)
            found[f"{name}/h{gate}/kernel"] = np.zeros((H, H), np.float32)
            side = "h" if "LSTM" in name else "i"
            found[f"{name}/{side}{gate}/bias"] = np.zeros(H, np.float32)
        if "GRU" in name:
            found[f"{name}/hn/bias"] = np.zeros(H, np.float32)
        size = H
    return found


@needs_flax
def test_cells_are_told_by_their_arrays_and_ordered_by_their_names() -> None:
    from hiddenstate.interop.flax import _found

    flat = {"params/head/kernel": np.zeros((H, 2)), **cells("params/GRUCell_0")}
    many = [f"m/layers_{k}/LSTM" for k in range(11)]
    assert _found(flat, None)[1] == 1
    assert len(_found(cells(*reversed(many)), None)[0]) == 11
    assert [a["ii/kernel"].shape[0] for (a,) in _found(cells(*many), None)[0]] == [D] + [H] * 10
    both = cells("a/LSTM/backward_rnn/cell", "a/LSTM/forward_rnn/cell")
    ((forward, backward),), _ = _found(both, None)
    assert forward["ii/kernel"].shape[0] == H
    assert backward["ii/kernel"].shape[0] == D
    assert len(_found(cells("a/LSTM", "b/GRU"), "b")[0]) == 1
    with pytest.raises(SpecError, match="are no cell's: head/kernel"):
        _found({"head/kernel": np.zeros((H, 2))}, None)
    with pytest.raises(SpecError, match="below 'c'"):
        _found(cells("a/LSTM"), "c")


@needs_flax
def test_the_parameters_of_a_linen_model_are_read() -> None:
    import jax
    from flax import linen

    from hiddenstate.interop.flax import from_flax

    class Tagger(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            x = linen.RNN(linen.OptimizedLSTMCell(H), name="low")(x)
            return linen.Dense(2)(x)

    model = Tagger()
    x = np.random.default_rng(0).standard_normal((2, 5, D)).astype(np.float32)
    variables = model.init(jax.random.key(0), x)
    found = from_flax(variables)
    assert found.weights.ways[0].cell == LSTM(D, H)
    assert found.notes == ("2 other arrays are left behind",)
    head = variables["params"]["Dense_0"]
    expected = found.weights.run(x).output @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(model.apply(variables, x), expected, atol=1e-6)


@needs_flax
def test_settings_of_nnx_without_equal_are_refused_with_their_error() -> None:
    from flax import nnx

    from hiddenstate.interop.nnx import from_nnx

    rngs = nnx.Rngs(0)
    rnn = nnx.RNN(nnx.GRUCell(D, H, gate_fn=nnx.hard_sigmoid, rngs=rngs), reverse=True)
    with pytest.raises(ConversionRefusal) as raised:
        from_nnx(rnn)
    assert "gate_fn that is not sigmoid" in raised.value.wrong
    assert "outputs in reversed order" in raised.value.wrong
    assert raised.value.measured_error > 0.01
    with pytest.raises(SpecError, match="Layer 0 is a Linear"):
        from_nnx([nnx.Linear(2, 2, rngs=rngs)])


@needs_flax
def test_the_gru_of_nnx_would_lose_b_hn_by_the_measured_error() -> None:
    from flax import nnx

    from hiddenstate.interop.nnx import to_nnx

    cell, rng = GRU(D, H, 2), np.random.default_rng(0)
    given = Way(cell, {n: rng.uniform(-1, 1, shape) for n, shape in cell.shapes().items()})
    with pytest.raises(ConversionRefusal, match="b_hn is not zero") as raised:
        to_nnx(Weights(((given,),)))
    # What flax computes with b_hn in the only bias it has.
    merged = {**given.params, "b_x": given.params["b_x"] + given.params["b_h"]}
    del merged["b_h"]
    forced = Weights(((Way(GRU(D, H, 1), merged),),)).astype(np.float32)
    found = to_nnx(forced).value
    assert isinstance(found[0].cell, nnx.GRUCell)
    x = np.random.default_rng(0).standard_normal((20, 16, D)).swapaxes(0, 1)
    theirs = np.asarray(found[0](x.astype(np.float32)))
    error = np.abs(theirs - Weights(((given,),)).run(x).output).max()
    assert raised.value.measured_error == pytest.approx(error, rel=1e-4)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_the_equations_of_haste_are_those_of_a_plain_loop(name: str) -> None:
    rng = np.random.default_rng(0)
    cell = LSTM(D, H) if name == "lstm" else GRU(D, H, 2)
    given = Way(cell, {n: rng.uniform(-1, 1, shape) for n, shape in cell.shapes().items()})
    (layer,) = to_haste(Weights(((given,),))).value
    x = rng.standard_normal((1, 6, D))
    state = [rng.standard_normal(H) for _ in cell.state_shapes()]
    output, last = published(layer, x, [each[None] for each in state])
    plain, final = naive.run(
        {key: array.tolist() for key, array in layer.items()},
        x[0].tolist(),
        [each.tolist() for each in state],
    )
    np.testing.assert_allclose(output[0], plain, atol=1e-14)
    np.testing.assert_allclose([each[0] for each in last], final, atol=1e-14)


def test_the_arrays_of_haste_are_found() -> None:
    rng = np.random.default_rng(0)
    ways = [
        Way(c, {n: rng.uniform(-1, 1, s).astype(np.float32) for n, s in c.shapes().items()})
        for c in (LSTM(D, H), GRU(H, 2, 2))
    ]
    given = Weights(tuple((way,) for way in ways))
    arrays = flatten(to_haste(given).value)
    assert sorted(arrays)[:4] == ["0.bias", "0.kernel", "0.recurrent_kernel", "1.bias"]
    held = {f"model.{name}": array for name, array in arrays.items()}
    found = from_haste({**held, "head.weight": np.zeros(3)}, part="model")
    assert str(found.weights) == str(given)
    assert found.notes == ("1 other arrays are left behind",)
    assert str(from_haste(arrays, part="1").weights).startswith("layer 0: gru")
    with pytest.raises(SpecError, match=r"are no haste layer's: head\.weight"):
        from_haste({"head.weight": np.zeros(3)})
    with pytest.raises(SpecError, match="bias missing"):
        from_haste({name: array for name, array in arrays.items() if name != "0.bias"})
