"""What holds for every attention: over a source for a recurrent decoder, and among many heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from hiddenstate.cells.state import select
from hiddenstate.errors import ShapeError, SpecError
from hiddenstate.nn.attention import (
    ATTENTIONS,
    Attention,
    Source,
    attend,
    attention_weights,
    masked_softmax,
)
from tests.naive import attention as naive

B, T, S, Q, K = 4, 3, 7, 4, 6
LENGTHS = torch.tensor([7, 0, 4, 1])
EXACT = {"rtol": 1e-11, "atol": 1e-12}


@pytest.fixture(autouse=True)
def _seeded_double_and_nan_filled() -> Iterator[None]:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_default_dtype(torch.float32)


KINDS: dict[str, Callable[[], Attention]] = {
    "additive": lambda: Attention("additive", Q, K, 5),
    "additive of the query's width": lambda: Attention("additive", Q, K),
    "coverage": lambda: Attention("additive", Q, K, 5, coverage=True),
    "dot": lambda: Attention("dot", K, K),
    "general": lambda: Attention("general", Q, K),
}
every_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


def test_every_kind_is_here() -> None:
    assert {make().kind for make in KINDS.values()} == set(ATTENTIONS)


def drawn(layer: Attention) -> tuple[Tensor, Tensor, Tensor | None]:
    seen = torch.rand(B, T, S) if layer.coverage is not None else None
    return torch.randn(B, T, layer.query_size), torch.randn(B, S, K), seen


@every_kind
def test_naive_is_the_layer(make: Callable[[], Attention]) -> None:
    layer = make()
    params = {name: weight.tolist() for name, weight in layer.named_parameters()}
    query, states, seen = drawn(layer)
    context, alpha = layer(query, layer.read(states, LENGTHS), seen)
    for row, length in enumerate(LENGTHS.tolist()):
        assert not alpha[row, :, length:].any()
        if not length:
            assert not context[row].any()
            continue
        for t in range(T):
            given = None if seen is None else seen[row, t, :length].tolist()
            found, weights = naive.look(
                layer.kind, params, query[row, t].tolist(), states[row, :length].tolist(), given
            )
            torch.testing.assert_close(context[row, t], torch.tensor(found), **EXACT)
            torch.testing.assert_close(alpha[row, t, :length], torch.tensor(weights), **EXACT)


@every_kind
def test_one_query_is_many(make: Callable[[], Attention]) -> None:
    layer = make()
    query, states, seen = drawn(layer)
    source = layer.read(states, LENGTHS)
    context, alpha = layer(query, source, seen)
    assert (context.shape, alpha.shape) == ((B, T, K), (B, T, S))
    for t in range(T):
        one, weights = layer(query[:, t], source, None if seen is None else seen[:, t])
        torch.testing.assert_close(one, context[:, t], **EXACT)
        torch.testing.assert_close(weights, alpha[:, t], **EXACT)


@every_kind
def test_padding_changes_nothing(make: Callable[[], Attention]) -> None:
    layer = make()
    query, states, seen = drawn(layer)
    padding = torch.arange(S) >= LENGTHS[:, None]

    def pull(x: Tensor) -> tuple[Tensor, ...]:
        x, asked = x.clone().requires_grad_(), query.clone().requires_grad_()
        context, alpha = layer(asked, layer.read(x, LENGTHS), seen)
        loss = (context**2).sum() + (alpha**2).sum()
        return context, alpha, *torch.autograd.grad(loss, [*layer.parameters(), asked, x])

    expected = pull(states)
    assert not expected[-1][padding].any()
    assert expected[-1][~padding].any()
    for filling in (torch.nan, torch.inf, 9.0):
        found = pull(states.masked_fill(padding[..., None], filling))
        assert all(map(torch.equal, found, expected))


@every_kind
def test_rows_can_be_chosen_again(make: Callable[[], Attention]) -> None:
    """As beam search does, with lengths and without."""
    layer = make()
    query, states, seen = drawn(layer)
    rows = torch.tensor([2, 2, 0])
    for lengths in (LENGTHS, None):
        source = layer.read(states, lengths)
        context, alpha = layer(query, source, seen)
        chosen = select(source, rows)
        assert isinstance(chosen, Source)
        again = layer(query[rows], chosen, None if seen is None else seen[rows])
        torch.testing.assert_close(again, (context[rows], alpha[rows]), **EXACT)


@every_kind
def test_an_empty_source_gives_zeros(make: Callable[[], Attention]) -> None:
    layer = make()
    context, alpha = layer(torch.randn(B, layer.query_size), layer.read(torch.zeros(B, 0, K)))
    assert (context.shape, alpha.shape) == ((B, K), (B, 0))
    assert not context.any()


class Whole(nn.Module):
    """Reads a source and looks at it, in one call."""

    def __init__(self, look: Attention) -> None:
        super().__init__()
        self.look = look

    def forward(self, query: Tensor, states: Tensor, seen: Tensor | None) -> Tensor:
        context, alpha = self.look(query, self.look.read(states, LENGTHS), seen)
        return torch.cat([context, alpha], -1)


@every_kind
def test_gradients_are_right(make: Callable[[], Attention]) -> None:
    whole = Whole(make())
    query, states, seen = drawn(whole.look)
    weights = dict(whole.named_parameters())

    def run(query: Tensor, states: Tensor, *given: Tensor) -> Tensor:
        named = dict(zip(weights, given, strict=True))
        return torch.func.functional_call(whole, named, (query, states, seen))

    leaves = [query, states, *weights.values()]
    assert torch.autograd.gradcheck(run, [leaf.detach().requires_grad_() for leaf in leaves])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: Attention("bilinear", Q, K), "no attention 'bilinear'"),
        (lambda: Attention("aditive", Q, K), "Did you mean additive"),
        (lambda: Attention("dot", Q, K), "width 4 and keys of width 6"),
        (lambda: Attention("general", Q, K, coverage=True), "coverage"),
        (lambda: Attention("general", Q, K).read(torch.zeros(2, 3, 5)), r"\[2, 3, 5\]"),
        (lambda: Attention("general", Q, K).read(torch.zeros(2, 3, 6), torch.tensor([4, 1])), "4"),
    ],
)
def test_errors_have_three_parts(wrong: Callable[[], object], says: str) -> None:
    with pytest.raises((ShapeError, SpecError), match=says) as caught:
        wrong()
    assert all((caught.value.wrong, caught.value.expected, caught.value.remedy))


H, E = 2, 3


def heads() -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(B, T, H, E), torch.randn(B, S, H, E), torch.randn(B, S, H, E)


def test_naive_is_among_many_heads() -> None:
    query, keys, values = heads()
    allowed = torch.rand(B, T, S) < 0.5
    allowed[1] = False
    allowed[0, 1] = False
    found = attend(query, keys, values, allowed)
    alpha = attention_weights(query, keys, allowed)
    for row, t, head in product(range(B), range(T), range(H)):
        seen = allowed[row, t]
        if not seen.any():
            assert not found[row, t].any()
            assert not alpha[row, :, t].any()
            continue
        mean, weights = naive.scaled(
            query[row, t, head].tolist(),
            keys[row, seen, head].tolist(),
            values[row, seen, head].tolist(),
        )
        torch.testing.assert_close(found[row, t, head], torch.tensor(mean), **EXACT)
        torch.testing.assert_close(alpha[row, head, t, seen], torch.tensor(weights), **EXACT)
        assert not alpha[row, head, t, ~seen].any()


@pytest.mark.parametrize("mask", ["none", "causal", "allowed", "for all rows"])
def test_torch_is_among_many_heads(mask: str) -> None:
    query, keys, values = heads()
    allowed = None
    if mask in ("allowed", "for all rows"):
        allowed = torch.rand(1 if mask == "for all rows" else B, T, S) < 0.7
        allowed[..., 0] = True
    causal = mask == "causal"
    found = attend(query, keys, values, allowed, causal=causal)
    wanted = scaled_dot_product_attention(
        *(each.transpose(1, 2) for each in (query, keys, values)),
        attn_mask=None if allowed is None else allowed[:, None],
        is_causal=causal,
    ).transpose(1, 2)
    torch.testing.assert_close(found, wanted, **EXACT)
    alpha = attention_weights(query, keys, allowed, causal=causal)
    by_weights = torch.einsum("bhts,bshe->bthe", alpha, values)
    torch.testing.assert_close(found, by_weights, **EXACT)
    torch.testing.assert_close(alpha.sum(-1), torch.ones(B, H, T), **EXACT)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_query_that_sees_nothing_sends_nothing_back(dtype: torch.dtype) -> None:
    query, keys, values = (each.to(dtype).requires_grad_() for each in heads())
    allowed = torch.ones(B, T, S, dtype=torch.bool)
    allowed[1, 2] = False
    slopes = torch.autograd.grad(attend(query, keys, values, allowed).sum(), [query, keys, values])
    assert all(slope.isfinite().all() for slope in slopes)
    assert not slopes[0][1, 2].any()
    assert slopes[0][1, 0].any()
    assert not attend(query, keys[:, :0], values[:, :0]).any()


def test_gradients_among_many_heads_are_right() -> None:
    allowed = torch.rand(B, T, S) < 0.5
    allowed[1] = False
    leaves = [each.requires_grad_() for each in heads()]
    for options in ({}, {"allowed": allowed}, {"causal": True}):
        assert torch.autograd.gradcheck(lambda *given, o=options: attend(*given, **o), leaves)
        assert torch.autograd.gradcheck(
            lambda query, keys, o=options: attention_weights(query, keys, **o), leaves[:2]
        )


def test_a_softmax_over_nothing_is_zero() -> None:
    scores = torch.tensor([[1.0, torch.nan, 2.0], [3.0, 4.0, 5.0]])
    allowed = torch.tensor([[True, False, True], [False, False, False]])
    found = masked_softmax(scores, allowed)
    torch.testing.assert_close(found[0, [0, 2]], torch.tensor([1.0, 2.0]).softmax(0), **EXACT)
    assert not found[0, 1]
    assert not found[1].any()
