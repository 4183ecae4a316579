"""Healthy forecasters, written blind."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hiddenstate.nn import stack_of
from tests.faults.blind_well_parts import (
    Loss,
    floats,
    fresh,
    layer_of,
    trained,
    waves,
    whole,
    width,
)
from tests.faults.held_out_parts import between, one_of
from tests.faults.plant import Planted, healthy


def squared(target: Tensor) -> Loss:
    return lambda given: functional.mse_loss(given, target)


class LoadForecaster(nn.Module):
    """Past loads with their calendar, then the calendar of the hours to come: [B, F] loads."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, hidden: int) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.load = nn.Linear(hidden, 1)

    def forward(self, loads: Tensor, calendar: Tensor, ahead: Tensor) -> Any:
        _, state = self.encoder(torch.cat([loads[..., None], calendar], dim=-1))
        return self.load(self.decoder(ahead, state)[0]).squeeze(-1)


@healthy("loads of a grid, with the calendar of the hours to come", held_out=True)
def load(rng: np.random.Generator) -> Planted:
    past, future, hidden = between(rng, 16, 26), between(rng, 5, 10), width(rng, 16, 40)
    kind = one_of(rng, "rnn", "lstm", "gru")

    def draw(rows: int) -> tuple[Any, Loss]:
        hour = rng.integers(0, 168, (rows, 1)) + np.arange(past + future)
        day = 2 * np.pi * hour / 24
        free = (hour // 24) % 7 >= 5
        calendar = np.stack([np.sin(day), np.cos(day), free], -1)
        # Every region has a level and a swing of its own.
        level, swing = rng.normal(0, 0.6, (rows, 1)), rng.uniform(0.5, 1.5, (rows, 1))
        x = level + swing * np.sin(day - 2) - 0.7 * free + 0.08 * rng.standard_normal(hour.shape)
        batch = (
            floats(x[:, :past]),
            floats(calendar[:, :past]),
            floats(calendar[:, past:]),
        )
        return batch, squared(floats(x[:, past:]))

    encoder = layer_of(rng, 4, hidden, kinds=(kind,))
    decoder = layer_of(rng, 3, hidden, kinds=(kind,))
    model = LoadForecaster(encoder, decoder, hidden)
    return trained(rng, model, draw, steps=180, held_back=True, causal=False)


class CountForecaster(nn.Module):
    """Mean and dispersion of tomorrow's sales (negative binomial, Salinas et al. 2020)."""

    def __init__(self, layer: nn.Module, hidden: int) -> None:
        super().__init__()
        self.weekday = nn.Embedding(7, 4)
        self.layer = layer
        self.mean, self.dispersion = nn.Linear(hidden, 1), nn.Linear(hidden, 1)

    def forward(self, sold: Tensor, weekday: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([torch.log1p(sold)[..., None] - 1.5, self.weekday(weekday)], dim=-1)
        states, _ = self.layer(x)
        mean = torch.exp(self.mean(states)).squeeze(-1)
        return mean, functional.softplus(self.dispersion(states)).squeeze(-1) + 1e-3


@healthy("counts of sales that scatter more than their mean", held_out=True)
def sales(rng: np.random.Generator) -> Planted:
    time, hidden = between(rng, 14, 28), width(rng, 12, 40)
    week = rng.normal(0, 0.6, 7)

    def draw(rows: int) -> tuple[Any, Loss]:
        day = (rng.integers(0, 7, (rows, 1)) + np.arange(time + 1)) % 7
        mean = np.exp(rng.normal(1.5, 0.7, (rows, 1)) + week[day])
        sold = floats(rng.poisson(mean * rng.gamma(8, 1 / 8, mean.shape)))

        def loss(given: Any) -> Any:
            mean, scatter = given
            y, r = sold[:, 1:], 1 / scatter
            chances = torch.lgamma(y + r) - torch.lgamma(r) - torch.lgamma(y + 1)
            chances = chances + r * torch.log(r / (r + mean)) + y * torch.log(mean / (r + mean))
            return -chances.mean()

        return (sold[:, :-1], whole(day[:, 1:])), loss

    model = CountForecaster(layer_of(rng, 5, hidden, kinds=("lstm", "gru")), hidden)
    return trained(rng, model, draw, steps=200, held_back=True, causal=True)


class LSTNet(nn.Module):
    """Convolution, a GRU, a GRU over every P-th step and a linear part (Lai et al. 2018)."""

    def __init__(self, series: int, filters: int, hidden: int, period: int) -> None:
        super().__init__()
        self.period, self.memory = period, 6
        self.convolution = nn.Conv1d(series, filters, 3)
        self.gru = nn.GRU(filters, hidden, batch_first=True)
        self.skip = nn.GRU(filters, 8, batch_first=True)
        self.dropout = nn.Dropout(0.2)
        self.out = nn.Linear(hidden + period * 8, series)
        self.linear = nn.Linear(self.memory, 1)

    def forward(self, x: Tensor) -> Any:
        features = self.dropout(torch.relu(self.convolution(x.transpose(1, 2))))
        _, last = self.gru(features.transpose(1, 2))
        rounds = features.shape[2] // self.period
        recent = features[:, :, -rounds * self.period :]
        by_phase = recent.unflatten(2, (rounds, self.period)).permute(0, 3, 2, 1)
        _, skipped = self.skip(by_phase.flatten(0, 1))
        skipped = skipped[0].view(len(x), -1)
        network = self.out(self.dropout(torch.cat([last[0], skipped], dim=1)))
        return network + self.linear(x[:, -self.memory :].transpose(1, 2)).squeeze(-1)


@healthy("several series with a season, some steps left out", held_out=True)
def lstnet(rng: np.random.Generator) -> Planted:
    time, series, period = between(rng, 24, 80), between(rng, 3, 9), between(rng, 4, 7)

    def draw(rows: int) -> tuple[Any, Loss]:
        phase = rng.uniform(0, 6, (rows, 1, series))
        turn = 2 * np.pi * np.arange(time + 1)[:, None] / period
        x = waves(rng, rows, time + 1, series) * 0.6 + np.sin(turn + phase)
        return (floats(x[:, :-1]),), squared(floats(x[:, -1]))

    model = LSTNet(series, between(rng, 16, 48), width(rng, 16, 100), period)
    return fresh(rng, model, draw)


class DualAttention(nn.Module):
    """Attention over driving series, then over time (Qin et al. 2017); windows of T steps."""

    def __init__(self, series: int, time: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.encoder, self.decoder = nn.LSTMCell(series, hidden), nn.LSTMCell(hidden + 1, hidden)
        self.of_state = nn.Linear(2 * hidden, time)
        self.of_series = nn.Linear(time, time, bias=False)
        self.score = nn.Linear(time, 1, bias=False)
        self.of_steps = nn.Linear(hidden, hidden, bias=False)
        self.of_decoder = nn.Linear(2 * hidden, hidden)
        self.step_score = nn.Linear(hidden, 1, bias=False)
        self.out = nn.Linear(2 * hidden, 1)

    def forward(self, driving: Tensor, past: Tensor) -> Any:
        zeros = driving.new_zeros(len(driving), self.hidden)
        h, c = zeros, zeros
        each, states = self.of_series(driving.transpose(1, 2)), []
        for t in range(driving.shape[1]):
            asked = self.of_state(torch.cat([h, c], dim=1))[:, None]
            weights = self.score(torch.tanh(asked + each)).squeeze(-1).softmax(dim=1)
            h, c = self.encoder(weights * driving[:, t] * driving.shape[2], (h, c))
            states.append(h)
        encoded = torch.stack(states, dim=1)
        keys, d, s = self.of_steps(encoded), zeros, zeros
        context = encoded[:, -1]
        for t in range(past.shape[1]):
            asked = self.of_decoder(torch.cat([d, s], dim=1))[:, None]
            weights = self.step_score(torch.tanh(asked + keys)).softmax(dim=1)
            context = (weights * encoded).sum(dim=1)
            d, s = self.decoder(torch.cat([context, past[:, t, None]], dim=1), (d, s))
        return self.out(torch.cat([d, context], dim=1)).squeeze(1)


@healthy("attention over driving series and over time", held_out=True)
def dual_attention(rng: np.random.Generator) -> Planted:
    time, series = between(rng, 8, 16), between(rng, 4, 8)
    weights = rng.standard_normal(series) / np.sqrt(series)

    def draw(rows: int) -> tuple[Any, Loss]:
        driving = waves(rng, rows, time, series)
        led = driving @ weights
        past, target = led[:, :-2], led[:, -2]
        return (floats(driving), floats(past)), squared(floats(target + 0.3 * led[:, -1]))

    return fresh(rng, DualAttention(series, time, width(rng, 12, 64)), draw, causal=False)


class Correction(nn.Module):
    """The next values: those just read, and a correction out of the states."""

    def __init__(self, layer: nn.Module, series: int, hidden: int) -> None:
        super().__init__()
        self.layer = layer
        self.correction = nn.Linear(hidden, series)
        nn.init.normal_(self.correction.weight, std=0.01)
        nn.init.zeros_(self.correction.bias)

    def forward(self, x: Tensor) -> Any:
        return x + self.correction(self.layer(x)[0])


@healthy("the value just read and a correction", held_out=True)
def correction(rng: np.random.Generator) -> Planted:
    time, series, hidden = between(rng, 20, 40), between(rng, 1, 3), width(rng, 12, 40)

    def draw(rows: int) -> tuple[Any, Loss]:
        x = floats(waves(rng, rows, time + 1, series))
        return (x[:, :-1],), squared(x[:, 1:])

    layer = layer_of(rng, series, hidden)
    model = Correction(layer, series, hidden)
    return trained(rng, model, draw, steps=200, causal=True)


class SelfFed(nn.Module):
    """Reads a signal, then goes on by itself: each value it gives is its next input."""

    def __init__(self, cell: str, hidden: int, ahead: int) -> None:
        super().__init__()
        self.ahead = ahead
        self.stack = stack_of(cell, 1, hidden)
        self.value = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, F] from x [B, T, 1]."""
        states, state = self.stack(x)
        values = [self.value(states[:, -1])]
        while len(values) < self.ahead:
            h, state = self.stack.step(values[-1], state)
            values.append(self.value(h))
        return torch.cat(values, dim=1)


@healthy("a forecaster that feeds itself", held_out=True)
def self_fed(rng: np.random.Generator) -> Planted:
    time, ahead = between(rng, 14, 24), between(rng, 3, 6)

    def draw(rows: int) -> tuple[Any, Loss]:
        x = floats(waves(rng, rows, time + ahead, 1))
        return (x[:, :time],), squared(x[:, time:, 0])

    model = SelfFed(one_of(rng, "elman", "lstm", "gru"), width(rng, 16, 40), ahead)
    return trained(rng, model, draw, steps=200, held_back=True, causal=False)


class Stations(nn.Module):
    """One GRU for all weather stations [B, S, T, D], each with a vector of its own."""

    def __init__(self, stations: int, features: int, hidden: int) -> None:
        super().__init__()
        self.station = nn.Embedding(stations, 8)
        self.gru = nn.GRU(features + 8, hidden, num_layers=2, batch_first=True)
        self.out = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Any:
        rows, stations, time, _ = x.shape
        own = self.station.weight[None, :, None].expand(rows, -1, time, -1)
        states, _ = self.gru(torch.cat([x, own], dim=-1).flatten(0, 1))
        return self.out(states[:, -1]).view(rows, stations)


@healthy("one layer for all the stations of a region", held_out=True)
def stations(rng: np.random.Generator) -> Planted:
    time, count, features = between(rng, 8, 40), between(rng, 3, 6), between(rng, 2, 5)

    def draw(rows: int) -> tuple[Any, Loss]:
        x = waves(rng, rows * count, time + 1, features).reshape(rows, count, time + 1, features)
        return (floats(x[:, :, :-1]),), squared(floats(x[:, :, -1, 0]))

    return fresh(rng, Stations(count, features, width(rng, 16, 100)), draw)


class Experts(nn.Module):
    """Several small GRUs, mixed at every step by a gate of its own."""

    def __init__(self, series: int, hidden: int, experts: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(
            nn.GRU(series, hidden, batch_first=True) for _ in range(experts)
        )
        self.heads = nn.ModuleList(nn.Linear(hidden, series) for _ in range(experts))
        self.reader = nn.GRU(series, 16, batch_first=True)
        self.gate = nn.Linear(16, experts)

    def forward(self, x: Tensor) -> Any:
        shares = self.gate(self.reader(x)[0]).softmax(dim=-1)
        each = [head(expert(x)[0]) for expert, head in zip(self.experts, self.heads)]
        return (torch.stack(each, dim=-1) * shares[..., None, :]).sum(dim=-1)


@healthy("a mixture of experts at every step", held_out=True)
def experts(rng: np.random.Generator) -> Planted:
    time, series = between(rng, 10, 50), between(rng, 2, 6)

    def draw(rows: int) -> tuple[Any, Loss]:
        x = floats(waves(rng, rows, time + 1, series))
        return (x[:, :-1],), squared(x[:, 1:])

    model = Experts(series, width(rng, 12, 64), between(rng, 3, 5))
    return fresh(rng, model, draw, causal=True)


class Dilated(nn.Module):
    """Layer k reads every 2^k-th step (Chang et al. 2017), in 2^k interleaved rows."""

    def __init__(self, layers: list[nn.RNNBase], hidden: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.out = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Any:
        rows, time, _ = x.shape
        for k, layer in enumerate(self.layers):
            gap = 2**k
            missing = -time % gap
            filled = functional.pad(x, (0, 0, 0, missing))
            filled = filled.reshape(rows, -1, gap, filled.shape[2])
            states, _ = layer(filled.transpose(1, 2).flatten(0, 1))
            x = states.unflatten(0, (rows, gap)).transpose(1, 2).flatten(1, 2)[:, :time]
        return self.out(x)


@healthy("layers that read every second and fourth step", held_out=True)
def dilated(rng: np.random.Generator) -> Planted:
    time, series, hidden = between(rng, 16, 100), between(rng, 2, 6), width(rng, 12, 80)

    def draw(rows: int) -> tuple[Any, Loss]:
        x = floats(waves(rng, rows, time + 1, series))
        return (x[:, :-1],), squared(x[:, 1:])

    kind = one_of(rng, "rnn", "lstm", "gru")
    layers = [layer_of(rng, n, hidden, kinds=(kind,)) for n in (series, hidden, hidden)]
    return fresh(rng, Dilated(layers, hidden, series), draw, causal=True)
