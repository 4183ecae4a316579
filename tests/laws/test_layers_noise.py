"""Dropout, DropConnect and zoneout: what they drop in training, and that they stop outside it."""

from __future__ import annotations

import pytest
import torch

from hiddenstate.cells import CELLS, GRU, LSTM, build
from hiddenstate.errors import SpecError
from hiddenstate.nn import Dropout, Recurrent, Stack, stack_of

D, H, B, T = 3, 5, 4, 9


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_ordinary_and_variational_masks() -> None:
    x = torch.ones(64, 50, 32)
    for variational in (False, True):
        dropout = Dropout(0.25, variational=variational)
        dropped = dropout(x)
        assert dropped.unique().tolist() == pytest.approx([0.0, 4 / 3])
        # 64 * 32 masks at the least: the share stays within four standard errors.
        assert (dropped == 0).double().mean().item() == pytest.approx(0.25, abs=0.04)
        assert (dropped == dropped[:, :1]).all().item() is variational
        assert torch.equal(dropout.eval()(x), x)


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_impossible_shares_are_refused(share: float) -> None:
    with pytest.raises(SpecError, match="dropout is"):
        Dropout(share)


@pytest.mark.parametrize("name", sorted(CELLS))
def test_dropconnect_drops_the_recurrent_weight_in_training_only(name: str) -> None:
    cell = build(name, D, H)
    layer, plain = (Recurrent(cell, dropconnect=share, seed=0) for share in (0.5, 0.0))
    x = torch.randn(B, T, D)
    noisy = layer(x)[0]
    # One draw a call: the first step knows no past, all later ones see the same weight.
    torch.testing.assert_close(noisy[:, 0], plain(x)[0][:, 0])
    assert layer.last_kernel == plain.last_kernel
    assert not torch.allclose(noisy, plain(x)[0])
    assert not torch.allclose(noisy, layer(x)[0])
    torch.manual_seed(3)
    first = layer(x)[0]
    torch.manual_seed(3)
    dropped = torch.nn.functional.dropout(plain.w_h, 0.5)
    with torch.no_grad():
        plain.w_h.copy_(dropped)
    torch.testing.assert_close(first, plain(x)[0])
    slope = torch.autograd.grad(first.sum(), layer.w_h)[0]
    assert not slope[dropped == 0].any()
    assert torch.equal(layer.eval()(x)[0], Recurrent(cell, seed=0)(x)[0])


@pytest.mark.parametrize("name", sorted(CELLS))
def test_zoneout_keeps_states_in_training_and_their_expectation_outside(name: str) -> None:
    layer = Recurrent(build(name, D, 64), zoneout=0.3, seed=0)
    x = torch.randn(8, 40, D)
    _, _, (ran,) = layer.trace(x)
    assert layer.last_kernel == "reference"
    for states in ran.states:
        kept = (states[:, 1:] == states[:, :-1]).double().mean().item()
        assert kept == pytest.approx(0.3, abs=0.02)
    assert torch.equal(layer.eval()(x)[0], layer(x)[0])
    plain = Recurrent(layer.cell, seed=0)
    # From zeros, the expectation of one step is the share that is not kept.
    torch.testing.assert_close(layer(x[:, :1])[0], 0.7 * plain(x[:, :1])[0])


def test_zoneout_by_name_touches_that_array_only() -> None:
    layer = Recurrent(LSTM(D, 64), zoneout={"c": 0.5}, seed=0)
    _, _, (ran,) = layer.trace(torch.randn(8, 40, D))
    assert (ran.states.c[:, 1:] == ran.states.c[:, :-1]).double().mean() > 0.4
    assert (ran.states.h[:, 1:] == ran.states.h[:, :-1]).double().mean() < 0.01
    assert not Recurrent(LSTM(D, H), zoneout={"c": 0.0}).zoneout


def test_a_stack_drops_where_it_says() -> None:
    layers = [Recurrent(GRU(D, H), seed=0), Recurrent(GRU(H, H), seed=1)]
    x = torch.randn(B, T, D)
    whole = Stack(layers)(x)[0]
    seen: dict[str, torch.Tensor] = {}
    for where in ("input_dropout", "dropout", "output_dropout"):
        stack = Stack(layers, **{where: 0.5}, variational=True)
        output = stack(x)[0]
        assert not torch.allclose(output, whole)
        seen[where] = output
        assert torch.equal(stack.eval()(x)[0], whole)
        stack.train()
    dropped = seen["output_dropout"] == 0
    assert dropped.any()
    assert (dropped == dropped[:, :1]).all()
    torch.testing.assert_close(seen["output_dropout"][~dropped], 2 * whole[~dropped])
    assert not (seen["dropout"] == 0).any()
    assert torch.equal(Stack(layers[:1], dropout=0.5)(x)[0], layers[0](x)[0])


def test_noise_follows_the_seed() -> None:
    stack = stack_of("gru", D, H, 2, dropout=0.5, dropconnect=0.5, seed=0)
    x = torch.randn(B, T, D)
    torch.manual_seed(5)
    first = stack(x)[0]
    torch.manual_seed(5)
    assert torch.equal(stack(x)[0], first)
