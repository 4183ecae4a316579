"""A trace changes nothing, and what it shows is what the layers did."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import hiddenstate
from hiddenstate.diagnose.subject.nested import tensors
from hiddenstate.diagnose.tracing.record import LayerTrace
from tests.laws.equation_runner import execute
from tests.laws.trace_cases import (
    LENGTHS,
    B,
    D,
    H,
    Loop,
    OwnTagger,
    T,
    Tagger,
    cost,
    fused_layers,
    own_layers,
    x_of,
)

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def modules() -> dict[str, tuple[nn.Module, tuple[Any, ...]]]:
    """Modules in training mode with a batch, in float64."""
    torch.manual_seed(2)
    found: dict[str, tuple[nn.Module, tuple[Any, ...]]] = {}
    for name, layer in fused_layers().items():
        x = x_of(layer.batch_first)
        found[name] = Tagger(layer), (x,)
        found[f"{name}, packed"] = Tagger(copy.deepcopy(layer)), (x, LENGTHS)
    for name, own in own_layers().items():
        found[f"own {name}"] = OwnTagger(own), (x_of(), LENGTHS)
    for kind in (nn.RNNCell, nn.LSTMCell, nn.GRUCell):
        found[kind.__name__] = Loop(kind(D, H)), (x_of(),)
    found["no batch axis"] = nn.LSTM(D, H, 2, bidirectional=True), (x_of()[0],)
    found["a cell, no batch axis"] = nn.GRUCell(D, H), (x_of()[0, 0],)
    return {name: (module.double(), batch) for name, (module, batch) in found.items()}


MODULES = list(modules())


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("wide", [True, False], ids=["float64", "float32"])
@pytest.mark.parametrize("name", MODULES)
def test_the_output_is_that_of_an_untraced_run(name: str, wide: bool) -> None:
    module, batch = modules()[name]
    if not wide:
        module.float()
        batch = (batch[0].float(), *batch[1:])
    truth = [each.detach().numpy() for _, each in tensors(module.eval()(*batch))]
    module.train()
    handed: list[Any] = []

    def loss(outputs: Any) -> torch.Tensor:
        handed.extend(each.detach().numpy() for _, each in tensors(outputs))
        return cost(outputs)

    plain, costed = hiddenstate.trace(module, batch), hiddenstate.trace(module, batch, loss)
    for right, *others in zip(truth, handed, plain.outputs, costed.outputs, strict=True):
        assert all(np.array_equal(right, each) for each in others)
    for layer in (*plain.layers, *costed.layers):
        assert layer.difference <= (1e-14 if wide else 2e-6)
        assert layer.x.dtype == (np.float64 if wide else np.float32)


@pytest.mark.parametrize("name", [name for name in MODULES if name != "own zoneout"])
def test_states_and_gates_are_those_of_the_equations(name: str) -> None:
    module, batch = modules()[name]
    for layer in hiddenstate.trace(module, batch).layers:
        read, text = layer.turned(), layer.cell.equations
        assert not read.reverse
        for b, length in enumerate(layer.lengths):
            state = {k: v[b] for k, v in layer.first._asdict().items()}
            for t in range(length):
                symbols = execute(layer.cell, text, dict(layer.params), read.x[b, t], state)
                state = {k: symbols[k] for k in state}
                gates = {k: symbols[k] for k in layer.cell.Gates._fields}
                for kind, truth in ((read.states, state), (read.gates, gates)):
                    for key, value in truth.items():
                        np.testing.assert_allclose(getattr(kind, key)[b, t], value, **EXACT)
                rows = [layer.params["w_x"] @ read.x[b, t], layer.params.get("b_x", 0.0)]
                if not getattr(layer.cell, "layer_norm", False):
                    np.testing.assert_allclose(read.projected[b, t].ravel(), sum(rows), **EXACT)
            for each in read.states:
                assert (each[b, length:] == each[b, length - 1]).all()
            for each in (read.x, read.projected, *read.gates):
                assert not each[b, length:].any()


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_packed_rows_are_traced_as_alone(kind: str) -> None:
    layer = fused_layers()[f"{kind}, two layers, both directions"]
    found = hiddenstate.trace(Tagger(layer).double(), (x_of(), LENGTHS), cost)
    for b, length in enumerate(LENGTHS.tolist()):
        alone = hiddenstate.trace(layer, (x_of()[b : b + 1, :length],))
        for whole, one in zip(found.layers, alone.layers):
            assert whole.lengths[b] == length
            rows = [*zip(whole.states, one.states), *zip(whole.gates, one.gates)]
            for left, right in [*rows, (whole.projected, one.projected)]:
                np.testing.assert_allclose(left[b, :length], right[0], **EXACT)


def test_time_first_is_batch_first() -> None:
    for kind in ("RNN", "LSTM", "GRU"):
        one, two = (fused_layers()[f"{kind}, {what}"] for what in ("one layer", "time first"))
        left = hiddenstate.trace(Tagger(one).double(), (x_of(), LENGTHS), cost)
        torch.manual_seed(0)
        right = hiddenstate.trace(Tagger(two).double(), (x_of(False), LENGTHS), cost)
        others = arrays(right.layers[0])
        for name, array in arrays(left.layers[0]).items():
            if not name.startswith("gradients"):  # the loss weighs other numbers
                np.testing.assert_allclose(array, others[name], **EXACT, err_msg=name)


def test_both_directions_in_reading_order_are_one_direction_each() -> None:
    layer = fused_layers()["LSTM, two layers, both directions"]
    found = hiddenstate.trace(Tagger(layer).double(), (x_of(), LENGTHS), cost)
    ahead, behind = found.layers[:2]
    assert ahead.turned() is ahead
    turned = arrays(behind.turned())
    for b, n in enumerate(LENGTHS.tolist()):
        for name, _, array in behind.arrays():
            kind = name.split("/")[0]
            if kind in ("x", "states", "gates", "projected", "gradients"):
                assert np.array_equal(turned[name][b, :n], array[b, :n][::-1])


def test_the_state_that_a_layer_began_with() -> None:
    layer = fused_layers()["LSTM, two layers, both directions"]
    rng = np.random.default_rng(0)
    h, c = (torch.tensor(rng.standard_normal((4, B, H))) for _ in range(2))
    found = hiddenstate.trace(layer, (x_of(), (h, c)))
    for k, each in enumerate(found.layers):
        assert np.array_equal(each.first.h, h[k])
        assert np.array_equal(each.first.c, c[k])
    names = ["lstm.l0", "lstm.l0.reverse", "lstm.l1", "lstm.l1.reverse"]
    assert [each.name for each in found.layers] == names


class Probed(nn.Module):
    """Something of everything that a trace must leave alone."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(D)
        self.lstm = nn.LSTM(D, H, 2, dropout=0.5, batch_first=True)
        self.cell = nn.GRUCell(H, H)
        self.own = own_layers()["lstm"].float()
        self.frozen = nn.Linear(2 * H, 1).requires_grad_(False)
        self.lstm.eval()
        self.register_buffer("carried", torch.zeros(1))
        self.fails = ""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        y, _ = self.lstm(x)
        self.carried = self.carried + y.detach().sum()
        h = self.cell(y[:, -1])
        if self.fails == "forward":
            raise RuntimeError("on purpose")
        return self.frozen(self.own(x)[0]).sum() + nn.functional.dropout(h, 0.5).sum()


def marks(module: nn.Module) -> dict[str, Any]:
    """Everything about a module that can be seen from outside."""
    found: dict[str, Any] = {"random": torch.get_rng_state().tolist()}
    for name, each in module.named_modules():
        hooks = {k: dict(v) for k, v in vars(each).items() if "hooks" in k and v is not None}
        own = {k: id(v) for k, v in vars(each).items() if not k.startswith("_")}
        found[name] = (type(each), each.training, hooks, own)
    for name, each in [*module.named_parameters(), *module.named_buffers()]:
        grad = None if each.grad is None else each.grad.tolist()
        found[name] = (id(each), each.tolist(), each.requires_grad, grad)
    return found


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("fails", ["", "forward", "loss"])
def test_a_module_is_afterwards_as_it_was(fails: str, training: bool) -> None:
    torch.manual_seed(0)
    module, x = Probed(), x_of().float()
    module(x).backward()
    module.fails = fails
    module.own.layers[0].forward_layer.last_kernel = "native"
    before = marks(module)

    def loss(output: Any) -> torch.Tensor:
        if fails == "loss":
            raise RuntimeError("on purpose")
        return output

    if fails:
        with pytest.raises(RuntimeError, match="on purpose"):
            hiddenstate.trace(module, (x,), loss, training=training)
    else:
        hiddenstate.trace(module, (x,), loss, training=training)
    after = marks(module)
    assert before.keys() == after.keys()
    for name in before:
        if not name.startswith("own"):
            assert before[name] == after[name], name
    assert before["own"] == after["own"]


def test_training_mode_shows_what_can_be_seen() -> None:
    torch.manual_seed(0)
    module = Probed().train()
    found = hiddenstate.trace(module, (x_of().float(),), lambda cost: cost, training=True)
    names = [layer.name for layer in found.layers]
    assert "lstm.l0" in names
    assert "lstm.l1" not in names
    assert found.layer("lstm.l0").gradients is None
    assert found.layer("cell").gradients is not None
    assert any("drops features between its layers" in each for each in found.remarks)
    torch.manual_seed(1)
    own = hiddenstate.nn.GRU(D, H, dropconnect=0.5, seed=0)
    dropped = hiddenstate.trace(own, (x_of().float(),), training=True).layers[0]
    assert (dropped.params["w_h"] == 0).mean() > 0.2
    assert dropped.difference == 0


def arrays(layer: LayerTrace) -> dict[str, Any]:
    return {name: array for name, _, array in layer.arrays()}


def test_axes_name_every_array() -> None:
    module, batch = modules()["LSTM, projection"]
    found = hiddenstate.trace(module, batch, cost)
    axes, sizes = found.axes, {"B": B, "T": T, "H": H, "P": 2, "G": 4, "GH": 4 * H}
    assert axes["layer.l0/states/h"] == "B T P"
    assert axes["layer.l1.reverse/gradients/c"] == "B T H"
    for layer in found.layers:
        for name, _, array in layer.arrays():
            own = sizes | {"D": layer.cell.input_size}
            assert array.shape == tuple(own[a] for a in axes[f"{layer.name}/{name}"].split())
