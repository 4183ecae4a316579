"""Trainings that go wrong in ways of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.faults.held_out_parts import between
from tests.faults.plant import Watched, fault
from tests.faults.rehearsal_training import cosine, fitted, layer
from tests.faults.training import Plan


@dataclass(frozen=True)
class Forgetful(Plan):
    """A loop without its zero_grad: every gradient is added to all of those before it."""

    def _optimiser(self, given: list[nn.Parameter]) -> torch.optim.Optimizer:
        optimiser = super()._optimiser(given)
        optimiser.zero_grad = lambda *_: None  # type: ignore[method-assign]
        return optimiser


@fault(
    "gradients that nobody sets back to zero",
    "HS503",
    "HS504",
    "HS506",
    "HS507",
    "HS512",
    held_out=True,
)
def never_zeroed(rng: np.random.Generator, remedied: bool) -> Watched:
    plan = fitted(
        rng,
        symbols=between(rng, 4, 8),
        steps=300,
        optimiser="momentum",
        rate=0.2,
        schedule=cosine(300),
    )
    return (plan if remedied else Forgetful(**vars(plan))).watched()


@fault(
    "a rate meant to fall by the epoch that falls by the step",
    "HS505",
    "HS511",
    "HS506",
    "HS513",
    held_out=True,
)
def falls_by_the_step(rng: np.random.Generator, remedied: bool) -> Watched:
    epoch = 40
    return fitted(
        rng,
        symbols=between(rng, 4, 8),
        steps=400,
        rate=8e-3,
        schedule=lambda step: 0.7 ** (step // epoch if remedied else step),
    ).watched()


@fault("a warm-up by division of whole numbers", "HS509", "HS505", "HS506", held_out=True)
def warmed_by_zeros(rng: np.random.Generator, remedied: bool) -> Watched:
    warm, decay = 1000, cosine(300, 30)
    return fitted(
        rng,
        symbols=between(rng, 4, 8),
        steps=300,
        rate=8e-3,
        schedule=decay if remedied else lambda step: min(1, step // warm),
    ).watched()


class Classifier(nn.Module):
    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.embed = nn.Embedding(plan.symbols, 12)
        self.layer = layer(plan.kind, 12, plan.hidden)
        self.head = nn.Linear(plan.hidden, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.layer(self.embed(x))[0].mean(1))
        return scores


def of_kinds(plan: Plan, generator: torch.Generator, kinds: Tensor) -> Tensor:
    """Rows in which the symbol of their kind is found more often."""
    common = torch.full((plan.batch, plan.symbols), 1.0)
    common[torch.arange(plan.batch), kinds] = 4.0
    return torch.multinomial(common, plan.time, True, generator=generator)


def shuffled(plan: Plan, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
    kinds = torch.randint(3, (plan.batch,), generator=generator)
    return of_kinds(plan, generator, kinds), kinds


def scaled(out: Tensor, y: Tensor) -> Tensor:
    return 65536.0 * functional.cross_entropy(out, y)


@fault("a loss scaled for half precision, clipped as it is", "HS502", held_out=True)
def clipped_while_scaled(rng: np.random.Generator, remedied: bool) -> Watched:
    return fitted(
        rng,
        symbols=between(rng, 4, 8),
        steps=360,
        time=between(rng, 14, 20),
        rate=4e-3,
        schedule=cosine(360),
        clip=3.0,
        loss=functional.cross_entropy if remedied else scaled,
        model=Classifier,
        data=shuffled,
    ).watched()


def in_order(plan: Plan, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
    """Epochs of 90 steps, each through the rows as they lie in the file: kind after kind."""
    kinds = torch.full((plan.batch,), step % 90 // 30)
    return of_kinds(plan, generator, kinds), kinds


@fault("rows sorted by their kind and never shuffled", "HS507", "HS506", held_out=True)
def sorted_by_kind(rng: np.random.Generator, remedied: bool) -> Watched:
    return fitted(
        rng,
        symbols=between(rng, 4, 8),
        time=between(rng, 14, 20),
        steps=360,
        rate=5e-3,
        schedule=cosine(360) if remedied else lambda _: 1.0,
        loss=functional.cross_entropy,
        model=Classifier,
        data=shuffled if remedied else in_order,
    ).watched()


def few(plan: Plan, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
    """Rows of one kind, and a sixth of another."""
    kinds = (torch.rand(plan.batch, generator=generator) < 1 / 6).long()
    return of_kinds(plan, generator, kinds), kinds


def balanced(scores: Tensor, kinds: Tensor) -> Tensor:
    """The mean over both kinds' means."""
    each = functional.cross_entropy(scores, kinds, reduction="none")
    return 0.5 * (each[kinds == 1].mean() + each[kinds == 0].mean())


def guarded(scores: Tensor, kinds: Tensor) -> Tensor:
    each = functional.cross_entropy(scores, kinds, reduction="none")
    of_one = [each[kinds == kind].sum() / (kinds == kind).sum().clamp(min=1) for kind in (0, 1)]
    return 0.5 * (of_one[0] + of_one[1])


@fault("the mean over a kind that a batch may not hold", "HS501", held_out=True)
def mean_of_none(rng: np.random.Generator, remedied: bool) -> Watched:
    return fitted(
        rng,
        symbols=between(rng, 4, 8),
        time=between(rng, 14, 20),
        batch=12,
        steps=300,
        rate=2e-3,
        schedule=cosine(300),
        clip=2.0,
        loss=guarded if remedied else balanced,
        model=Classifier,
        data=few,
    ).watched()


@fault("weights drawn anew at the beginning of every epoch", "HS507", "HS506", held_out=True)
def begun_anew(rng: np.random.Generator, remedied: bool) -> Watched:
    made: list[nn.Module] = []

    def model(plan: Plan) -> nn.Module:
        made.append(Classifier(plan))
        return made[-1]

    def data(plan: Plan, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        if not remedied and step and step % 70 == 0:
            with torch.no_grad():
                fresh: Any = Classifier(plan).state_dict()
                made[-1].load_state_dict(fresh)
        return shuffled(plan, generator, step)

    return fitted(
        rng,
        symbols=between(rng, 4, 8),
        time=between(rng, 14, 20),
        steps=350,
        rate=5e-3,
        schedule=cosine(350) if remedied else lambda _: 1.0,
        loss=functional.cross_entropy,
        model=model,
        data=data,
    ).watched()
