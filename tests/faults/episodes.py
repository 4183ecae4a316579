"""Rows of several episodes: policies that begin anew where a flag says so, and that do not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from tests.faults.plant import Planted, fault, healthy

Begin = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]


def anew(done: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Begin from zeros in the rows whose episode has ended."""
    return tuple(each * (1 - done) for each in state)


class Policy(nn.Module):
    """Observations [T, B, D] and ends of episodes [T, B] to scores [T, B, A] and the state."""

    def __init__(self, features: int, hidden: int, begin: Begin) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(features, hidden), nn.Linear(hidden, 3)
        self.begin = begin

    def forward(
        self, x: Tensor, done: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        zeros = x.new_zeros(x.shape[1], self.cell.hidden_size)
        now: tuple[Tensor, ...] = (zeros, zeros) if state is None else state
        scores = []
        for x_t, done_t in zip(x, done):
            now = self.cell(x_t, self.begin(done_t[:, None], now))
            scores.append(self.head(now[0]))
        return torch.stack(scores), now


def played(rng: np.random.Generator, begin: Begin) -> Planted:
    rows, steps, features = (int(rng.integers(*each)) for each in ((4, 12), (10, 26), (2, 6)))
    done = torch.as_tensor(rng.random((steps, rows)) < 0.15).float()
    module = Policy(features, int(rng.choice([8, 16, 32])), begin)
    return Planted(module, (torch.randn(steps, rows, features), done))


def on(_: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Go on as if it were one episode."""
    return state


@fault("a state that goes on into the next episode", "HS137")
def goes_on(rng: np.random.Generator, remedied: bool) -> Planted:
    return played(rng, anew if remedied else on)


@fault(
    "an episode's end that resets h and keeps c",
    "HS137",
    source="purejaxrl #23: the recurrent state at the end of an episode",
)
def keeps_c(rng: np.random.Generator, remedied: bool) -> Planted:
    return played(rng, anew if remedied else lambda done, state: (state[0] * (1 - done), state[1]))


@fault("an episode's end taken for its going on", "HS137")
def opposite(rng: np.random.Generator, remedied: bool) -> Planted:
    return played(rng, anew if remedied else lambda done, state: anew(1 - done, state))


@healthy("a policy over the ends of episodes, a step at a time")
def resets(rng: np.random.Generator) -> Planted:
    return played(rng, anew)


class AcrossEpisodes(nn.Module):
    """What is learnt in one episode helps in the next one: the end is an input like others."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.layer, self.head = nn.GRU(features + 1, hidden), nn.Linear(hidden, 3)

    def forward(
        self, x: Tensor, done: Tensor, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        h, state = self.layer(torch.cat([x, done[..., None]], -1), state)
        return self.head(h), state


@healthy("a policy that remembers across episodes")
def across(rng: np.random.Generator) -> Planted:
    rows, steps = int(rng.integers(4, 12)), int(rng.integers(10, 26))
    done = torch.as_tensor(rng.random((steps, rows)) < 0.15).float()
    return Planted(AcrossEpisodes(4, 16), (torch.randn(steps, rows, 4), done))
