"""Healthy models of agents and their worlds, written blind."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hiddenstate.cells import LSTM
from hiddenstate.nn import Recurrent
from tests.faults.blind_well_parts import (
    IGNORED,
    Loss,
    floats,
    fresh,
    layer_of,
    lengths_of,
    packed,
    tagged,
    trained,
    valid,
    waves,
    whole,
    width,
)
from tests.faults.held_out_parts import between
from tests.faults.plant import Planted, healthy


class MazePolicy(nn.Module):
    """Log odds of walking on, turning left and turning right, from what was seen so far."""

    def __init__(self, layer: nn.Module, seen: int, hidden: int) -> None:
        super().__init__()
        self.seen = nn.Embedding(seen, 12, padding_idx=0)
        self.layer = layer
        self.policy = nn.Sequential(nn.Linear(hidden, 16), nn.Tanh(), nn.Linear(16, 3))

    def forward(self, seen: Tensor, lengths: Tensor) -> Any:
        return self.policy(packed(self.layer, self.seen(seen), lengths)[0])


@healthy("a turn in a maze that was told at its entrance", held_out=True)
def maze(rng: np.random.Generator) -> Planted:
    time, hidden = between(rng, 6, 14), width(rng, 16, 48)

    def draw(rows: int) -> tuple[Any, Loss]:
        lengths, row = lengths_of(rng, rows, time, 4), np.arange(rows)
        own, ends = valid(lengths, time), lengths.numpy() - 1
        seen, told = rng.integers(4, 7, (rows, time)), rng.integers(1, 3, rows)
        seen[:, 0], seen[row, ends] = told, 3
        acts = np.zeros((rows, time), int)
        acts[row, ends] = told
        tags = torch.where(own, whole(acts), IGNORED)
        return (torch.where(own, whole(seen), 0), lengths), tagged(tags)

    model = MazePolicy(layer_of(rng, 12, hidden, kinds=("lstm", "gru")), 7, hidden)
    return trained(rng, model, draw, steps=250, held_back=True, causal=True)


class Bandit(nn.Module):
    """A policy that learns by remembering what its arms gave (Duan et al. 2016)."""

    def __init__(self, arms: int, hidden: int) -> None:
        super().__init__()
        self.arms = arms
        self.recurrent = Recurrent(LSTM(arms + 1, hidden), learned_state=True)
        self.policy, self.value = nn.Linear(hidden, arms), nn.Linear(hidden, 1)

    def forward(self, pulled: Tensor, reward: Tensor, state: Any = None) -> tuple[Any, ...]:
        """Read the last pull, -1 before the first, and what it gave, [B, T] each."""
        last = functional.one_hot(pulled + 1, self.arms + 1)[..., 1:].to(reward.dtype)
        states, state = self.recurrent(torch.cat([last, reward[..., None]], -1), state=state)
        return self.policy(states), self.value(states).squeeze(-1), state


@healthy("a policy that learns a bandit within its state", held_out=True)
def bandit(rng: np.random.Generator) -> Planted:
    time, arms = between(rng, 8, 60), between(rng, 2, 5)

    def draw(rows: int) -> tuple[Any, Loss]:
        chances = rng.random((rows, arms))
        pulls = rng.integers(0, arms, (rows, time))
        gave = (rng.random(pulls.shape) < np.take_along_axis(chances, pulls, 1)).astype(float)
        pulled = np.concatenate([np.full((rows, 1), -1), pulls[:, :-1]], 1)
        before = np.concatenate([np.zeros((rows, 1)), gave[:, :-1]], 1)
        weights = 0.8 ** np.arange(time)
        ahead = [
            (gave[:, t:] * weights[: time - t]).sum(1) / weights[: time - t].sum()
            for t in range(time)
        ]
        taken, returns = whole(pulls)[..., None], floats(np.stack(ahead, 1))

        def loss(given: Any) -> Any:
            logits, values, _ = given
            logs = logits.log_softmax(dim=-1)
            advantage = returns - values.detach()
            gain = (logs.gather(2, taken)[..., 0] * advantage).mean()
            entropy = -(logs.exp() * logs).sum(-1).mean()
            return functional.mse_loss(values, returns) - gain - 0.01 * entropy

        return (whole(pulled), floats(before)), loss

    return fresh(rng, Bandit(arms, width(rng, 16, 128)), draw, causal=True)


class Team(nn.Module):
    """One cell for all agents of a team: values [B, T, N, A] of each agent's actions."""

    def __init__(self, observed: int, agents: int, actions: int, hidden: int) -> None:
        super().__init__()
        self.agents, self.hidden = agents, hidden
        self.front = nn.Sequential(nn.Linear(observed + agents, hidden), nn.ReLU())
        self.cell = nn.GRUCell(hidden, hidden)
        self.values = nn.Linear(hidden, actions)

    def forward(self, observed: Tensor) -> Tensor:
        rows, time = observed.shape[:2]
        who = torch.eye(self.agents).expand(rows, time, -1, -1)
        x = self.front(torch.cat([observed, who], dim=-1))
        h, values = x.new_zeros(rows * self.agents, self.hidden), []
        for t in range(time):
            h = self.cell(x[:, t].flatten(0, 1), h)
            values.append(self.values(h).unflatten(0, (rows, self.agents)))
        return torch.stack(values, dim=1)


@healthy("agents of a team with one cell for all", held_out=True)
def team(rng: np.random.Generator) -> Planted:
    time, observed = between(rng, 6, 24), between(rng, 4, 10)
    agents, actions = between(rng, 2, 4), between(rng, 2, 5)
    likes = floats(rng.standard_normal((observed, actions)) / np.sqrt(observed))

    def draw(rows: int) -> tuple[Any, Loss]:
        x = waves(rng, rows, time, observed * agents).reshape(rows, time, agents, observed)
        seen = floats(x)
        acts = whole(rng.integers(0, actions, (rows, time, agents)))[..., None]
        gain = (seen @ likes).gather(3, acts)[..., 0].mean(2)

        def loss(values: Any) -> Tensor:
            # The team's value is the sum of its agents' values (Sunehag et al. 2018).
            return functional.mse_loss(values.gather(3, acts)[..., 0].sum(2), gain)

        return (seen,), loss

    return fresh(rng, Team(observed, agents, actions, width(rng, 16, 96)), draw, causal=True)


class World(nn.Module):
    """What an agent will see next, what it gets, and whether its episode ends."""

    def __init__(self, layer: nn.Module, hidden: int) -> None:
        super().__init__()
        self.layer = layer
        self.seen, self.reward, self.ends = (nn.Linear(hidden, n) for n in (2, 1, 1))

    def forward(self, seen: Tensor, pushed: Tensor) -> dict[str, Any]:
        states, _ = self.layer(torch.cat([seen, pushed], dim=-1))
        return {
            "seen": seen + self.seen(states),
            "reward": self.reward(states).squeeze(-1),
            "ends": self.ends(states).squeeze(-1),
        }


@healthy("a world model of sights, rewards and ends", held_out=True)
def world(rng: np.random.Generator) -> Planted:
    time, hidden = between(rng, 12, 26), width(rng, 16, 48)

    def draw(rows: int) -> tuple[Any, Loss]:
        place, speed = rng.uniform(-1, 1, (rows, 2)), rng.uniform(-0.4, 0.4, (rows, 2))
        pushed = rng.standard_normal((rows, time, 2))
        seen = [place]
        for t in range(time):
            speed = 0.9 * speed + 0.15 * pushed[:, t] - 0.1 * place
            place = place + speed
            seen.append(place)
        places = floats(np.stack(seen, 1))
        after = places[:, 1:]
        reward, ends = -after.norm(dim=-1), (after.norm(dim=-1) > 1.8).float()

        def loss(given: Any) -> Tensor:
            sight = functional.mse_loss(given["seen"], after)
            gain = functional.mse_loss(given["reward"], reward)
            return sight + gain + functional.binary_cross_entropy_with_logits(given["ends"], ends)

        return {"seen": places[:, :-1], "pushed": floats(pushed)}, loss

    model = World(layer_of(rng, 4, hidden), hidden)
    return trained(rng, model, draw, steps=200, held_back=True, causal=True)
