"""Healthy trainings: more than taggers, and schedules of many kinds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hiddenstate.cells import build
from hiddenstate.nn import Recurrent
from tests.faults.held_out_parts import between, one_of
from tests.faults.plant import Watched, healthy
from tests.faults.training import Plan


def layer(kind: str, inputs: int, hidden: int) -> nn.Module:
    """A layer of torch ("lstm") or of ours ("ours lstm")."""
    if kind.startswith("ours"):
        return Recurrent(build(kind.removeprefix("ours "), inputs, hidden))
    kinds: dict[str, Any] = {"elman": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
    return kinds[kind](inputs, hidden, batch_first=True)  # type: ignore[no-any-return]


def fitted(rng: np.random.Generator, **changes: Any) -> Plan:
    given: dict[str, Any] = {
        "kind": one_of(rng, "gru", "lstm", "ours gru", "ours lstm"),
        "seed": between(rng, 0, 2**31 - 1),
        "hidden": between(rng, 24, 48),
        "batch": between(rng, 12, 24),
        "time": between(rng, 8, 14),
    }
    return Plan(**{**given, **changes})


def cosine(steps: int, warm: int = 0) -> Any:
    def at(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))

    return at


class Forced(nn.Module):
    """Reads a row and says it backwards, its answers given: x is both, side by side."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.embed = nn.Embedding(plan.symbols + 1, 16)
        self.encoder = nn.GRU(16, plan.hidden, batch_first=True)
        self.decoder = nn.GRU(16, plan.hidden, batch_first=True)
        self.head = nn.Linear(2 * plan.hidden, plan.symbols)

    def forward(self, both: Tensor) -> Tensor:
        text, begun = both.chunk(2, 1)
        memory, last = self.encoder(self.embed(text))
        states, _ = self.decoder(self.embed(begun), last)
        weights = (states @ memory.transpose(1, 2) / states.shape[-1] ** 0.5).softmax(-1)
        scores: Tensor = self.head(torch.cat([states, weights @ memory], -1))
        return scores


def backwards(plan: Plan, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
    x = torch.randint(plan.symbols, (plan.batch, plan.time), generator=generator)
    y = x.flip(1)
    return torch.cat([x, functional.pad(y[:, :-1], (1, 0), value=plan.symbols)], 1), y


@healthy("training of a translator taught by force, with attention", held_out=True)
def taught_by_force(rng: np.random.Generator) -> Watched:
    return fitted(
        rng,
        symbols=between(rng, 4, 7),
        time=between(rng, 4, 6),
        steps=400,
        rate=5e-3,
        schedule=cosine(400, 20),
        model=Forced,
        data=backwards,
    ).watched()


def sine(plan: Plan, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
    """Noisy sines and their next values."""
    phase = 6.3 * torch.rand(plan.batch, 1, generator=generator)
    pace = 0.3 + 0.5 * torch.rand(plan.batch, 1, generator=generator)
    x = torch.sin(phase + pace * torch.arange(plan.time + 1))[..., None]
    x = x + 0.1 * torch.randn(x.shape, generator=generator)
    return x[:, :-1], x[:, 1:]


class Forecaster(nn.Module):
    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.layer = layer(plan.kind, 1, plan.hidden)
        self.head = nn.Linear(plan.hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.layer(x)[0])
        return out


def huber(out: Tensor, y: Tensor) -> Tensor:
    return functional.huber_loss(out, y, delta=0.5)


@healthy("training in stairs, each a third of the rate before", held_out=True)
def in_stairs(rng: np.random.Generator) -> Watched:
    """Momentum, and a rate that falls at two thirds and at five sixths of the way."""
    return fitted(
        rng,
        steps=360,
        optimiser="momentum",
        rate=0.1,
        schedule=lambda step: 0.3 ** ((step >= 240) + (step >= 300)),
        clip=4.0,
        loss=huber,
        model=Forecaster,
        data=sine,
    ).watched()


class Scored(nn.Module):
    """Log-odds of one answer for each row, from its last state."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.embed = nn.Embedding(plan.symbols, 12)
        self.layer = layer(plan.kind, 12, plan.hidden)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(plan.hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        odds: Tensor = self.head(self.drop(self.layer(self.embed(x))[0].amax(1)))
        return odds.squeeze(-1)


def rare(plan: Plan, generator: torch.Generator, step: int = 0) -> tuple[Tensor, Tensor]:
    """A row is of the rare kind where symbol 1 follows a 0; a tenth of the answers are wrong."""
    x = torch.randint(plan.symbols, (plan.batch, plan.time), generator=generator)
    found = ((x[:, :-1] == 0) & (x[:, 1:] == 1)).any(1)
    return x, (found ^ (torch.rand(plan.batch, generator=generator) < 0.1)).float()


def set_aside(plan: Plan, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The same 300 rows every time."""
    return rare(replace(plan, batch=300), torch.Generator().manual_seed(plan.seed + 2))


def weighed(odds: Tensor, y: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(odds, y, pos_weight=torch.tensor(2.0))


@healthy("training on a rare kind, weighed, and held-back rows looked at", held_out=True)
def rare_kind(rng: np.random.Generator) -> Watched:
    return fitted(
        rng,
        symbols=between(rng, 6, 8),
        batch=24,
        steps=400,
        rate=4e-3,
        schedule=cosine(400),
        loss=weighed,
        model=Scored,
        data=rare,
        held_back=set_aside,
    ).watched()


class Encoder(nn.Module):
    """Unit vectors [B, 2, E] of two rows that stand behind each other in x."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.embed = nn.Embedding(plan.symbols, 16)
        self.layer = layer(plan.kind, 16, plan.hidden)
        self.head = nn.Linear(plan.hidden, 16)

    def forward(self, x: Tensor) -> Tensor:
        states = self.layer(self.embed(x.flatten(0, 1)))[0].mean(1)
        return functional.normalize(self.head(states), dim=-1).view(len(x), 2, -1)


def views(plan: Plan, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
    """Two rows by the same author, who has a taste of his own in symbols."""
    taste = torch.randn(plan.batch, plan.symbols, generator=generator).mul(1.5).softmax(-1)
    rows = [torch.multinomial(taste, plan.time, True, generator=generator) for _ in range(2)]
    return torch.stack(rows, 1), torch.arange(plan.batch)


def contrasted(out: Tensor, y: Tensor) -> Tensor:
    scores = out[:, 0] @ out[:, 1].T / 0.2
    return 0.5 * (functional.cross_entropy(scores, y) + functional.cross_entropy(scores.T, y))


@healthy("training of an encoder by contrast within the batch", held_out=True)
def by_contrast(rng: np.random.Generator) -> Watched:
    return fitted(
        rng,
        symbols=between(rng, 8, 12),
        time=between(rng, 12, 18),
        batch=16,
        steps=240,
        rate=3e-3,
        schedule=cosine(240),
        loss=contrasted,
        model=Encoder,
        data=views,
    ).watched()


class Frames(nn.Module):
    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.front = nn.Linear(6, 24)
        self.layer = layer(plan.kind, 24, plan.hidden)
        self.head = nn.Linear(plan.hidden, plan.symbols + 1)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.layer(torch.relu(self.front(x)))[0])
        return scores.log_softmax(-1)


def spoken(plan: Plan, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
    """Each letter sounds for three frames, in a voice of six numbers."""
    voice = torch.randn(plan.symbols + 1, 6, generator=torch.Generator().manual_seed(plan.seed))
    said = torch.randint(1, plan.symbols + 1, (plan.batch, plan.time // 3), generator=generator)
    frames = voice[said.repeat_interleave(3, 1)]
    return frames + 0.2 * torch.randn(frames.shape, generator=generator), said


def ctc(logs: Tensor, said: Tensor) -> Tensor:
    rows, steps = logs.shape[:2]
    lengths = torch.full((rows,), steps), torch.full((rows,), said.shape[1])
    return functional.ctc_loss(logs.transpose(0, 1), said, *lengths)


@healthy("training of a listener by CTC", held_out=True)
def listener(rng: np.random.Generator) -> Watched:
    return fitted(
        rng,
        symbols=between(rng, 4, 6),
        time=3 * between(rng, 4, 6),
        steps=400,
        rate=5e-3,
        schedule=cosine(400),
        clip=20.0,
        loss=ctc,
        model=Frames,
        data=spoken,
    ).watched()


class TwoHeads(nn.Module):
    """Which symbol stood before, and how many were even so far: scores, and then a number."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.embed = nn.Embedding(plan.symbols, 12)
        self.layer = layer(plan.kind, 12, plan.hidden)
        self.head = nn.Linear(plan.hidden, plan.symbols)
        self.count = nn.Linear(plan.hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        states = self.layer(self.embed(x))[0]
        return torch.cat([self.head(states), self.count(states)], -1)


def two_answers(plan: Plan, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
    x = torch.randint(plan.symbols, (plan.batch, plan.time), generator=generator)
    before = functional.pad(x, (1, 0))[:, :-1].float()
    even = (x % 2 == 0).float().cumsum(1) / plan.time
    return x, torch.stack([before, even], -1)


def both(out: Tensor, y: Tensor) -> Tensor:
    tagged = functional.cross_entropy(out[..., :-1].flatten(0, 1), y[..., 0].long().flatten())
    return tagged + functional.mse_loss(out[..., -1], y[..., 1])


@healthy("training of two heads at once", held_out=True)
def two_heads(rng: np.random.Generator) -> Watched:
    return fitted(
        rng,
        symbols=between(rng, 4, 8),
        steps=300,
        rate=5e-3,
        schedule=cosine(300, 10),
        clip=5.0,
        loss=both,
        model=TwoHeads,
        data=two_answers,
    ).watched()


def longer_and_longer(plan: Plan, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
    """The symbol of two steps before; rows grow from a third to all of their length."""
    time = max(5, round(plan.time * min(1.0, 1 / 3 + step / 150)))
    x = torch.randint(plan.symbols, (plan.batch, time), generator=generator)
    return x, functional.pad(x, (2, 0))[:, :-2]


@healthy("training on rows that grow", held_out=True)
def growing(rng: np.random.Generator) -> Watched:
    return fitted(
        rng,
        symbols=between(rng, 4, 6),
        time=between(rng, 15, 24),
        steps=360,
        rate=6e-3,
        schedule=cosine(360),
        data=longer_and_longer,
    ).watched()


class Tuned(nn.Module):
    """Vectors of symbols that are kept as they are, and a new layer and head above them."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.embed = nn.Embedding(plan.symbols, 16)
        self.embed.weight.requires_grad_(False)
        self.layer = layer(plan.kind, 16, plan.hidden)
        self.head = nn.Linear(plan.hidden, plan.symbols)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.layer(self.embed(x))[0])
        return scores


def trained_only(model: nn.Module) -> Iterable[nn.Parameter]:
    return [each for each in model.parameters() if each.requires_grad]


@healthy("training above vectors that stay as they are", held_out=True)
def tuned(rng: np.random.Generator) -> Watched:
    return fitted(
        rng,
        symbols=between(rng, 5, 9),
        steps=300,
        rate=6e-3,
        schedule=lambda step: 0.99**step,
        model=Tuned,
        given=trained_only,
    ).watched()
