"""The clipping case of SPEC 8.7, and what else clipping promises."""

from __future__ import annotations

import math

import pytest
import torch

from hiddenstate.nn import clip_by_norm, clip_by_value


def parameter(*gradient: float) -> torch.Tensor:
    weight = torch.zeros(len(gradient), dtype=torch.float64, requires_grad=True)
    weight.grad = torch.tensor(gradient, dtype=torch.float64)
    return weight


def test_published_case() -> None:
    both = [parameter(1.4**12), parameter(-0.8 * 1.4**12)]
    norms = clip_by_norm(both, 5.0)
    assert norms.before.item() == pytest.approx(72.6036, abs=5e-5)
    assert norms.after.item() == pytest.approx(5.0, abs=1e-12)
    assert [each.grad.item() for each in both] == pytest.approx([3.904344, -3.123475], abs=5e-7)


def test_a_small_gradient_is_left_alone() -> None:
    weight, without = parameter(3.0, 4.0), torch.zeros(2, requires_grad=True)
    norms = clip_by_norm([weight, without], 5.0)
    assert weight.grad.tolist() == [3.0, 4.0]
    assert (norms.before.item(), norms.after.item()) == (5.0, 5.0)
    assert without.grad is None


def test_no_gradient_at_all_stays_zero() -> None:
    weight = parameter(0.0, 0.0)
    assert clip_by_norm([weight], 1.0).after.item() == 0.0
    assert weight.grad.tolist() == [0.0, 0.0]


def test_a_broken_gradient_shows_in_the_norm() -> None:
    assert math.isnan(clip_by_norm([parameter(1.0, math.nan)], 5.0).before.item())
    assert math.isinf(clip_by_norm([parameter(1.0, math.inf)], 5.0).before.item())


def test_by_value() -> None:
    weight = parameter(3.0, -0.5, -7.0)
    norms = clip_by_value([weight], 1.0)
    assert weight.grad.tolist() == [1.0, -0.5, -1.0]
    assert (norms.before.item(), norms.after.item()) == (math.hypot(3, 0.5, 7), 1.5)
