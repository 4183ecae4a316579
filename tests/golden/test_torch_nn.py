"""torch.nn.RNN, LSTM and GRU as the outside source: same weights, same numbers."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from hiddenstate.cells import GRU as GRUCell
from hiddenstate.cells import LSTM as LSTMCell
from hiddenstate.errors import HiddenstateError, ShapeError, SpecError
from hiddenstate.nn import GRU, LSTM, Directions, Elman, Recurrent, Stack, from_torch, to_torch

B, T, D, H = 4, 9, 3, 5
LENGTHS = torch.tensor([6, 9, 1, 6])
TIGHT = {"rtol": 1e-11, "atol": 1e-12}
KINDS: list[tuple[type[nn.Module], dict[str, Any]]] = [
    (nn.RNN, {}),
    (nn.RNN, {"nonlinearity": "relu"}),
    (nn.LSTM, {}),
    (nn.LSTM, {"proj_size": 2}),
    (nn.GRU, {}),
]
SHAPES = list(itertools.product((1, 2), (False, True), (False, True)))


def build(kind: Any, options: dict[str, Any], layers: int, both: bool, bias: bool) -> Any:
    torch.manual_seed(0)
    module = kind(
        D,
        H,
        layers,
        batch_first=True,
        bidirectional=both,
        bias=bias,
        dtype=torch.float64,
        **options,
    )
    return module, from_torch(module)


def ours_as_torch(state: Any) -> Any:
    """A state of ours in torch's arrangement: [layers * directions, B, width], LSTM: (h, c)."""
    flat = [part for layer in state for part in (layer if type(layer) is Directions else [layer])]
    arrays = tuple(torch.stack(columns) for columns in zip(*flat, strict=True))
    return arrays if len(arrays) > 1 else arrays[0]


def torch_as_ours(state: Any, stack: Stack) -> Any:
    arrays = state if isinstance(state, tuple) else (state,)
    cells = [part.cell for part in stack.modules() if isinstance(part, Recurrent)]
    states = [cell.State(*(a[k] for a in arrays)) for k, cell in enumerate(cells)]
    if len(cells) == len(stack.layers):
        return tuple(states)
    return tuple(Directions(*states[k : k + 2]) for k in range(0, len(states), 2))


def random_state(module: Any) -> Any:
    draw = torch.Generator().manual_seed(5)
    zeros = module(torch.zeros(B, 1, D, dtype=torch.float64))[1]
    if isinstance(zeros, tuple):
        return tuple(torch.randn(a.shape, dtype=a.dtype, generator=draw) for a in zeros)
    return torch.randn(zeros.shape, dtype=zeros.dtype, generator=draw)


def gradients(output: Tensor, state: Any, leaves: list[Tensor]) -> tuple[Tensor, ...]:
    ends = state if isinstance(state, tuple) else (state,)
    loss = (output * output).sum() + sum((end * 3.0).sum() for end in ends)
    return torch.autograd.grad(loss, leaves, retain_graph=True)


@pytest.mark.parametrize(("layers", "both", "bias"), SHAPES)
@pytest.mark.parametrize(("kind", "options"), KINDS)
@pytest.mark.parametrize("packed", [False, True])
def test_drop_in(
    kind: Any, options: dict[str, Any], layers: int, both: bool, bias: bool, packed: bool
) -> None:
    module, stack = build(kind, options, layers, both, bias)
    x = torch.randn(B, T, D, dtype=torch.float64, requires_grad=True)
    for state in (None, random_state(module)):
        given: Any = x
        if packed:
            given = pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
        expected, expected_state = module(given, state)
        output, last = stack(given, state=None if state is None else torch_as_ours(state, stack))
        if packed:
            assert isinstance(output, PackedSequence)
            for ours, theirs in zip(output[1:], expected[1:], strict=True):
                assert torch.equal(ours, theirs)
            output, expected = output.data, expected.data
        last = ours_as_torch(last)
        torch.testing.assert_close(output, expected, **TIGHT)
        torch.testing.assert_close(last, expected_state, **TIGHT)
        theirs = gradients(expected, expected_state, [x, *module.parameters()])
        mine = gradients(output, last, [x, *stack.parameters()])
        torch.testing.assert_close(mine[0], theirs[0], **TIGHT)
        for ours, other in zip(mine[1:], theirs[1:], strict=True):
            torch.testing.assert_close(ours, other, **TIGHT)


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_lengths_are_packing(kind: Any, options: dict[str, Any]) -> None:
    module, stack = build(kind, options, 2, True, True)
    x = torch.randn(B, T, D, dtype=torch.float64)
    packed = pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    expected, expected_state = module(packed)
    expected = pad_packed_sequence(expected, batch_first=True)[0]
    output, last = stack(x, LENGTHS)
    torch.testing.assert_close(output, expected, **TIGHT)
    torch.testing.assert_close(ours_as_torch(last), expected_state, **TIGHT)


@pytest.mark.parametrize(("layers", "both", "bias"), SHAPES)
@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_there_and_back(
    kind: Any, options: dict[str, Any], layers: int, both: bool, bias: bool
) -> None:
    module, stack = build(kind, options, layers, both, bias)
    again = to_torch(stack)
    assert type(again) is kind
    for (name, value), (other, back) in zip(
        module.named_parameters(), again.named_parameters(), strict=True
    ):
        assert name == other
        assert torch.equal(value, back)


@pytest.mark.parametrize(
    "stack",
    [
        GRU(D, H, 2, update="writes", seed=0),
        LSTM(D, H, coupled=True, seed=0),
        LSTM(D, H, forget_gate=False, biases=0, seed=0),
        Elman(D, H, 2, bidirectional=True, seed=0),
    ],
)
def test_other_conventions_reach_torch_exactly(stack: Stack) -> None:
    module = to_torch(stack)
    x = torch.randn(B, T, D)
    torch.testing.assert_close(module(x)[0], stack(x)[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("stack", "reason"),
    [
        (GRU(D, H, reset="before"), "resets after the recurrent product"),
        (LSTM(D, H, peephole=True), "no peepholes"),
        (LSTM(D, H, layer_norm=True), "no layer norm"),
        (GRU(H, H, residual=True), "residuals"),
        (GRU(D, H, zoneout=0.1), "zoneout"),
        (GRU(D, H, dropconnect=0.1), "dropconnect"),
        (GRU(D, H, learned_state=True), "learns its first state"),
        (Stack([Recurrent(GRUCell(D, H), reverse=True)]), "only runs backwards"),
        (Stack([Recurrent(GRUCell(D, H)), Recurrent(LSTMCell(H, H))]), "layers differ"),
        (Stack([GRU(D, H)]), "neither a Recurrent nor"),
        (Stack([Recurrent(GRUCell(D, H))], layer_norm=True, input_dropout=0.1), "drops inputs"),
    ],
)
def test_what_torch_has_not_is_refused(stack: Stack, reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        to_torch(stack)


def test_dropout_and_mode_travel() -> None:
    stack = from_torch(nn.GRU(D, H, 2, dropout=0.25).eval())
    (between,) = stack.dropouts
    assert (between.share, between.variational, stack.training) == (0.25, False, False)
    again = to_torch(stack.train())
    assert (again.dropout, again.training) == (0.25, True)


def test_only_recurrent_modules_are_read() -> None:
    with pytest.raises(SpecError, match="from_torch got a Linear"):
        from_torch(nn.Linear(2, 2))


def test_packed_sequences_bring_their_lengths() -> None:
    packed = pack_padded_sequence(torch.zeros(B, T, D), LENGTHS, True, enforce_sorted=False)
    with pytest.raises(ShapeError, match="brings its own lengths"):
        GRU(D, H)(packed, LENGTHS)
    assert issubclass(ShapeError, HiddenstateError)
