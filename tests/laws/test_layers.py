"""What holds for every recurrent module: one cell, a stack, two directions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from hiddenstate.cells import CELLS, GRU, LSTM, NUMPY, Elman, build
from hiddenstate.errors import HiddenstateError, KernelRefusal, ShapeError, SpecError
from hiddenstate.kernels import scan
from hiddenstate.nn import Bidirectional, Layer, Recurrent, Stack, detach, map_state, stack_of

D, H, B, T = 3, 5, 4, 9
LENGTHS = torch.tensor([9, 0, 4, 1])
EXACT = {"rtol": 1e-11, "atol": 1e-12}


@pytest.fixture(autouse=True)
def _seeded_double_and_nan_filled() -> Iterator[None]:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_default_dtype(torch.float32)


def one(name: str, **options: Any) -> Layer:
    return Recurrent(build(name, D, H), **options)


def both(name: str) -> Layer:
    return Bidirectional(one(name), one(name, reverse=True))


def mixed(name: str) -> Layer:
    top = Recurrent(build(name, 2 * H, 2 * H), learned_state=True)
    return Stack([both(name), top], residual=True, layer_norm=True)


FORWARD_ONLY: dict[str, Callable[[str], Layer]] = {
    "one": one,
    "reference": lambda name: one(name, kernel="reference"),
    "learned": lambda name: one(name, learned_state=True),
    "zoneout": lambda name: one(name, zoneout=0.3).eval(),
    "stack": lambda name: stack_of(name, D, H, 3),
    "skips": lambda name: Stack(list(stack_of(name, D, D, 2).layers), residual=True),
}
ALL = {
    **FORWARD_ONLY,
    "reverse": lambda name: one(name, reverse=True),
    "both": both,
    "mixed": mixed,
    "deep both": lambda name: stack_of(name, D, H, 2, bidirectional=True),
}
every_layer = pytest.mark.parametrize("make", ALL.values(), ids=ALL)
every_causal_layer = pytest.mark.parametrize("make", FORWARD_ONLY.values(), ids=FORWARD_ONLY)
every_cell = pytest.mark.parametrize("name", sorted(CELLS))


def made(make: Callable[[str], Layer], name: str) -> Layer:
    layer = make(name)
    with torch.no_grad():
        for key, weight in layer.named_parameters():
            if "initial" in key:
                weight.normal_(generator=torch.Generator().manual_seed(1))
    return layer


def flat(state: Any) -> list[Tensor]:
    arrays: list[Tensor] = []
    map_state(lambda array: arrays.append(array) or array, state)
    return arrays


def pull(layer: Layer, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, ...]:
    x = x.clone().requires_grad_()
    output, state = layer(x, lengths)
    loss = (output * output).sum() + sum((array * 2.0).sum() for array in flat(state))
    return torch.autograd.grad(loss, [*layer.parameters(), x])


@every_cell
@every_layer
def test_padding_changes_nothing(make: Callable[[str], Layer], name: str) -> None:
    layer, x = made(make, name), torch.randn(B, T, D)
    expected, last = layer(x, LENGTHS)
    slopes = pull(layer, x, LENGTHS)
    padding = torch.arange(T) >= LENGTHS[:, None]
    assert not expected[padding].any()
    assert not slopes[-1][padding].any()
    for filling in (torch.nan, torch.inf, 9.0):
        dirty = x.masked_fill(padding[..., None], filling)
        output, state = layer(dirty, LENGTHS)
        assert torch.equal(output, expected)
        assert all(map(torch.equal, flat(state), flat(last)))
        assert all(map(torch.equal, pull(layer, dirty, LENGTHS), slopes))
    for row, length in enumerate(LENGTHS.tolist()):
        alone, ends = layer(x[row : row + 1, :length])
        torch.testing.assert_close(expected[row : row + 1, :length], alone, **EXACT)
        for whole, end in zip(flat(last), flat(ends), strict=True):
            torch.testing.assert_close(whole[row : row + 1], end, **EXACT)


@every_cell
@every_layer
def test_none_is_the_first_state(make: Callable[[str], Layer], name: str) -> None:
    layer, x = made(make, name), torch.randn(B, T, D)
    first = layer(x[:, :0])[1]
    if not any("initial" in key for key, _ in layer.named_parameters()):
        assert not any(array.any() for array in flat(first))
    expected, last = layer(x, LENGTHS)
    output, state = layer(x, LENGTHS, first)
    assert torch.equal(output, expected)
    assert all(map(torch.equal, flat(state), flat(last)))


@every_cell
@every_layer
def test_full_lengths_are_no_lengths(make: Callable[[str], Layer], name: str) -> None:
    layer, x = made(make, name), torch.randn(B, T, D)
    expected, last = layer(x)
    for lengths in (torch.full((B,), T), torch.full((B,), T, dtype=torch.int32)):
        output, state = layer(x, lengths)
        assert torch.equal(output, expected)
        assert all(map(torch.equal, flat(state), flat(last)))


@every_cell
@every_causal_layer
def test_chunked_and_streamed_are_whole(make: Callable[[str], Layer], name: str) -> None:
    layer, x = made(make, name), torch.randn(B, T, D)
    whole, last = layer(x)
    state, parts = None, []
    for start, end in pairwise([0, 4, 4, 5, T]):
        output, state = layer(x[:, start:end], state=state)
        parts.append(output)
    torch.testing.assert_close(torch.cat(parts, 1), whole, **EXACT)
    torch.testing.assert_close(flat(state), flat(last), **EXACT)
    state = None
    for t in range(T):
        output, state = layer.step(x[:, t], state)
        torch.testing.assert_close(output, whole[:, t], **EXACT)
    torch.testing.assert_close(flat(state), flat(last), **EXACT)


@every_cell
@every_causal_layer
def test_a_detached_state_ends_the_gradient(make: Callable[[str], Layer], name: str) -> None:
    layer = made(make, name)
    x = torch.randn(B, T, D, requires_grad=True)
    state = layer(x[:, :4])[1]
    through = torch.autograd.grad(layer(x[:, 4:], state=state)[0].sum(), x, retain_graph=True)[0]
    cut = torch.autograd.grad(layer(x[:, 4:], state=detach(state))[0].sum(), x)[0]
    assert through[:, :4].any()
    assert not cut[:, :4].any()
    # Only the path through the state is lost.
    assert torch.equal(cut[:, 4:], through[:, 4:])


@every_cell
@every_causal_layer
def test_the_future_stays_away(make: Callable[[str], Layer], name: str) -> None:
    layer, x = made(make, name), torch.randn(B, T, D)
    changed = x.clone()
    changed[:, 5:] = torch.nan
    changed[2] = torch.nan
    output, expected = layer(changed)[0], layer(x)[0]
    kept = [0, 1, 3]
    assert torch.equal(output[kept, :5], expected[kept, :5])
    assert output[kept, 5:].isnan().all()


@every_cell
@every_layer
def test_nothing_to_run_is_legal(make: Callable[[str], Layer], name: str) -> None:
    layer = made(make, name)
    output, state = layer(torch.zeros(B, 0, D), torch.zeros(B, dtype=torch.int64))
    assert output.shape == (B, 0, layer.output_size)
    assert all(len(array) == B for array in flat(state))
    assert layer(torch.zeros(0, T, D))[0].shape == (0, T, layer.output_size)


@every_cell
@every_layer
def test_trace_tells_what_happened(make: Callable[[str], Layer], name: str) -> None:
    layer, x = made(make, name), torch.randn(B, T, D)
    output, state, scans = layer.trace(x, LENGTHS)
    expected, last = layer(x, LENGTHS)
    torch.testing.assert_close(output, expected, **EXACT)
    torch.testing.assert_close(flat(state), flat(last), **EXACT)
    cells = [part.cell for part in layer.modules() if isinstance(part, Recurrent)]
    assert len(cells) == len(scans)
    for cell, ran in zip(cells, scans, strict=True):
        for gate, (low, high) in cell.gate_ranges.items():
            values = getattr(ran.gates, gate)
            assert values.shape == (B, T, cell.hidden_size)
            assert low <= values.min() <= values.max() <= high
        assert ran.states.h.shape == (B, T, cell.output_size)


@every_cell
def test_weights_are_the_cells_own(name: str) -> None:
    cell = build(name, D, H)
    layer = Recurrent(cell, seed=3)
    held = layer.state_dict()
    assert {key: tuple(value.shape) for key, value in held.items()} == cell.shapes()
    x = torch.randn(B, T, D)
    params = {key: value.numpy() for key, value in held.items()}
    torch.testing.assert_close(
        layer(x)[0].detach().numpy(), scan(NUMPY, cell, params, x.numpy()).output, **EXACT
    )
    again = Recurrent(cell, seed=3).state_dict()
    assert all(torch.equal(held[key], again[key]) for key in held)
    torch.manual_seed(7)
    drawn = Recurrent(cell).w_h
    torch.manual_seed(7)
    assert torch.equal(Recurrent(cell).w_h, drawn)
    assert not torch.equal(Recurrent(cell).w_h, drawn)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: one("gru")(torch.zeros(2, 4, 5)), r"x has 5 features \(shape \[2, 4, 5\]"),
        (lambda: one("gru")(torch.zeros(4, 3)), "x has 2 axes"),
        (lambda: one("gru")(torch.zeros(2, 4, 3), torch.tensor([1])), r"shape \[1\]"),
        (lambda: one("gru")(torch.zeros(2, 4, 3), torch.tensor([1.0, 2])), "float64"),
        (lambda: one("gru")(torch.zeros(2, 4, 3), torch.tensor([5, 2])), "go from 2 to 5"),
        (lambda: one("gru")(torch.zeros(2, 4, 3), torch.tensor([-1, 2])), "go from -1 to 2"),
        (lambda: one("lstm")(torch.zeros(2, 4, 3), state=torch.zeros(2, 5)), "Tensor"),
        (lambda: one("gru")(torch.zeros(2, 4, 3), state=GRU.State(torch.zeros(1, 5))), r"\[1, 5\]"),
        (lambda: stack_of("gru", 3, 5, 2)(torch.zeros(2, 4, 3), state=()), "Stack is 0 parts"),
        (lambda: both("gru")(torch.zeros(2, 4, 3), state=[1, 2]), "Bidirectional is list"),
        (lambda: one("gru")(torch.zeros(2, 4, 3, dtype=torch.float32)), "float32"),
        (lambda: Stack([]), "no layers"),
        (lambda: Stack([one("gru"), one("gru")]), "Layer 0 gives 5 features, layer 1 reads 3"),
        (lambda: Bidirectional(one("gru"), one("gru")), "reverse=False"),
        (lambda: one("gru", zoneout=1.0), "zoneout of h is 1.0"),
        (lambda: one("gru", zoneout={"c": 0.1}), "Zoneout names 'c'"),
        (lambda: one("gru", dropconnect=-0.1), "dropconnect is -0.1"),
        (lambda: one("gru", kernel="torhc")(torch.zeros(2, 4, 3)), "Did you mean torch"),
        (
            lambda: one("gru", kernel="torch").trace(torch.zeros(2, 4, 3)),
            "gates and states of every step",
        ),
    ],
)
def test_errors_have_three_parts(wrong: Callable[[], object], says: str) -> None:
    with pytest.raises((ShapeError, SpecError, KernelRefusal), match=says) as caught:
        wrong()
    error = caught.value
    assert isinstance(error, HiddenstateError)
    assert all((error.wrong, error.expected, error.remedy))


def test_deep_plain_stacks_train_with_skips() -> None:
    torch.set_default_dtype(torch.float32)
    found = {}
    for residual in (True, False):
        torch.manual_seed(0)
        first = Recurrent(Elman(4, 16), init="uniform", seed=0)
        rest = stack_of("elman", 16, 16, 11, init="uniform", seed=1)
        stack = Stack([first, *rest.layers], residual=residual)
        head = torch.nn.Linear(16, 4)
        optimiser = torch.optim.Adam([*stack.parameters(), *head.parameters()], lr=3e-3)
        for step in range(80):
            codes = torch.randint(0, 4, (32, 8))
            x = torch.nn.functional.one_hot(codes, 4).float()
            logits = head(stack(x, final_state=False)[0][:, -1])
            loss = torch.nn.functional.cross_entropy(logits, codes[:, 2])
            optimiser.zero_grad()
            loss.backward()
            if step == 0:
                reach = (first.w_h.grad.norm() / rest.layers[-1].w_h.grad.norm()).item()
            optimiser.step()
        found[residual] = reach, loss.item()
    assert found[True][0] > 0.5
    assert found[False][0] < 0.05
    assert found[True][1] < 0.1
    assert found[False][1] > 0.5


def test_a_learned_first_state_learns() -> None:
    layer = Recurrent(LSTM(D, H), learned_state=True)
    x = torch.randn(2, 3, D)
    assert not layer.initial_h.any()
    output, state = layer(x, torch.tensor([3, 0]))
    (output.sum() + state.h.sum()).backward()
    # The row without steps gives its first state back: 1 for h, and what row 0 sends on top.
    assert layer.initial_h.grad.all()
    assert layer.initial_c.grad.any()
