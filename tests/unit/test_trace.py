"""Loops, several calls, refusals and remarks of a trace."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.rnn import pack_padded_sequence

import hiddenstate
from hiddenstate.artifact import HeadSpec, LayerSpec, ModelSpec
from hiddenstate.cells import build
from hiddenstate.errors import HiddenstateError, ShapeError, SpecError, UsageError
from hiddenstate.models import SequenceModel
from hiddenstate.schema import Symbols

B, T, D, H = 3, 5, 2, 4


def x_of(seed: int = 0) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).standard_normal((B, T, D)), dtype=torch.float32)


class Wrapped(nn.Module):
    """A module that does what a function says with its parts."""

    def __init__(self, run: Any, **parts: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, *given: Any) -> Any:
        return self.run(self, *given)


def names(found: Any) -> list[str]:
    return [layer.name for layer in found.layers]


def total(output: Any) -> Tensor:
    return output[0].square().sum() if isinstance(output, tuple) else output.square().sum()


def test_several_layers_and_a_layer_called_several_times() -> None:
    def run(own: Any, x: Tensor) -> Tensor:
        a, _ = own.low(x)
        b, _ = own.low(x.flip(1))
        return own.high(a + b)[0].mean(1)

    module = Wrapped(run, low=nn.GRU(D, H, batch_first=True), high=nn.LSTM(H, H, batch_first=True))
    found = hiddenstate.trace(module, (x_of(),), total)
    assert names(found) == ["low.l0", "low.l0#2", "high.l0"]
    assert np.array_equal(found.layer("low.l0#2").x, x_of().flip(1))
    alone = hiddenstate.trace(module.low, (x_of().flip(1),))
    assert names(alone) == ["gru.l0"]
    assert np.array_equal(alone.layers[0].states.h, found.layer("low.l0#2").states.h)


@pytest.mark.parametrize("cut", [False, True], ids=["handed on", "detached"])
def test_two_sequences_in_one_loop_are_told_apart(cut: bool) -> None:
    one, two = x_of(), x_of(1)
    if not cut:
        two[:, 0] = one[:, 0]  # the same state after the first step

    def run(own: Any) -> Tensor:
        a = b = None
        for t in range(T):
            a, b = own.cell(one[:, t], a), own.cell(two[:, t], b)
            if cut:
                a, b = a.detach(), b.detach()
        return a + b

    module = Wrapped(run, cell=nn.GRUCell(D, H))
    found = hiddenstate.trace(module, ())
    assert names(found) == ["cell", "cell#2"]
    for layer, x in zip(found.layers, (one, two)):
        assert np.array_equal(layer.x, x)
    assert not found.remarks[1:]


@pytest.mark.parametrize("recorded", [True, False], ids=["with a graph", "without"])
def test_a_loop_may_change_the_state_on_its_way(recorded: bool) -> None:
    lengths = torch.tensor([5, 2, 3])

    def run(own: Any, x: Tensor) -> Tensor:
        h = torch.zeros(B, H)
        for t in range(T):
            h = torch.where((t < lengths)[:, None], own.cell(x[:, t], h), h)
        for t in range(T):  # another sequence with the same cell
            again = own.cell(x[:, t], torch.zeros(B, H) if t == 0 else again * 1.0)  # noqa: F821
        return h + again

    module = Wrapped(run, cell=nn.RNNCell(D, H))
    with torch.set_grad_enabled(recorded):
        found = hiddenstate.trace(module, (x_of(),))
    assert names(found) == ["cell", "cell#2"]
    (said,) = (each for each in found.remarks if "changes it on its way" in each)
    assert said.startswith("cell got a state at 2 of 5 steps")


def test_a_state_from_elsewhere_begins_another_sequence() -> None:
    def run(own: Any, x: Tensor) -> Tensor:
        out = 0.0
        for first in (own.enc(x)[1][0], own.enc(x.flip(1))[1][0]):
            h = first
            for t in range(3):
                h = own.cell(x[:, t], h)
            out = out + h
        return out

    module = Wrapped(run, enc=nn.GRU(D, H, batch_first=True), cell=nn.GRUCell(D, H))
    found = hiddenstate.trace(module, (x_of(),))
    assert names(found) == ["enc.l0", "enc.l0#2", "cell", "cell#2"]


def test_a_subclass_and_a_direct_call_of_forward_are_seen() -> None:
    class Packing(nn.LSTM):
        def forward(self, x: Tensor, lengths: Tensor) -> Any:  # type: ignore[override]
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return super().forward(packed)[1][0]

    module = Wrapped(
        lambda own, x, n: own.lstm(x, n).sum() + own.gru.forward(x)[0].sum(),
        lstm=Packing(D, H, batch_first=True),
        gru=weight_norm(nn.GRU(D, H, batch_first=True), "weight_hh_l0"),
    )
    found = hiddenstate.trace(module, (x_of(), torch.tensor([5, 1, 3])), lambda cost: cost)
    assert names(found) == ["lstm.l0", "gru.l0"]
    assert found.layers[0].lengths.tolist() == [5, 1, 3]
    assert max(layer.difference for layer in found.layers) < 1e-6
    assert type(module.lstm) is Packing


def test_our_models_by_the_names_of_their_arguments() -> None:
    symbols = Symbols.fit(["abc"])
    both = LayerSpec(build("lstm", 3, H).to_json(), bidirectional=True)
    layers = (both, LayerSpec(build("gru", 2 * H, H).to_json()))
    head = HeadSpec({"task": "lm", "classes": ["<unknown>", *symbols.names]})
    model = SequenceModel(ModelSpec(symbols, (3,), layers, (head,)))
    codes, numbers = torch.randint(1, 4, (B, T, 1)), torch.zeros(B, T, 0)
    batch = {"codes": codes, "numbers": numbers, "lengths": torch.tensor([5, 0, 3])}
    found = hiddenstate.trace(model, batch, lambda output: output[0][0].sum(), lengths=[5, 0, 3])
    assert names(found) == [
        "stack.layers.0.forward_layer",
        "stack.layers.0.backward_layer",
        "stack.layers.1",
    ]
    assert {layer.kernel for layer in found.layers} == {"native"}
    assert found.lengths is not None
    assert found.lengths.tolist() == [5, 0, 3]
    assert all(not layer.gradients.h[1].any() for layer in found.layers)


def test_outputs_are_flattened() -> None:
    def run(own: Any, x: Tensor) -> Any:
        packed = pack_padded_sequence(x, torch.tensor([2, 5, 1]), True, enforce_sorted=False)
        return {"a": own.gru(packed), "b": [None, x[:, 0]]}

    found = hiddenstate.trace(Wrapped(run, gru=nn.GRU(D, H)), [x_of()])
    assert [each.shape for each in found.outputs] == [(B, T, H), (1, B, H), (B, D)]
    assert not found.outputs[0][2, 1:].any()


def test_sixteen_bits_are_told() -> None:
    layer = nn.LSTM(D, H, batch_first=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = hiddenstate.trace(layer, x_of(), lambda out: out[0].float().sum())
    assert "lstm computed in bfloat16, its trace is in float32." in found.remarks
    assert 0 < found.layers[0].difference < 0.05
    narrow = hiddenstate.trace(nn.GRUCell(D, H).bfloat16(), (x_of()[:, 0].bfloat16(),))
    assert narrow.layers[0].states.h.dtype == np.float32
    assert any("bfloat16" in each for each in narrow.remarks)


def test_what_does_not_compute_its_weights_is_told() -> None:
    class Noisy(nn.GRU):
        def forward(self, input: Any, hx: Any = None) -> Any:
            self.weight_hh_l0.data.mul_(0.5)
            found = super().forward(input, hx)
            self.weight_hh_l0.data.mul_(2.0)
            return found

    found = hiddenstate.trace(Noisy(D, H), x_of())
    assert any("does not compute what its weights say" in each for each in found.remarks)
    assert found.layers[0].difference > 1e-3


def test_what_the_loss_does_not_reach_is_told() -> None:
    def run(own: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            own.still(x)
        own.unused(x)
        return own.used(x)[0]

    parts = {name: nn.GRU(D, H) for name in ("still", "unused", "used", "idle")}
    found = hiddenstate.trace(Wrapped(run, **parts), x_of(), total)
    said = " ".join(found.remarks)
    assert "still has no gradients" in said
    assert "The loss does not depend on unused." in said
    assert "idle was not called." in said
    assert "used has" not in said.replace("unused", "")
    assert found.layer("still.l0").gradients is None
    assert not found.layer("unused.l0").gradients.h.any()
    assert found.layer("used.l0").gradients.h.any()


def test_rows_and_steps_may_be_none() -> None:
    layer = hiddenstate.nn.GRU(D, H, 2, seed=0)
    for shape in ((0, T, D), (B, 0, D)):
        found = hiddenstate.trace(layer, (torch.zeros(shape),), total)
        assert found.layers[1].states.h.shape == (*shape[:2], H)


def test_nan_in_a_row_stays_in_it() -> None:
    x = x_of()
    x[1, 2] = torch.nan
    found = hiddenstate.trace(nn.LSTM(D, H, batch_first=True), (x,), total)
    (layer,) = found.layers
    assert np.isnan(layer.states.h[1, 2:]).all()
    assert np.isfinite(np.delete(layer.gradients.h, 1, axis=0)).all()


def test_what_explodes_is_traced_without_a_warning() -> None:
    layer = nn.RNN(D, H, 2, nonlinearity="relu", batch_first=True)
    for name, weight in layer.named_parameters():
        weight.data.fill_(1e10 if "weight" in name else 0.0)
    found = hiddenstate.trace(layer, (x_of().abs(),), total)
    assert np.isinf(found.layers[1].states.h[:, -1]).all()
    assert not np.isfinite(found.layers[0].gradients.h[:, 0]).any()
    assert np.isfinite([layer.difference for layer in found.layers]).all()
    assert len(found.remarks) == 1


def test_a_trace_within_a_trace() -> None:
    inner: list[Any] = []

    def run(own: Any, x: Tensor) -> Tensor:
        inner.append(hiddenstate.trace(own.gru, x))
        return own.gru(x)[0]

    module = Wrapped(run, gru=nn.GRU(D, H))
    found = hiddenstate.trace(module, x_of())
    assert names(found) == ["gru.l0"]  # what the inner one ran is its own
    assert names(inner[0]) == ["gru.l0"]
    assert type(module.gru) is nn.GRU


def test_nothing_outlives_its_trace() -> None:
    class Own(nn.GRU):
        pass

    module = Wrapped(
        lambda own, x: own.low(own.high(x)[0])[0],
        high=Own(D, H, batch_first=True),
        low=hiddenstate.nn.LSTM(H, H, seed=0),
    )
    gc.collect()
    gc.disable()
    try:
        found = hiddenstate.trace(module, (x_of(),), total)
        watched = [weakref.ref(layer.states.h) for layer in found.layers]
        del found
        assert [each() for each in watched] == [None, None]
    finally:
        gc.enable()


def test_modules_of_torch_compile_run_eagerly() -> None:
    plain = Wrapped(lambda own, x: own.gru(x)[0], gru=nn.GRU(D, H))
    module = torch.compile(plain, backend="eager")
    found = hiddenstate.trace(module, (x_of(),))
    assert names(found) == ["gru.l0"]
    assert any("compiled by torch.compile" in each for each in found.remarks)


@pytest.mark.filterwarnings("ignore:.*torch.jit.:DeprecationWarning")
def test_refusals_have_three_parts() -> None:
    scripted = Wrapped(lambda own, x: own.a(x), a=torch.jit.script(nn.LSTM(D, H)))
    refused: list[tuple[Any, Any, Any, type[HiddenstateError], str]] = [
        (
            nn.Sequential(nn.Linear(D, 3), nn.ReLU()),
            x_of(),
            None,
            SpecError,
            "Linear (1), ReLU (1)",
        ),
        (scripted, x_of(), None, SpecError, "compiled by TorchScript"),
        (nn.LSTM, x_of(), None, SpecError, "trace got a type"),
        (Wrapped(lambda _, x: x, gru=nn.GRU(D, H)), x_of(), None, SpecError, "called none"),
        (nn.GRU(D, H), x_of(), lambda out: out[0], ShapeError, "[3, 5, 4]"),
        (nn.GRU(D, H), x_of(), lambda out: out[0].sum().item(), ShapeError, "float"),
        (nn.GRU(D, H), x_of(), lambda out: out[0].sum().detach(), ShapeError, "without a grad"),
    ]
    for module, batch, loss, kind, said in refused:
        with pytest.raises(kind) as caught:
            hiddenstate.trace(module, batch, loss)
        assert said in caught.value.wrong
        assert caught.value.expected
        assert caught.value.remedy
    with pytest.raises(UsageError, match=r"no layer 'lstm'.*Did you mean lstm.l0"):
        hiddenstate.trace(nn.LSTM(D, H), x_of()).layer("lstm")
