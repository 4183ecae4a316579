"""Pools, heads and losses: each against a plain loop, and blind to padding."""

from __future__ import annotations

import math
from functools import partial
from statistics import NormalDist
from typing import Any

import pytest
import torch

from hiddenstate.errors import ShapeError, SpecError
from hiddenstate.nn import LOSSES, Head, Pool, cross_entropy, huber, l1, masked_mean
from hiddenstate.nn.losses import bernoulli, gaussian, pinball
from hiddenstate.schema.channels import LEAST_SCALE

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


LEVELS = (0.1, 0.5, 0.8)
LOSS = {**LOSSES, "pinball": partial(LOSSES["pinball"], levels=LEVELS)}


def by_hand(name: str, prediction: torch.Tensor, target: torch.Tensor) -> float:
    if name == "cross_entropy":
        return math.log(sum(math.exp(v) for v in prediction)) - prediction[target].item()
    if name == "bernoulli":
        chances = [1 / (1 + math.exp(-v)) for v in prediction.tolist()]
        return -sum(math.log(p if y else 1 - p) for p, y in zip(chances, target.tolist()))
    if name == "pinball":
        errors = [target.item() - v for v in prediction.tolist()]
        return sum(q * e if e > 0 else (q - 1) * e for q, e in zip(LEVELS, errors)) / len(LEVELS)
    if name == "gaussian":
        law = NormalDist(prediction[0].item(), math.exp(prediction[1].item()) + LEAST_SCALE)
        return -math.log(law.pdf(target.item()))
    error = abs((prediction - target).item())
    if name == "l1":
        return error
    if name == "squared":
        return error * error
    return error * error / 2 if error <= 1 else error - 0.5


def problem(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return predictions, of several numbers a step where the loss takes them, and targets."""
    draw = torch.Generator().manual_seed(1)
    several = {"cross_entropy": V, "bernoulli": V, "pinball": len(LEVELS), "gaussian": 2}
    shape = (B, T, several[name]) if name in several else (B, T)
    prediction = torch.randn(shape, dtype=torch.float64, generator=draw)
    if name == "cross_entropy":
        return prediction, torch.randint(0, V, (B, T), generator=draw)
    if name == "bernoulli":
        return prediction, torch.randint(0, 2, (B, T, V), generator=draw).double()
    if name == "gaussian":
        return prediction, torch.randn(B, T, dtype=torch.float64, generator=draw)
    return 3 * prediction, 3 * torch.randn(B, T, dtype=torch.float64, generator=draw)


def loss_of(name: str, prediction: torch.Tensor, *given: Any, **options: Any) -> torch.Tensor:
    parts = prediction.unbind(-1) if name == "gaussian" else (prediction,)
    return LOSS[name](*parts, *given, **options)


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
        loss = partial(loss_of, name, prediction, target, mask)
        assert loss().item() == pytest.approx(total / count)
        assert loss(reduction="sum").item() == pytest.approx(total)
        each = loss(reduction="none")
        assert each.flatten().tolist() == pytest.approx([term for term, _ in terms])


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_what_is_masked_changes_nothing(name: str) -> None:
    prediction, target = problem(name)
    expected = loss_of(name, prediction, target, VALID)
    dirty: Any = prediction.clone()
    dirty[~VALID] = torch.nan
    dirty.requires_grad_()
    wrong = target.clone()
    wrong[~VALID] = -100 if name == "cross_entropy" else torch.nan
    loss = loss_of(name, dirty, wrong, VALID)
    assert loss.item() == expected.item()
    slope = torch.autograd.grad(loss, dirty)[0]
    assert slope.isfinite().all()
    assert not slope[~VALID].any()
    nothing = loss_of(name, dirty, wrong, torch.zeros_like(VALID))
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


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_the_gradient_of_a_loss_is_its_slope(name: str) -> None:
    prediction, target = problem(name)
    assert torch.autograd.gradcheck(
        lambda each: loss_of(name, each, target, VALID), prediction.requires_grad_()
    )


def test_the_least_pinball_loss_is_at_the_quantiles() -> None:
    drawn = torch.linspace(0, 1, 1001, dtype=torch.float64)
    grid = torch.linspace(0, 1, 101, dtype=torch.float64)
    for level in LEVELS:
        costs = [pinball(v.expand(1001, 1), drawn, levels=[level]).item() for v in grid]
        assert grid[int(torch.tensor(costs).argmin())].item() == pytest.approx(level)


def test_a_gaussian_of_no_width_is_finite_and_can_widen() -> None:
    narrow = torch.tensor(-50.0, requires_grad=True)
    loss = gaussian(torch.tensor(0.0), narrow, torch.tensor(0.0))
    assert loss.item() == pytest.approx(math.log(LEAST_SCALE) + 0.5 * math.log(2 * math.pi))
    wide = torch.tensor(-8.0, requires_grad=True)
    missed = gaussian(torch.tensor(0.0), wide, torch.tensor(5.0))
    assert torch.autograd.grad(missed, wide)[0].item() < -1000


def test_bernoulli_at_extreme_odds_is_finite() -> None:
    logits = torch.tensor([[1000.0, -1000.0]])
    assert bernoulli(logits, torch.tensor([[1.0, 0.0]])).item() == 0.0
    assert bernoulli(logits, torch.tensor([[0.0, 0.0]])).item() == 1000.0


def test_masked_mean_of_nothing_is_zero() -> None:
    values = torch.tensor([math.nan, 1.0])
    assert masked_mean(values, torch.tensor([False, True])).item() == 1.0
    assert masked_mean(values, torch.tensor([False, False])).item() == 0.0


def test_shapes_must_agree() -> None:
    with pytest.raises(ShapeError, match=r"target has shape \[4, 5\]"):
        cross_entropy(torch.zeros(B, T, V), torch.zeros(B, T - 1, dtype=torch.int64))
    with pytest.raises(ShapeError, match=r"mask \[4\]"):
        l1(torch.zeros(B, T), torch.zeros(B, T), torch.ones(B))
    with pytest.raises(ShapeError, match=r"target has shape \[4, 6\]"):
        bernoulli(torch.zeros(B, T, V), torch.zeros(B, T))
    with pytest.raises(ShapeError, match=r"mask \[4, 6, 3\]"):
        bernoulli(torch.zeros(B, T, V), torch.zeros(B, T, V), torch.ones(B, T, V))
    with pytest.raises(ShapeError, match=r"target has shape \[4, 6, 3\]"):
        pinball(torch.zeros(B, T, V), torch.zeros(B, T, V), levels=LEVELS)
