"""Held-out healthy models of the second set: numbers, speech, agents. Written unseen."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.faults.held_out_healthy import Drawn, made
from tests.faults.held_out_parts import (
    TORCH,
    Sizes,
    between,
    inside,
    one_of,
    over,
    ragged,
    recurrent,
    series,
    sizes,
    swings,
    told_apart,
    words,
)
from tests.faults.plant import Planted, healthy
from tests.faults.unseen_faults import texts


class Variational(nn.Module):
    """Autoencoder with a normal code; in eval mode the code is its mean."""

    def __init__(self, size: Sizes, code: int) -> None:
        super().__init__()
        self.encoder = nn.GRU(size.inputs, size.hidden, batch_first=True, bidirectional=True)
        self.mu = nn.Linear(2 * size.hidden, code)
        self.logvar = nn.Linear(2 * size.hidden, code)
        self.begin = nn.Linear(code, size.hidden)
        self.decoder = nn.GRU(code, size.hidden, batch_first=True)
        self.out = nn.Linear(size.hidden, size.inputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _, h = self.encoder(x)
        h = torch.cat([h[0], h[1]], dim=-1)
        mu, logvar = self.mu(h), self.logvar(h)
        z = mu + torch.randn_like(mu) * (0.5 * logvar).exp() if self.training else mu
        begin = torch.tanh(self.begin(z)).unsqueeze(0)
        output, _ = self.decoder(z.unsqueeze(1).repeat(1, x.shape[1], 1), begin)
        return self.out(output), mu, logvar


@healthy("variational autoencoder in eval mode", held_out=True)
def variational(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (8, 20), (8, 64))

    def draw() -> Drawn:
        x = swings(rng, size)[:, 1:]

        def loss(y: tuple[Tensor, Tensor, Tensor]) -> Tensor:
            again, mu, logvar = y
            apart = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(dim=1).mean()
            return functional.mse_loss(again, x) + 0.01 * apart

        return (x,), loss

    return made(rng, Variational(size, between(rng, 2, 8)), draw, 20)


class Decaying(nn.Module):
    """Values, what was measured, time since the last measurement; the state fades with time."""

    def __init__(self, rng: np.random.Generator, size: Sizes) -> None:
        super().__init__()
        self.cell = nn.GRUCell(2 * size.inputs, size.hidden)
        self.gamma_h = nn.Linear(size.inputs, size.hidden)
        self.gamma_x = nn.Parameter(torch.full((size.inputs,), float(rng.uniform(0.1, 0.5))))
        self.out = nn.Linear(size.hidden, 1)

    def forward(self, values: Tensor, mask: Tensor, delta: Tensor) -> Tensor:
        h = values.new_zeros(values.shape[0], self.cell.hidden_size)
        last = torch.zeros_like(values[:, 0])
        for x, m, d in zip(values.unbind(1), mask.unbind(1), delta.unbind(1), strict=True):
            h = h * torch.exp(-functional.relu(self.gamma_h(d)))
            last = m * x + (1 - m) * last * torch.exp(-functional.relu(self.gamma_x) * d)
            h = self.cell(torch.cat([last, m], dim=1), h)
        return self.out(h).squeeze(-1)


@healthy("states that fade with the time between measurements", held_out=True)
def decaying(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (8, 25), (8, 100))

    def draw() -> Drawn:
        x = series(rng, size)
        mask = torch.as_tensor(rng.random(x.shape) < 0.5, dtype=torch.float32)
        gap = torch.as_tensor(rng.exponential(1.0, (size.batch, size.time)), dtype=torch.float32)
        delta, since = [], torch.zeros(size.batch, size.inputs)
        for t in range(size.time):
            since = gap[:, t, None] + since * (1 - mask[:, max(t - 1, 0)])
            delta.append(since)
        answers = ((x * mask)[..., 0].sum(dim=1) > 0).float()
        batch = {"values": x * mask, "mask": mask, "delta": torch.stack(delta, dim=1)}
        return batch, lambda y: functional.binary_cross_entropy_with_logits(y, answers)

    return made(rng, Decaying(rng, size), draw, 15)


class Quantiles(nn.Module):
    """A past [B, T, D] and known features of the steps ahead: quantiles [B, horizon, Q]."""

    def __init__(self, rng: np.random.Generator, size: Sizes, horizon: int) -> None:
        super().__init__()
        kind = TORCH[one_of(rng, "lstm", "gru")]
        self.encoder = kind(size.inputs, size.hidden, batch_first=True)
        self.decoder = kind(2, size.hidden, batch_first=True)
        self.out = nn.Sequential(nn.Linear(size.hidden, 16), nn.ReLU(), nn.Linear(16, 3))
        self.horizon = horizon

    def forward(self, past: Tensor, known: Tensor) -> Tensor:
        _, state = self.encoder(past)
        return self.out(self.decoder(known, state)[0])


@healthy("quantiles of several steps ahead", held_out=True)
def quantiles(rng: np.random.Generator) -> Planted:
    size, horizon = sizes(rng, (20, 60), (4, 128)), between(rng, 3, 8)
    levels = torch.tensor([0.1, 0.5, 0.9])

    def draw() -> Drawn:
        x = swings(rng, size)
        past, ahead = x[:, :-horizon], x[:, -horizon:, :1]
        hours = torch.arange(horizon).expand(size.batch, -1) / 24 * 2 * torch.pi
        known = torch.stack([hours.sin(), hours.cos()], dim=-1)

        def loss(y: Tensor) -> Tensor:
            miss = ahead - y
            return torch.maximum(levels * miss, (levels - 1) * miss).mean()

        return (past, known), loss

    return made(rng, Quantiles(rng, size, horizon), draw, 20)


class ActorCritic(nn.Module):
    """Steps first; the state starts anew where `done` says that an episode has begun."""

    def __init__(self, rng: np.random.Generator, size: Sizes) -> None:
        super().__init__()
        self.inlet = nn.Linear(size.inputs, 32)
        self.lstm = nn.LSTM(32, size.hidden)
        for name, weight in self.lstm.named_parameters():
            if "bias" in name:
                nn.init.zeros_(weight)
            else:
                for gate in weight.data.chunk(4):
                    nn.init.orthogonal_(gate)
        self.actor = nn.Linear(size.hidden, between(rng, 2, 5))
        self.critic = nn.Linear(size.hidden, 1)

    def forward(self, obs: Tensor, done: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.tanh(self.inlet(obs))
        h = x.new_zeros(1, x.shape[1], self.lstm.hidden_size)
        c, outputs = torch.zeros_like(h), []
        for step, begun in zip(x, done, strict=True):
            keep = (1 - begun)[None, :, None]
            output, (h, c) = self.lstm(step[None], (keep * h, keep * c))
            outputs.append(output)
        features = torch.cat(outputs)
        return self.actor(features), self.critic(features).squeeze(-1)


@healthy("actor and critic over episodes, steps first", held_out=True)
def actor_critic(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (8, 25), (8, 64))
    module = ActorCritic(rng, size)

    def draw() -> Drawn:
        obs = series(rng, size).transpose(0, 1)
        done = torch.as_tensor(rng.random(obs.shape[:2]) < 0.08, dtype=torch.float32)
        actions = torch.as_tensor(rng.integers(0, 2, obs.shape[:2]))
        advantage, returns = torch.randn(obs.shape[:2]), obs.mean(dim=-1)

        def loss(y: tuple[Tensor, Tensor]) -> Tensor:
            logits, values = y
            logs = logits.log_softmax(dim=-1)
            chosen = logs.gather(2, actions[..., None]).squeeze(-1)
            spread = -(logs.exp() * logs).sum(dim=-1).mean()
            error = functional.mse_loss(values, returns)
            return -(chosen * advantage).mean() + 0.5 * error - 0.01 * spread

        return (obs, done), loss

    return made(rng, module, draw, 10)


class Acoustic(nn.Module):
    """Frames [B, T, F] halved twice, read both ways: log chances of letters and lengths left."""

    def __init__(self, size: Sizes, letters: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv1d(width, 24, 3, stride=2, padding=1) for width in (size.inputs, 24)
        )
        self.lstm = nn.LSTM(24, size.hidden, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(2 * size.hidden, letters)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        x = frames
        for conv in self.convs:
            x = x * inside(lengths, x.shape[1])[..., None]
            x = functional.relu(conv(x.transpose(1, 2))).transpose(1, 2)
            lengths = (lengths + 1) // 2
        return self.fc(over(self.lstm, x, lengths)).log_softmax(dim=-1), lengths


@healthy("letters of speech by CTC", held_out=True)
def acoustic(rng: np.random.Generator) -> Planted:
    size, letters = sizes(rng, (40, 80), (8, 64)), between(rng, 5, 20)

    def draw() -> Drawn:
        lengths = ragged(rng, size).clamp(min=24)
        targets = torch.as_tensor(rng.integers(1, letters, (size.batch, 3)))

        def loss(y: tuple[Tensor, Tensor]) -> Tensor:
            logs, left = y
            counts = torch.full((size.batch,), 3)
            return functional.ctc_loss(logs.transpose(0, 1), targets, left, counts)

        return (series(rng, size, lengths), lengths), loss

    return made(rng, Acoustic(size, letters), draw, 10)


class Transducer(nn.Module):
    """What was heard [B, T] and what was said so far [B, U]: scores [B, T, U + 1, V]."""

    def __init__(self, rng: np.random.Generator, size: Sizes, letters: int) -> None:
        super().__init__()
        self.encoder = recurrent(rng, size.inputs, size.hidden, between(rng, 1, 2))
        self.embedding = nn.Embedding(letters, 12)
        self.prediction = recurrent(rng, 12, size.hidden, kinds=("lstm", "gru"))
        self.joint = nn.Linear(size.hidden, letters)

    def forward(self, frames: Tensor, said: Tensor) -> Tensor:
        heard = self.encoder(frames)[0]
        guess = self.prediction(self.embedding(functional.pad(said, (1, 0))))[0]
        return self.joint(torch.tanh(heard[:, :, None] + guess[:, None]))


@healthy("transducer of frames and letters", held_out=True)
def transducer(rng: np.random.Generator) -> Planted:
    size, letters = sizes(rng, (12, 30), (8, 64)), between(rng, 6, 20)
    said_size = Sizes(size.batch, between(rng, 3, 7), 1, 1)

    def draw() -> Drawn:
        said = words(rng, said_size, letters)[:, :-1]
        return (series(rng, size), said), lambda y: y.logsumexp(dim=-1).mean() - y[..., 0].mean()

    found = made(rng, Transducer(rng, size, letters), draw, 0)
    return Planted(found.module, found.batch)


class Tracing(nn.Module):
    """Which skill was asked for and whether the answer was right: chances for every skill."""

    def __init__(self, rng: np.random.Generator, size: Sizes, skills: int) -> None:
        super().__init__()
        self.skills = skills
        self.rnn = recurrent(rng, 2 * skills, size.hidden, kinds=("rnn", "lstm"))
        self.out = nn.Linear(size.hidden, skills)

    def forward(self, skill: Tensor, correct: Tensor, lengths: Tensor) -> Tensor:
        x = functional.one_hot(skill + self.skills * correct, 2 * self.skills).float()
        return torch.sigmoid(self.out(over(self.rnn, x, lengths)))


@healthy("knowledge tracing", held_out=True)
def tracing(rng: np.random.Generator) -> Planted:
    size, skills = sizes(rng, (10, 40), (8, 100)), between(rng, 4, 12)

    def draw() -> Drawn:
        tokens, lengths = texts(rng, size, skills + 1)
        skill = (tokens - 1).clamp(min=0)
        correct = torch.as_tensor(rng.random(skill.shape) < 0.4 + 0.5 * (skill / skills).numpy())
        correct = correct.long() * (tokens > 0)
        real = inside(lengths, size.time)[:, 1:]

        def loss(y: Tensor) -> Tensor:
            chance = y[:, :-1].gather(2, skill[:, 1:, None]).squeeze(-1)
            return functional.binary_cross_entropy(chance[real], correct[:, 1:][real].float())

        return {"skill": skill, "correct": correct, "lengths": lengths}, loss

    return made(rng, Tracing(rng, size, skills), draw, 20)


class PointProcess(nn.Module):
    """Kinds of events and gaps between them: the next kind, and the log rate of the next gap."""

    def __init__(self, rng: np.random.Generator, size: Sizes, kinds: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(kinds, 12, padding_idx=0)
        self.rnn = recurrent(rng, 13, size.hidden, between(rng, 1, 2))
        self.kind = nn.Linear(size.hidden, kinds)
        self.rate = nn.Linear(size.hidden, 1)

    def forward(self, kinds: Tensor, gaps: Tensor) -> dict[str, Tensor]:
        x = torch.cat([self.embedding(kinds), torch.log1p(gaps)[..., None]], dim=-1)
        h = self.rnn(x)[0]
        return {"kind": self.kind(h), "log_rate": self.rate(h).squeeze(-1)}


@healthy("events in continuous time", held_out=True)
def point_process(rng: np.random.Generator) -> Planted:
    size, kinds = sizes(rng, (10, 60), (4, 128)), between(rng, 4, 15)

    def draw() -> Drawn:
        events = words(rng, size, kinds)
        gaps = torch.as_tensor(rng.exponential(1.0, events.shape), dtype=torch.float32)
        scored = told_apart(events[:, 1:])

        def loss(y: dict[str, Tensor]) -> Tensor:
            rate = y["log_rate"]
            return scored(y["kind"]) + (rate.exp() * gaps[:, 1:] - rate).mean()

        return {"kinds": events[:, :-1], "gaps": gaps[:, :-1]}, loss

    return made(rng, PointProcess(rng, size, kinds), draw, 20)


class Video(nn.Module):
    """Pictures [B, T, 1, 8, 8], each made a vector, then read in order."""

    def __init__(self, rng: np.random.Generator, hidden: int) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten()
        )
        self.rnn = recurrent(rng, 32, hidden, kinds=("lstm", "gru"))
        self.fc = nn.Linear(hidden, 3)

    def forward(self, clip: Tensor) -> Tensor:
        features = self.cnn(clip.flatten(0, 1)).view(*clip.shape[:2], -1)
        return self.fc(self.rnn(features)[0][:, -1])


@healthy("pictures in order", held_out=True)
def video(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (5, 12), (8, 64))

    def draw() -> Drawn:
        clip = torch.randn(size.batch, size.time, 1, 8, 8)
        level = torch.as_tensor(rng.integers(0, 3, size.batch))
        return (clip + 0.5 * level.view(-1, 1, 1, 1, 1),), told_apart(level)

    return made(rng, Video(rng, size.hidden), draw, 12)
