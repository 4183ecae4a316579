"""dL/d(state) at every step equals what autograd gives the states of the reference scan."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import hiddenstate
from hiddenstate import nn as ours
from hiddenstate.cells import NUMPY, Cell
from hiddenstate.diagnose.tracing.record import LayerTrace
from hiddenstate.diagnose.tracing.through_time import through_time
from hiddenstate.kernels import Zoneout, scan
from hiddenstate.nn import TORCH, from_torch
from tests.laws.cell_cases import as_torch, every_variant, hold, input_of, params_of, state_of
from tests.laws.trace_cases import (
    LENGTHS,
    B,
    D,
    H,
    Loop,
    OwnTagger,
    Recorded,
    T,
    Tagger,
    cost,
    fused_layers,
    own_layers,
    x_of,
)

CLOSE = {"rtol": 1e-9, "atol": 1e-12}
"""Two orders of the same sums in float64."""


def traced(cell: Cell, lengths: Any, reverse: bool, zoneout: Any = None) -> LayerTrace:
    params, x, first = params_of(cell), input_of(cell), state_of(cell)
    ran = scan(NUMPY, cell, params, x, first, lengths, reverse=reverse, trace=True, zoneout=zoneout)
    counts = np.full(len(x), x.shape[1]) if lengths is None else np.array(lengths)
    live = (np.arange(x.shape[1]) < counts[:, None])[..., None]
    return LayerTrace(
        "cell",
        cell,
        params,
        reverse,
        "reference",
        np.where(live, x, 0),
        counts,
        first,
        ran.states,
        ran.gates,
        ran.projected,
    )


@pytest.mark.parametrize("lengths", [None, [4, 0, 7]], ids=["whole", "ragged"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
def test_every_cell_goes_back_as_autograd_does(lengths: Any, reverse: bool) -> None:
    def law(cell: Cell) -> None:
        layer, rng = traced(cell, lengths, reverse), np.random.default_rng(4)
        d_output = rng.standard_normal((*layer.x.shape[:2], cell.output_size))
        d_last = {k: rng.standard_normal(v.shape) for k, v in layer.first._asdict().items()}
        found, rows = through_time(layer, d_output, d_last)
        own: Any = Recorded(cell)
        params, x, first = params_of(cell), input_of(cell), state_of(cell)
        x = as_torch(x, grad=True)
        ran = scan(TORCH, own, as_torch(params), x, as_torch(first, True), lengths, reverse=reverse)
        pairs = [(ran.output, d_output), *((getattr(ran.state, k), v) for k, v in d_last.items())]
        sum((a * torch.tensor(b)).sum() for a, b in pairs).backward()
        for a, b in zip(found, own.gradients(reverse)):
            np.testing.assert_allclose(a, b, **CLOSE)
        if not getattr(cell, "layer_norm", False):
            d_x = rows.reshape(*rows.shape[:2], -1) @ params["w_x"]
            np.testing.assert_allclose(d_x, x.grad.numpy(), **CLOSE)

    hold(law, every_variant())


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("state", [False, True], ids=["from zeros", "from a state"])
@pytest.mark.parametrize("name", list(fused_layers()))
def test_torch_layers(name: str, packed: bool, state: bool) -> None:
    layer = fused_layers()[name]
    net = Tagger(layer).double()
    count = layer.num_layers * (2 if layer.bidirectional else 1)
    rng = np.random.default_rng(8)
    widths = {"h": layer.proj_size or H, **({"c": H} if isinstance(layer, nn.LSTM) else {})}
    first = tuple(torch.tensor(rng.standard_normal((count, B, w))) for w in widths.values())
    given = None if not state else first if len(first) == 2 else first[0]
    lengths = LENGTHS if packed else None
    found = hiddenstate.trace(net, (x_of(layer.batch_first), lengths, given), cost)
    stack = recorded(from_torch(layer))
    states = None
    if state:
        each = [dict(zip(widths, values)) for values in zip(*first)]
        states = nested(stack, each)
    y, last = stack(x_of(), lengths, states)
    logits = net.head(y)
    if not layer.batch_first:
        logits = logits.transpose(0, 1)
    ends = [torch.stack([getattr(s, n) for s in flat(last)]) for n in widths]
    cost({"logits": logits, "last": tuple(ends) if len(ends) == 2 else ends[0]}).backward()
    compare(found, stack)
    assert len(found.layers) == count
    assert not found.remarks or found.remarks == (
        "It ran in evaluation mode; the module is in training mode.",
    )


@pytest.mark.parametrize("ragged", [False, True], ids=["whole", "ragged"])
@pytest.mark.parametrize("name", list(own_layers()))
def test_own_layers(name: str, ragged: bool) -> None:
    net = OwnTagger(own_layers()[name])
    net.double()
    lengths = LENGTHS if ragged else None
    found = hiddenstate.trace(net, (x_of(), lengths), cost)
    rates = [each.zoneout for each in net.modules() if isinstance(each, ours.Recurrent)]
    recorded(net, zoneout=any(rates))
    cost(net.eval()(x_of(), lengths)).backward()
    compare(found, net)


@pytest.mark.parametrize("kind", [nn.RNNCell, nn.LSTMCell, nn.GRUCell])
def test_loops_over_cells(kind: Any) -> None:
    torch.manual_seed(0)
    states: list[Any] = []

    def keep(new: Any, old: Any, t: int) -> Any:
        states.append(new if isinstance(new, tuple) else (new,))
        return new

    loop = Loop(kind(D, H), keep).double()
    found = hiddenstate.trace(loop, (x_of(),), cost)
    states.clear()
    said = loop(x_of())
    for each in states:
        for array in each:
            array.retain_grad()
    cost(said).backward()
    (layer,) = found.layers
    assert (layer.name, layer.x.shape) == ("cell", (B, T, D))
    for k, gradient in enumerate(layer.gradients):
        truth = torch.stack([each[k].grad for each in states], 1)
        np.testing.assert_allclose(gradient, truth, **CLOSE)


def test_a_layer_run_step_by_step_is_the_layer_run_at_once() -> None:
    class Steps(nn.Module):
        def __init__(self, layer: Any, chunk: int) -> None:
            super().__init__()
            self.layer, self.chunk = layer, chunk

        def forward(self, x: Any) -> Any:
            state, outputs = None, []
            for piece in x.split(self.chunk, 1):
                y, state = self.layer(piece, state=state) if self.own else self.layer(piece, state)
                outputs.append(y)
            return torch.cat(outputs, 1)

        @property
        def own(self) -> bool:
            return isinstance(self.layer, ours.Layer)

    layers = [fused_layers()["LSTM, three layers"], fused_layers()["GRU, one layer"]]
    for layer in [*layers, own_layers()["peephole"], own_layers()["by torch"]]:
        one = hiddenstate.trace(Steps(layer, T), (x_of(),), cost)
        two = hiddenstate.trace(Steps(layer, 1), (x_of(),), cost)
        assert [each.name for each in one.layers] == [each.name for each in two.layers]
        for a, b in zip(one.layers, two.layers):
            for (name, _, left), (_, _, right) in zip(a.arrays(), b.arrays()):
                np.testing.assert_allclose(left, right, **CLOSE, err_msg=name)


def test_frozen_weights_have_gradients_of_states_all_the_same() -> None:
    for layer in (fused_layers()["GRU, three layers"], own_layers()["lstm"]):
        net = OwnTagger(layer) if isinstance(layer, ours.Layer) else Tagger(layer)
        net.double()
        free = hiddenstate.trace(net, (x_of(),), cost)
        net.layer.requires_grad_(False)
        for a, b in zip(free.layers, hiddenstate.trace(net, (x_of(),), cost).layers):
            np.testing.assert_allclose(a.gradients.h, b.gradients.h, **CLOSE)


def test_what_is_changed_in_place_afterwards_changes_no_gradient() -> None:
    class Residual(nn.Module):
        def __init__(self, in_place: bool) -> None:
            super().__init__()
            self.gru, self.in_place = fused_layers()["GRU, one layer"], in_place

        def forward(self, x: Any) -> Any:
            y, _ = self.gru(x)
            more = x.sum(-1, keepdim=True)
            if self.in_place:
                y += more
                x.zero_()
                return (y * y).sum()
            return ((y + more) ** 2).sum()

    one, two = (
        hiddenstate.trace(Residual(each), (x_of(),), lambda total: total).layers[0]
        for each in (False, True)
    )
    for (name, _, left), (_, _, right) in zip(one.arrays(), two.arrays()):
        np.testing.assert_allclose(left, right, **CLOSE, err_msg=name)


def recorded(module: Any, zoneout: bool = False) -> Any:
    """Make every cell of a module record its states, and the reference run it."""
    for each in module.modules():
        if isinstance(each, ours.Recurrent):
            each.cell, each.kernel = Recorded(each.cell), "reference"
            if zoneout:
                each._zoneout = lambda _, own=each: Mixing(own)
    return module


class Mixing(Zoneout):
    """Zoneout as in evaluation; the states recorded are those after it."""

    def __new__(cls, layer: Any) -> Any:
        made = super().__new__(cls, layer.zoneout, None)
        made.cell = layer.cell
        layer.cell.step = lambda *given: layer.cell.cell.step(*given)
        return made

    def mix(self, xp: Any, t: int, old: Any, new: Any) -> Any:
        mixed = super().mix(xp, t, old, new)
        self.cell.given.append(mixed)
        for each in mixed:
            each.retain_grad()
        return mixed


def compare(found: Any, module: Any) -> None:
    cells = [each for each in module.modules() if isinstance(each, ours.Recurrent)]
    assert len(cells) == len(found.layers)
    for layer, each in zip(found.layers, cells):
        assert layer.reverse == each.reverse
        for a, b in zip(layer.gradients, each.cell.gradients(each.reverse)):
            assert np.abs(b).max() > 1e-3, "a law about nothing"
            np.testing.assert_allclose(a, b, **CLOSE, err_msg=layer.name)


def flat(state: Any) -> list[Any]:
    return [state] if hasattr(state, "h") else [one for each in state for one in flat(each)]


def nested(stack: Any, states: list[dict[str, Any]]) -> Any:
    each = iter(states)
    shaped: list[Any] = []
    for layer in stack.layers:
        if isinstance(layer, ours.Bidirectional):
            ways = (layer.forward_layer, layer.backward_layer)
            shaped.append(ours.Directions(*(way.cell.State(**next(each)) for way in ways)))
        else:
            shaped.append(layer.cell.State(**next(each)))
    return tuple(shaped)
