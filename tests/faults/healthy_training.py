"""Trainings that go well: other tasks, optimisers, schedules and ways to write a loop."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from hiddenstate.cells import build
from hiddenstate.nn import Recurrent, Stack
from tests.faults.plant import Watched, healthy
from tests.faults.training import Plan, Tagger, drawn_plan, remembered


@healthy("training of a tagger with Adam")
def with_adam(rng: np.random.Generator) -> Watched:
    return drawn_plan(rng, rate=10 ** float(rng.uniform(-3.0, -1.7)), steps=240).watched()


@healthy("training with gradient descent, clipped")
def with_descent(rng: np.random.Generator) -> Watched:
    kind = str(rng.choice(["sgd", "momentum"]))
    rate = float(rng.uniform(0.3, 1.0)) * (0.2 if kind == "momentum" else 1.0)
    return drawn_plan(rng, optimiser=kind, rate=rate, clip=1.0, steps=240).watched()


@healthy("training with warm-up, cosine and clipping")
def with_schedule(rng: np.random.Generator) -> Watched:
    def schedule(step: int) -> float:
        done = step / 240
        return done / 0.05 if done < 0.05 else 0.5 * (1 + math.cos(math.pi * done))

    rate = float(rng.uniform(3e-3, 1e-2))
    return drawn_plan(rng, rate=rate, schedule=schedule, clip=1.0, steps=240).watched()


class Pooled(nn.Module):
    """The class of a whole packed sequence: whether it holds more of the first symbol or not."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.embed = nn.Embedding(plan.symbols + 1, 8, padding_idx=plan.symbols)
        self.rnn = nn.LSTM(8, plan.hidden, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(2 * plan.hidden, 2)
        self.padding = plan.symbols

    def forward(self, codes: Tensor) -> Tensor:
        lengths = (codes != self.padding).sum(1).cpu()
        packed = pack_padded_sequence(self.embed(codes), lengths, True, enforce_sorted=False)
        h, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        return self.head(self.dropout(h.max(1).values))


@healthy("training of a bidirectional classifier on packed rows")
def packed_classifier(rng: np.random.Generator) -> Watched:
    def batches(plan: Plan, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        del step
        x = torch.randint(plan.symbols, (plan.batch, plan.time), generator=generator)
        y = (x[:, :4] == 0).any(1).long()
        lengths = torch.randint(4, plan.time + 1, (plan.batch, 1), generator=generator)
        return torch.where(torch.arange(plan.time) < lengths, x, plan.symbols), y

    return drawn_plan(
        rng, model=Pooled, data=batches, loss=functional.cross_entropy, rate=1e-2, clip=1.0
    ).watched()


class Forecaster(nn.Module):
    """Mean and logarithm of the deviation of the next value, from an LSTM cell in a loop."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(1, plan.hidden), nn.Linear(plan.hidden, 2)

    def forward(self, x: Tensor) -> Tensor:
        state, said = None, []
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
            said.append(self.head(state[0]))
        return torch.stack(said, 1)


@healthy("training of a forecaster with a loss below 0")
def gaussian_forecaster(rng: np.random.Generator) -> Watched:
    def batches(plan: Plan, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        del step
        phase = 6.3 * torch.rand(plan.batch, 1, generator=generator)
        wave = torch.sin(phase + 0.5 * torch.arange(plan.time + 1))[..., None]
        noisy = wave + 0.03 * torch.randn(wave.shape, generator=generator)
        return noisy[:, :-1], noisy[:, 1:]

    def nll(said: Tensor, truth: Tensor) -> Tensor:
        mean, scale = said.chunk(2, -1)
        return (scale + 0.5 * ((truth - mean) / scale.exp()).square()).mean()

    return drawn_plan(
        rng, model=Forecaster, data=batches, loss=nll, rate=1e-2, clip=5.0, steps=160
    ).watched()


class Deep(Tagger):
    """A residual stack of our layers, normalised."""

    def __init__(self, plan: Plan) -> None:
        super().__init__("gru", plan.symbols, plan.hidden)
        kind = plan.kind.removeprefix("ours ")
        sizes = [8, plan.hidden, plan.hidden]
        layers = [Recurrent(build(kind, size, plan.hidden)) for size in sizes]
        self.rnn = Stack(layers, residual=True, layer_norm=True, dropout=0.1)


@healthy("training of a residual stack")
def residual_stack(rng: np.random.Generator) -> Watched:
    return drawn_plan(rng, model=Deep, rate=3e-3, clip=1.0, steps=160).watched()


@healthy("training where most of the answer is noise")
def mostly_noise(rng: np.random.Generator) -> Watched:
    def batches(plan: Plan, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        x, y = remembered(plan, generator, step)
        other = torch.randint(plan.symbols, y.shape, generator=generator)
        return x, torch.where(torch.rand(y.shape, generator=generator) < 0.45, y, other)

    def held_back(plan: Plan, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        del generator
        return batches(replace(plan, batch=64), torch.Generator().manual_seed(plan.seed), 0)

    plan = drawn_plan(rng, data=batches, held_back=held_back, rate=1e-2, steps=300)
    return replace(plan, symbols=4).watched()


class Streamed(Tagger):
    """Carries its state from window to window, cut from the graph."""

    state: Any = None

    def forward(self, codes: Tensor) -> Tensor:
        h, state = self.rnn(self.embed(codes), self.state)
        self.state = (
            tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        )
        return self.head(h)


@healthy("training through windows with a carried state")
def carried_state(rng: np.random.Generator) -> Watched:
    model = lambda plan: Streamed(plan.kind, plan.symbols, plan.hidden)  # noqa: E731
    return drawn_plan(rng, ("elman", "gru", "lstm"), model=model, rate=5e-3, clip=1.0).watched()
