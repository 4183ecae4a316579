"""What of torch is read: modules, cells, state_dicts under any prefix; and what is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hiddenstate.cells import GRU, LSTM, Elman
from hiddenstate.cells.conventions import ConversionRefusal
from hiddenstate.errors import ShapeError, SpecError
from hiddenstate.interop.stack import from_stack, to_stack
from hiddenstate.interop.torch import from_torch, to_torch
from hiddenstate.interop.weights import Way, Weights
from hiddenstate.nn import Bidirectional, Layer, Recurrent, Stack

SIZES = (3, 4)


def inside(module: nn.Module, name: str = "encoder") -> nn.Module:
    model = nn.Module()
    model.table = nn.Embedding(7, 3)
    setattr(model, name, nn.ModuleDict({"rnn": module}))
    return model


@pytest.mark.parametrize(
    ("module", "cell"),
    [
        (nn.RNN(*SIZES, 2, bidirectional=True), Elman(*SIZES, 2)),
        (nn.RNN(*SIZES, nonlinearity="relu", bias=False), Elman(*SIZES, 0, activation="relu")),
        (nn.GRU(*SIZES, 3, batch_first=True, dropout=0.5), GRU(*SIZES, 2)),
        (nn.LSTM(*SIZES, 2, proj_size=2, bidirectional=True), LSTM(*SIZES, 2, projection=2)),
        (nn.LSTM(*SIZES, proj_size=1, bias=False), LSTM(*SIZES, 0, projection=1)),
        (nn.RNNCell(*SIZES, nonlinearity="relu"), Elman(*SIZES, 2, activation="relu")),
        (nn.GRUCell(*SIZES, bias=False), GRU(*SIZES, 0)),
        (nn.LSTMCell(*SIZES), LSTM(*SIZES, 2)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_module_and_its_state_dict_are_read_alike(module: nn.Module, cell: Any) -> None:
    activation = getattr(cell, "activation", "tanh")
    training = module.training
    found = from_torch(module)
    assert found.weights.ways[0].cell == cell
    assert module.training is training
    for source in (
        module.state_dict(),
        inside(module).state_dict(),
        {f"module.{k}": v for k, v in inside(module).state_dict().items()},
    ):
        again = from_torch(source, activation=activation)
        assert str(again.weights) == str(found.weights)
        for left, right in zip(again.weights.ways, found.weights.ways, strict=True):
            for name in left.params:
                np.testing.assert_array_equal(left.params[name], right.params[name])
    assert again.notes == ("1 other arrays of the state_dict are left behind",)
    assert from_torch(inside(module)).weights.ways[0].cell == cell


def test_one_of_several_is_named() -> None:
    model = nn.ModuleDict({"first": nn.GRU(*SIZES), "second": nn.LSTM(*SIZES)})
    for source in (model, model.state_dict()):
        assert from_torch(source, part="second").weights.ways[0].cell == LSTM(*SIZES, 2)
        with pytest.raises(SpecError, match=r"2 recurrent modules: 'first', 'second'\."):
            from_torch(source)
        with pytest.raises(SpecError, match="'third' is not one of them"):
            from_torch(source, part="third")
    with pytest.raises(SpecError, match="0 recurrent modules: none"):
        from_torch(nn.Linear(2, 2).state_dict())


def test_narrow_floats_are_widened_exactly() -> None:
    module = nn.GRU(*SIZES).bfloat16()
    found = from_torch(module.state_dict()).weights
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.ways[0].params["w_x"], module.weight_ih_l0.float().detach())
    assert from_torch(nn.LSTM(*SIZES).half()).weights.dtype == np.float32


def damaged(change: str) -> dict[str, torch.Tensor]:
    state = nn.LSTM(*SIZES, 2).state_dict()
    if change == "w_h":
        del state["weight_hh_l1"]
    elif change == "layer":
        state = {name: array for name, array in state.items() if "l0" not in name}
    elif change == "bias":
        del state["bias_hh_l1"]
    elif change == "transposed":
        state["weight_hh_l0"] = state["weight_hh_l0"].T
    elif change == "input":
        state["weight_ih_l1"] = torch.zeros(16, 5)
    elif change == "integers":
        state["weight_ih_l0"] = torch.zeros(16, 3, dtype=torch.int8)
    elif change == "five gates":
        state["weight_hh_l0"] = torch.zeros(20, 4)
    elif change == "mixed":
        state["bias_ih_l0"] = state["bias_ih_l0"].double()
    return state


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("w_h", "weight_hh of layer 1 is missing"),
        ("layer", "Layer 0 has 0 directions"),
        ("bias", "layer 1 has the arrays .* bias_hh missing"),
        ("transposed", r"weight_hh of layer 0 is of shape \[4, 16\]"),
        ("input", "Layer 0 gives 4 features, layer 1 reads 5"),
        ("integers", "is of type int8"),
        ("five gates", r"weight_hh of layer 0 is of shape \[20, 4\]"),
        ("mixed", "float32, float64"),
    ],
)
def test_a_damaged_state_dict_is_told(change: str, told: str) -> None:
    with pytest.raises((SpecError, ShapeError), match=told):
        from_torch(damaged(change))


def test_layers_that_torch_does_not_repeat_are_refused() -> None:
    lstm = from_torch(nn.LSTM(3, 4)).weights.ways[0]
    gru = from_torch(nn.GRU(4, 4)).weights.ways[0]
    with pytest.raises(SpecError, match="not alike"):
        to_torch(Weights(((lstm,), (gru,))))
    both = from_torch(nn.LSTM(4, 4, bidirectional=True)).weights.layers[0]
    with pytest.raises(SpecError, match="not alike"):
        to_torch(Weights(((lstm,), both)))
    with pytest.raises(SpecError, match="Layer 0 only runs backwards"):
        to_torch(Weights(((lstm._replace(reverse=True),),)))


def test_layers_with_and_without_biases_become_one_module() -> None:
    with_bias = from_torch(nn.LSTM(3, 4)).weights.ways[0]
    bare = from_torch(nn.LSTM(4, 4, bias=False)).weights.ways[0]
    found = to_torch(Weights(((with_bias,), (bare,))))
    assert not found.value.bias_hh_l1.any()
    assert "biases of zero are added, and would be trained" in found.notes


def test_what_changes_for_training_is_told() -> None:
    rng = np.random.default_rng(0)

    def notes(cell: Any) -> tuple[str, ...]:
        return to_torch(Weights(((Way(cell, cell.init(rng, "uniform")),),))).notes

    assert notes(GRU(*SIZES, 2)) == ()
    assert notes(GRU(*SIZES, 2, update="writes")) == ("the rows of the update gate are negated",)
    assert notes(LSTM(*SIZES)) == ("the second bias is zero, and would be trained as well",)
    (coupled,) = notes(LSTM(*SIZES, 2, coupled=True))
    assert "forget gate has weights of its own" in coupled
    assert "a forget gate with a bias of 10000 never forgets" in notes(
        LSTM(*SIZES, 0, forget_gate=False)
    )


def test_hiddenstate_modules_are_read_and_built() -> None:
    lstm, back = Recurrent(LSTM(3, 4), seed=0), Recurrent(LSTM(3, 4), reverse=True, seed=1)
    stack = Stack([Bidirectional(lstm, back), Recurrent(GRU(8, 2), seed=2)], dropout=0.5)
    found = from_stack(stack)
    again = to_stack(found)
    x, lengths = torch.randn(2, 5, 3), torch.tensor([5, 2])
    with torch.no_grad():
        expected, last = stack.eval()(x, lengths)
        output, ours = again(x, lengths)
    torch.testing.assert_close(output, expected, rtol=0, atol=0)
    torch.testing.assert_close(ours[1].h, last[1].h, rtol=0, atol=0)
    np.testing.assert_allclose(found.run(x.numpy(), lengths.numpy()).output, expected, atol=1e-6)
    assert [str(from_stack(layer)) for layer in (lstm, stack.layers[0])] == [
        str(Weights(((found.layers[0][0],),))),
        str(Weights((found.layers[0],))),
    ]


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        (Stack([Recurrent(GRU(3, 3), seed=0)], residual=True), "has residuals"),
        (
            Stack([Recurrent(GRU(3, 3), seed=0), Recurrent(GRU(3, 3), seed=1)], layer_norm=True),
            "has layer norm between layers",
        ),
        (Recurrent(GRU(3, 3), zoneout=0.3, seed=0), "has zoneout"),
    ],
)
def test_what_is_no_weight_of_a_cell_is_refused_with_its_error(layer: Layer, told: str) -> None:
    plain = Stack([Recurrent(r.cell, seed=0) for r in layer.modules() if isinstance(r, Recurrent)])
    recurrents = [r for r in layer.modules() if isinstance(r, Recurrent)]
    for into, source in zip(plain.layers, recurrents, strict=True):
        into.load_state_dict(source.state_dict())
    with pytest.raises(ConversionRefusal, match=told) as raised:
        from_stack(layer)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((5, 11, 3))).float()
    with torch.no_grad():
        error = float((layer.eval()(x)[0] - plain.eval()(x)[0]).abs().max())
    assert raised.value.measured_error == pytest.approx(error, rel=1e-4)


def test_a_learned_first_state_is_refused_with_its_error() -> None:
    layer = Recurrent(GRU(3, 3), learned_state=True, seed=0)
    with torch.no_grad():
        layer.initial_h.fill_(0.5)
    with pytest.raises(ConversionRefusal, match="a learned first state") as raised:
        from_stack(layer)
    assert raised.value.measured_error > 0.01
