"""Pools, heads and losses: each against a plain loop, and blind to padding."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from hiddenstate.errors import ShapeError, SpecError
from hiddenstate.nn import LOSSES, Head, Pool, cross_entropy, huber, l1, masked_mean

B, T, H, V = 4, 6, 5, 3
LENGTHS = torch.tensor([6, 0, 3, 1])
VALID = torch.arange(T) < LENGTHS[:, None]
KINDS = ("last", "mean", "max", "attention")


def states(seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(B, T, H, dtype=torch.float64, generator=draw)


def pooled_by_hand(pool: Pool, row: torch.Tensor) -> torch.Tensor:
    if len(row) == 0:
        return torch.zeros(H, dtype=torch.float64)
    if pool.kind == "attention":
        weight = torch.exp(pool.score(row))
        return (weight / weight.sum() * row).sum(0)
    return {"last": row[-1], "mean": row.sum(0) / len(row), "max": row.max(0).values}[pool.kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_pool_sees_a_rows_own_steps(kind: str) -> None:
    torch.manual_seed(0)
    pool = Pool(kind, H).double()
    x = states()
    expected = torch.stack([pooled_by_hand(pool, x[b, :n]) for b, n in enumerate(LENGTHS)])
    leaf = x.masked_fill(~VALID[..., None], torch.nan).requires_grad_()
    found = pool(leaf, LENGTHS)
    torch.testing.assert_close(found, expected)
    slope = torch.autograd.grad((found * found).sum(), leaf)[0]
    assert slope.isfinite().all()
    assert not slope[~VALID].any()
    assert slope[0].any()
    torch.testing.assert_close(pool(x), pool(x, torch.full((B,), T)))
    torch.testing.assert_close(pool(x)[2:3], pool(x[2:3]))
    assert not pool(x[:, :0]).any()
    assert torch.autograd.gradcheck(lambda each: pool(each, LENGTHS), states().requires_grad_())


def test_another_pool_is_refused() -> None:
    with pytest.raises(SpecError, match=r"Did you mean attention\?"):
        Pool("atention", H)
    with pytest.raises(ShapeError, match="lengths go from 0 to 9"):
        Pool("mean", H)(states(), torch.tensor([9, 0, 1, 1]))


def test_heads_for_each_step_and_each_sequence() -> None:
    x = states().float()
    each = Head(H, V)
    assert each(x).shape == (B, T, V)
    torch.testing.assert_close(each(x)[2, 1], each.linear.weight @ x[2, 1] + each.linear.bias)
    whole = Head(H, V, "last")
    torch.testing.assert_close(whole(x, LENGTHS)[2], whole.linear(x[2, 2]))
    torch.testing.assert_close(whole(x, LENGTHS)[1], whole.linear.bias)


def by_hand(name: str, prediction: torch.Tensor, target: torch.Tensor) -> float:
    if name == "cross_entropy":
        return math.log(sum(math.exp(v) for v in prediction)) - prediction[target].item()
    error = abs((prediction - target).item())
    if name == "l1":
        return error
    return error * error / 2 if error <= 1 else error - 0.5


def problem(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    if name == "cross_entropy":
        logits = torch.randn(B, T, V, dtype=torch.float64, generator=draw)
        return logits, torch.randint(0, V, (B, T), generator=draw)
    pair = 3 * torch.randn(2, B, T, dtype=torch.float64, generator=draw)
    return pair[0], pair[1]


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_loss_is_the_masked_mean_of_its_steps(name: str) -> None:
    prediction, target = problem(name)
    weights = torch.rand(B, T, dtype=torch.float64) * VALID
    for mask in (None, VALID, weights):
        m = torch.ones(B, T) if mask is None else mask.double()
        terms = [
            (m[b, t].item() * by_hand(name, prediction[b, t], target[b, t]), m[b, t].item())
            for b in range(B)
            for t in range(T)
        ]
        total, count = (sum(column) for column in zip(*terms, strict=True))
        loss = LOSSES[name]
        assert loss(prediction, target, mask).item() == pytest.approx(total / count)
        assert loss(prediction, target, mask, reduction="sum").item() == pytest.approx(total)
        each = loss(prediction, target, mask, reduction="none")
        assert each.flatten().tolist() == pytest.approx([term for term, _ in terms])


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_what_is_masked_changes_nothing(name: str) -> None:
    prediction, target = problem(name)
    expected = LOSSES[name](prediction, target, VALID)
    dirty: Any = prediction.clone()
    dirty[~VALID] = torch.nan
    dirty.requires_grad_()
    wrong = target.masked_fill(~VALID, -100 if name == "cross_entropy" else torch.nan)
    loss = LOSSES[name](dirty, wrong, VALID)
    assert loss.item() == expected.item()
    slope = torch.autograd.grad(loss, dirty)[0]
    assert slope.isfinite().all()
    assert not slope[~VALID].any()
    nothing = LOSSES[name](dirty, wrong, torch.zeros_like(VALID))
    assert nothing.item() == 0.0
    assert not torch.autograd.grad(nothing, dirty)[0].any()


def test_label_smoothing_spreads_over_all_classes() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5]])
    logs = logits.log_softmax(-1)[0]
    smoothed = cross_entropy(logits, torch.tensor([0]), label_smoothing=0.3)
    assert smoothed.item() == pytest.approx(-(0.7 * logs[0] + 0.1 * logs.sum()).item())


def test_huber_bends_at_delta() -> None:
    found = huber(torch.tensor([1.0, 6.0]), torch.zeros(2), delta=2.0, reduction="none")
    assert found.tolist() == [0.5, 2.0 * (6.0 - 1.0)]


def test_masked_mean_of_nothing_is_zero() -> None:
    values = torch.tensor([math.nan, 1.0])
    assert masked_mean(values, torch.tensor([False, True])).item() == 1.0
    assert masked_mean(values, torch.tensor([False, False])).item() == 0.0


def test_shapes_must_agree() -> None:
    with pytest.raises(ShapeError, match=r"target has shape \[4, 5\]"):
        cross_entropy(torch.zeros(B, T, V), torch.zeros(B, T - 1, dtype=torch.int64))
    with pytest.raises(ShapeError, match=r"mask \[4\]"):
        l1(torch.zeros(B, T), torch.zeros(B, T), torch.ones(B))
