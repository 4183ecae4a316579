"""Healthy models of events, agents and players: hazards, cases, policies, bandits, music."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.faults.held_out_parts import (
    TORCH,
    adam,
    between,
    inside,
    one_of,
    over,
    ragged,
    recurrent,
    sizes,
    swings,
    words,
)
from tests.faults.plant import Planted, healthy


def tensor(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)


class Hazards(nn.Module):
    """Log-odds [B, K] that a customer leaves in each of K months, from his log of events."""

    def __init__(self, rng: np.random.Generator, kinds: int, hidden: int, months: int) -> None:
        super().__init__()
        self.kind = nn.Embedding(kinds, 8, padding_idx=0)
        self.layers = recurrent(rng, 9, hidden, kinds=("lstm", "gru"))
        self.head = nn.Linear(hidden, months)

    def forward(self, kinds: Tensor, gaps: Tensor, lengths: Tensor) -> Any:
        x = torch.cat([self.kind(kinds), gaps[..., None]], -1)
        states = over(self.layers, x, lengths)
        return self.head(states[torch.arange(len(states)), lengths - 1])


def censored(odds: Tensor, month: Tensor, left: Tensor) -> Tensor:
    """-log likelihood of leaving in a month, or of having stayed until the end of it."""
    before = torch.arange(odds.shape[1]) < month[:, None]
    stayed = functional.logsigmoid(-odds)
    at = odds[torch.arange(len(odds)), month]
    then = torch.where(left, functional.logsigmoid(at), functional.logsigmoid(-at))
    return -((stayed * before).sum(1) + then).mean()


@healthy("months until a customer leaves, some unknown", held_out=True)
def hazards(rng: np.random.Generator) -> Planted:
    size, kinds, months = sizes(rng, (10, 30), (12, 40)), between(rng, 4, 8), between(rng, 4, 8)
    module = Hazards(rng, kinds, size.hidden, months)

    def draw() -> tuple[tuple[Tensor, Tensor, Tensor], Tensor, Tensor]:
        lengths = ragged(rng, size)
        own = inside(lengths, size.time)
        share = rng.uniform(0, 1, (size.batch, 1))
        cross = rng.random((size.batch, size.time)) < share
        kind = np.where(cross, 1, rng.integers(2, kinds, cross.shape))
        gaps = tensor(rng.standard_normal(cross.shape)) * own
        month = rng.geometric((0.05 + 0.6 * share[:, 0]).clip(0, 1)) - 1
        end = rng.integers(1, months, size.batch)
        left = torch.as_tensor(month <= end)
        batch = torch.as_tensor(kind) * own, gaps, lengths
        return batch, torch.as_tensor(np.minimum(month, end)), left

    def step() -> Tensor:
        batch, month, left = draw()
        return censored(module(*batch), month, left)

    adam(module, step, 150, 4e-3)
    batch, month, left = draw()
    return Planted(module, batch, lambda odds: censored(odds, month, left))


class Cases(nn.Module):
    """The next activity of a case, and when it comes."""

    def __init__(self, kind: str, activities: int, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(activities, 16, padding_idx=0)
        self.shared = TORCH[kind](17, hidden, batch_first=True)
        self.of_kind = TORCH[kind](hidden, hidden, batch_first=True)
        self.of_time = TORCH[kind](hidden, hidden, batch_first=True)
        self.kind, self.time = nn.Linear(hidden, activities), nn.Linear(hidden, 1)

    def forward(self, activity: Tensor, gap: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([self.embed(activity), gap[..., None]], -1)
        both = over(self.shared, x, lengths)
        kinds, times = over(self.of_kind, both, lengths), over(self.of_time, both, lengths)
        return self.kind(kinds), self.time(times).squeeze(-1)


@healthy("the next activity of a case and its time", held_out=True)
def cases(rng: np.random.Generator) -> Planted:
    size, activities = sizes(rng, (8, 24), (16, 40)), between(rng, 5, 10)
    module = Cases(one_of(rng, "lstm", "gru"), activities, size.hidden)
    pace = tensor(np.random.default_rng(activities).normal(0, 1, activities))

    def draw() -> tuple[tuple[Tensor, Tensor, Tensor], Tensor, Tensor, Tensor]:
        lengths = ragged(rng, size)
        own = inside(lengths, size.time)
        activity = words(rng, size, activities)
        gap = torch.cat([torch.zeros(size.batch, 1), pace[activity[:, :-1]]], 1)
        gap = gap + 0.3 * tensor(rng.standard_normal(gap.shape))
        batch = activity[:, :-1] * own, gap[:, :-1] * own, lengths
        return batch, activity[:, 1:], gap[:, 1:], own

    def value(out: tuple[Tensor, Tensor], kind: Tensor, gap: Tensor, own: Tensor) -> Tensor:
        late = functional.l1_loss(out[1][own], gap[own])
        return functional.cross_entropy(out[0][own], kind[own]) + late

    def step() -> Tensor:
        batch, *answers = draw()
        return value(module(*batch), *answers)

    adam(module, step, 150, 4e-3)
    batch, *answers = draw()
    return Planted(module, batch, lambda out: value(out, *answers), {"causal": True})


class Duelling(nn.Module):
    """Values of actions from what is seen, done and earned; the state comes from the replay."""

    def __init__(self, inputs: int, actions: int, hidden: int) -> None:
        super().__init__()
        self.front = nn.Sequential(nn.Linear(inputs, 32), nn.ReLU())
        self.actions = actions
        self.core = nn.LSTM(32 + actions + 1, hidden, batch_first=True)
        self.value = nn.Sequential(nn.Linear(hidden, 32), nn.ReLU(), nn.Linear(32, 1))
        self.gain = nn.Sequential(nn.Linear(hidden, 32), nn.ReLU(), nn.Linear(32, actions))

    def forward(
        self,
        seen: Tensor,
        last_action: Tensor,
        earned: Tensor,
        stored: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Any]:
        did = functional.one_hot(last_action, self.actions).to(seen.dtype)
        x = torch.cat([self.front(seen), did, earned[..., None]], -1)
        states, stored = self.core(x, stored)
        gain = self.gain(states)
        return self.value(states) + gain - gain.mean(-1, keepdim=True), stored


@healthy("values of actions, with the state of the replay", held_out=True)
def duelling(rng: np.random.Generator) -> Planted:
    size, actions = sizes(rng, (12, 60), (16, 128)), between(rng, 3, 6)
    seen = swings(rng, size)
    did = torch.as_tensor(rng.integers(0, actions, (size.batch, size.time + 1)))
    earned = tensor(rng.random(did.shape) < 0.2)
    module = Duelling(size.inputs, actions, size.hidden)
    with torch.no_grad():
        stored = module(seen, did, earned)[1]
    burnt, worth = 4, tensor(rng.normal(0.5, 0.5, (size.batch, size.time)))

    def loss(out: tuple[Tensor, Any]) -> Tensor:
        chosen = out[0].gather(-1, did[:, 1:, None]).squeeze(-1)
        return functional.smooth_l1_loss(chosen[:, burnt:], worth[:, burnt:])

    batch = {
        "seen": seen[:, 1:],
        "last_action": did[:, :-1],
        "earned": earned[:, :-1],
        "stored": stored,
    }
    return Planted(module, batch, loss, {"states": ("stored",), "causal": True})


class Bandit(nn.Module):
    def __init__(self, rng: np.random.Generator, arms: int, hidden: int) -> None:
        super().__init__()
        self.layers = recurrent(rng, arms + 1, hidden, kinds=("lstm", "gru"))
        self.head = nn.Linear(hidden, arms)

    def forward(self, pulled: Tensor, paid: Tensor) -> Any:
        return self.head(self.layers(torch.cat([pulled, paid[..., None]], -1))[0])


@healthy("which arm of a bandit pays best", held_out=True)
def bandit(rng: np.random.Generator) -> Planted:
    size, arms = sizes(rng, (15, 40), (16, 48)), between(rng, 2, 4)
    module = Bandit(rng, arms, size.hidden)

    def draw() -> tuple[Tensor, Tensor, Tensor]:
        chance = rng.uniform(0, 1, (size.batch, arms))
        pulled = rng.integers(0, arms, (size.batch, size.time))
        paid = rng.random(pulled.shape) < np.take_along_axis(chance, pulled, 1)
        best = torch.as_tensor(chance.argmax(1))[:, None].expand(-1, size.time)
        return tensor(np.eye(arms)[pulled]), tensor(2.0 * paid - 1), best

    def value(scores: Tensor, best: Tensor) -> Tensor:
        return functional.cross_entropy(scores.transpose(1, 2), best)

    def step() -> Tensor:
        pulled, paid, best = draw()
        return value(module(pulled, paid), best)

    adam(module, step, 200, 4e-3)
    pulled, paid, best = draw()
    return Planted(module, (pulled, paid), lambda out: value(out, best), {"causal": True})


class Chunked(nn.Module):
    """The next K moves of an arm, from what it saw and where its joints were."""

    def __init__(self, seen: int, joints: int, hidden: int, ahead: int) -> None:
        super().__init__()
        self.see = nn.Sequential(nn.Linear(seen, 32), nn.LayerNorm(32), nn.GELU())
        self.core = nn.GRU(32 + joints, hidden, 2, batch_first=True, dropout=0.1)
        self.head = nn.Linear(hidden, ahead * joints)
        self.ahead = ahead

    def forward(self, seen: Tensor, joints: Tensor) -> Tensor:
        _, h = self.core(torch.cat([self.see(seen), joints], -1))
        return torch.tanh(self.head(h[-1])).view(len(seen), self.ahead, -1)


@healthy("the next moves of an arm at once", held_out=True)
def chunked(rng: np.random.Generator) -> Planted:
    size, joints = sizes(rng, (8, 40), (24, 128)), between(rng, 3, 7)
    seen = swings(rng, size)[:, 1:]
    place = tensor(rng.uniform(-1, 1, (size.batch, 1, joints)) + np.zeros((1, size.time, 1)))
    place = place + 0.1 * tensor(rng.standard_normal(place.shape)).cumsum(1)
    moves = tensor(rng.uniform(-0.8, 0.8, (size.batch, between(rng, 3, 8), joints)))
    module = Chunked(size.inputs, joints, size.hidden, moves.shape[1])
    return Planted(
        module, {"seen": seen, "joints": place}, lambda out: functional.l1_loss(out, moves)
    )


class PianoRoll(nn.Module):
    """Log-odds that each key is struck at the next step."""

    def __init__(self, rng: np.random.Generator, keys: int, hidden: int) -> None:
        super().__init__()
        self.layers = recurrent(rng, keys, hidden, between(rng, 1, 2))
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(hidden, keys)

    def forward(self, roll: Tensor) -> Any:
        return self.head(self.drop(self.layers(roll)[0]))


@healthy("keys struck next on a piano", held_out=True)
def piano_roll(rng: np.random.Generator) -> Planted:
    size, keys = sizes(rng, (16, 40), (24, 48)), between(rng, 14, 24)
    module = PianoRoll(rng, keys, size.hidden)
    chords = np.array([[0, 4, 7], [5, 9, 12], [7, 11, 2], [9, 12, 4]])

    def draw() -> tuple[Tensor, Tensor]:
        roll = np.zeros((size.batch, size.time + 1, keys))
        beat = rng.integers(0, 16, (size.batch, 1)) + np.arange(size.time + 1)
        struck = chords[beat // 4 % 4] % keys
        np.put_along_axis(roll, struck, 1.0, 2)
        tune = rng.integers(0, keys, (*beat.shape, 1))
        np.put_along_axis(roll, tune, 1.0, 2)
        return tensor(roll[:, :-1]), tensor(roll[:, 1:])

    def step() -> Tensor:
        roll, following = draw()
        return functional.binary_cross_entropy_with_logits(module(roll), following)

    adam(module, step, 180, 5e-3)
    roll, following = draw()
    return Planted(
        module, (roll,), lambda y: functional.binary_cross_entropy_with_logits(y, following)
    )
