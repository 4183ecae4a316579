"""Trainings that go wrong by their schedule, their data or their adapters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.faults.plant import Watched, fault
from tests.faults.training import Plan, drawn_plan, remembered


@fault(
    "a decay for epochs taken at every batch",
    "HS505",
    "HS506",
    "HS513",
    source="ExponentialLR.step() in the loop over batches",
    held_out=True,
)
def decay_at_every_batch(rng: np.random.Generator, remedied: bool) -> Watched:
    gamma, epoch = float(rng.uniform(0.5, 0.8)), 100

    def schedule(step: int) -> float:
        return float(gamma ** (step // epoch if remedied else step))

    return drawn_plan(rng, steps=300, schedule=schedule).watched()


def by_steps(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross entropy of logits that are flattened steps first, truth rows first."""
    return functional.cross_entropy(logits.transpose(0, 1).flatten(0, 1), truth.flatten())


@fault("logits flattened steps first, and the truth rows first", "HS506", held_out=True)
def flattened_apart(rng: np.random.Generator, remedied: bool) -> Watched:
    plan = drawn_plan(rng, steps=300)
    return (plan if remedied else replace(plan, loss=by_steps)).watched()


class Series(nn.Module):
    """The next value of each of three series."""

    def __init__(self, kind: str, hidden: int) -> None:
        super().__init__()
        self.rnn = {"lstm": nn.LSTM, "gru": nn.GRU}[kind](3, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 3)

    def forward(self, x: Tensor) -> Tensor:
        h, _ = self.rnn(x)
        result: Tensor = self.head(h)
        return result


def waves(plan: Plan, generator: torch.Generator) -> Tensor:
    """Draw standardised series [B, T + 1, 3] that swing with noise on them."""
    shape = (plan.batch, 1, 3)
    period = 6 + 10 * torch.rand(shape, generator=generator)
    phase = 6.3 * torch.rand(shape, generator=generator)
    x = torch.sin(6.2832 * torch.arange(plan.time + 1)[:, None] / period + phase)
    return 1.4 * (x + 0.1 * torch.randn(x.shape, generator=generator))


@fault("a missing value in one batch of a hundred", "HS501", held_out=True)
def missing_value(rng: np.random.Generator, remedied: bool) -> Watched:
    kind, when = str(rng.choice(["lstm", "gru"])), int(rng.integers(60, 140))

    def data(plan: Plan, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        both = waves(plan, generator)
        x, y = both[:, :-1].clone(), both[:, 1:]
        if step == when:
            x[plan.batch // 2, plan.time // 2, 1] = 0.0 if remedied else torch.nan
        return x, y

    return drawn_plan(
        rng,
        model=lambda plan: Series(kind, plan.hidden),
        data=data,
        loss=functional.mse_loss,
        steps=300,
        rate=5e-3,
        clip=1.0,
    ).watched()


@fault(
    "amounts as they are under a squared error", "HS503", "HS504", "HS506", "HS507", held_out=True
)
def amounts_as_they_are(rng: np.random.Generator, remedied: bool) -> Watched:
    kind, spread = str(rng.choice(["lstm", "gru"])), float(rng.uniform(1.8, 2.4))

    def data(plan: Plan, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        z = torch.randn(plan.batch, plan.time + 1, 3, generator=generator)
        for t in range(1, plan.time + 1):
            z[:, t] = 0.9 * z[:, t - 1] + 0.4 * z[:, t]
        y = z[:, 1:]
        return z[:, :-1], y if remedied else (spread * y).exp()

    return drawn_plan(
        rng,
        model=lambda plan: Series(kind, plan.hidden),
        data=data,
        loss=functional.mse_loss,
        optimiser="momentum",
        rate=0.02,
        steps=300,
    ).watched()


@fault("data read kind after kind, unshuffled", "HS506", "HS507", held_out=True)
def unshuffled(rng: np.random.Generator, remedied: bool) -> Watched:
    phase = int(rng.integers(60, 90))

    def data(plan: Plan, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        kinds = plan.symbols // 2
        if remedied:
            kind = torch.randint(kinds, (plan.batch, 1), generator=generator)
        else:
            kind = torch.full((plan.batch, 1), step // phase % kinds)
        x = 2 * kind + torch.randint(2, (plan.batch, plan.time), generator=generator)
        return x, torch.cat([x[:, :1], x[:, :-1]], 1)

    plan = drawn_plan(rng, data=data, steps=4 * phase)
    return replace(plan, symbols=int(rng.choice([6, 8]))).watched()


@fault("a vocabulary made anew for the validation data", "HS510", held_out=True)
def vocabulary_anew(rng: np.random.Generator, remedied: bool) -> Watched:
    def held_back(plan: Plan, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x, y = remembered(plan, generator, 0)
        coded = x if remedied else (x + 1 + plan.seed % (plan.symbols - 1)) % plan.symbols
        return coded, y

    return drawn_plan(rng, held_back=held_back, steps=300).watched()


class Adapted(nn.Module):
    """A tagger whose layer gets a correction of low rank."""

    def __init__(self, plan: Plan, drawn: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(plan.symbols, 8)
        self.rnn = {"elman": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[plan.kind](
            8, plan.hidden, batch_first=True
        )
        self.down = nn.Linear(plan.hidden, 4, bias=False)
        self.up = nn.Linear(4, plan.hidden, bias=False)
        nn.init.zeros_(self.up.weight)
        if not drawn:
            nn.init.zeros_(self.down.weight)
        self.head = nn.Linear(plan.hidden, plan.symbols)

    def forward(self, codes: Tensor) -> Tensor:
        h, _ = self.rnn(self.embed(codes))
        result: Tensor = self.head(h + self.up(self.down(h)))
        return result


@fault(
    "a correction of low rank, both factors of which begin at 0",
    "HS509",
    source="LoRA (Hu and others 2021), of which one factor is drawn",
    held_out=True,
)
def factors_of_zero(rng: np.random.Generator, remedied: bool) -> Watched:
    kinds = ("elman", "gru", "lstm")
    return drawn_plan(rng, kinds, model=lambda plan: Adapted(plan, remedied), steps=300).watched()


@fault(
    "a range test of the learning rate left on",
    "HS504",
    "HS507",
    source="the range test of Smith 2017",
    held_out=True,
)
def range_test_left_on(rng: np.random.Generator, remedied: bool) -> Watched:
    growth = float(rng.uniform(1.035, 1.045))

    def schedule(step: int) -> float:
        return 50.0 if remedied else float(growth**step)

    return drawn_plan(rng, steps=300, rate=2e-4, schedule=schedule).watched()
