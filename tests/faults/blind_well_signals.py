"""Healthy models of plants, machines and other signals, written blind."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hiddenstate.nn import Head, masked_mean, stack_of
from tests.faults.blind_well_parts import (
    Loss,
    floats,
    fresh,
    layer_of,
    lengths_of,
    mean_where,
    packed,
    tagged,
    trained,
    valid,
    waves,
    whole,
    width,
)
from tests.faults.held_out_parts import between, one_of
from tests.faults.plant import Planted, healthy


def squared(target: Tensor) -> Loss:
    return lambda given: functional.mse_loss(given, target)


class Wear(nn.Module):
    """The share of its life that an engine has left, after each of its flights."""

    def __init__(self, sensors: int, hidden: int) -> None:
        super().__init__()
        self.front = nn.Sequential(nn.Linear(sensors, 16), nn.ReLU())
        self.stack = stack_of("lstm", 16, hidden, init="chrono", longest_lag_steps=40)
        self.head = Head(hidden, 1)

    def forward(self, x: Tensor, lengths: Tensor) -> Any:
        return self.head(self.stack(self.front(x), lengths)[0]).squeeze(-1)


@healthy("the life that an engine has left", held_out=True)
def wear(rng: np.random.Generator) -> Planted:
    time, sensors = between(rng, 16, 36), between(rng, 4, 8)
    shows = rng.standard_normal(sensors)

    def draw(rows: int) -> tuple[Any, Loss]:
        lengths = lengths_of(rng, rows, time, 8)
        life = lengths.numpy()[:, None] + rng.integers(0, 15, (rows, 1))
        left = np.clip((life - np.arange(time)) / 20, 0, 1)
        x = (1.4 * (1 - left[..., None]) - 0.5) * shows
        x = x + 0.5 * rng.standard_normal(x.shape) + 0.3 * rng.standard_normal((rows, 1, sensors))
        own, target = valid(lengths, time), floats(left)
        batch = (torch.where(own[..., None], floats(x), 0.0), lengths)
        return batch, lambda given: masked_mean((given - target).square(), own)

    model = Wear(sensors, width(rng, 16, 48))
    return trained(rng, model, draw, steps=180, held_back=True, causal=True)


class Traffic(nn.Module):
    """A GRU cell at every crossing, told what the states of its neighbours are."""

    roads: Tensor

    def __init__(self, roads: Tensor, features: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.register_buffer("roads", roads)
        self.message = nn.Linear(hidden, hidden)
        self.cell = nn.GRUCell(2 * features + hidden, hidden)
        self.out = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, T, N] from x [B, T, N, D]."""
        rows, time, nodes, _ = x.shape
        h, given = x.new_zeros(rows, nodes, self.hidden), []
        around = self.roads @ x
        for t in range(time):
            told = torch.relu(self.message(self.roads @ h))
            read = torch.cat([x[:, t], around[:, t], told], dim=-1)
            h = self.cell(read.flatten(0, 1), h.flatten(0, 1)).unflatten(0, (rows, nodes))
            given.append(self.out(h).squeeze(-1))
        return torch.stack(given, dim=1)


@healthy("traffic on a graph of crossings", held_out=True)
def traffic(rng: np.random.Generator) -> Planted:
    time, nodes = between(rng, 6, 20), between(rng, 4, 9)
    joined = np.eye(nodes) + np.roll(np.eye(nodes), 1, 0) + (rng.random((nodes, nodes)) < 0.2)
    roads = joined / joined.sum(1, keepdims=True)

    def draw(rows: int) -> tuple[Any, Loss]:
        flow = [rng.standard_normal((rows, nodes))]
        for _ in range(time):
            flow.append(flow[-1] @ roads.T * 0.9 + 0.4 * rng.standard_normal((rows, nodes)))
        x = floats(np.stack(flow, 1))
        return (x[:, :-1, :, None],), squared(x[:, 1:])

    return fresh(rng, Traffic(floats(roads), 1, width(rng, 12, 64)), draw, causal=True)


class Filter(nn.Module):
    """What a noisy sensor should have shown, as its values come in."""

    def __init__(self, layer: nn.Module, sensors: int, hidden: int) -> None:
        super().__init__()
        self.layer = layer
        self.clean = nn.Linear(hidden, sensors)

    def forward(self, noisy: Tensor) -> Any:
        return self.clean(self.layer(noisy)[0])


@healthy("a filter for noisy sensors, as the values come in", held_out=True)
def denoised(rng: np.random.Generator) -> Planted:
    time, sensors, hidden = between(rng, 24, 48), between(rng, 1, 3), width(rng, 12, 40)

    def draw(rows: int) -> tuple[Any, Loss]:
        clean = waves(rng, rows, time, sensors)
        noisy = clean + 0.6 * rng.standard_normal(clean.shape)
        return (floats(noisy),), squared(floats(clean))

    model = Filter(layer_of(rng, sensors, hidden), sensors, hidden)
    return trained(rng, model, draw, steps=180, held_back=True, causal=True)


class Tank(nn.Module):
    """Levels of a tank under a valve's settings, from the level at which it begins."""

    def __init__(self, kind: str, hidden: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, hidden))
        made = nn.GRU if kind == "gru" else nn.RNN
        self.layer = made(1, hidden, batch_first=True)
        self.level = nn.Linear(hidden, 1)

    def forward(self, valve: Tensor, level: Tensor) -> Any:
        begins = torch.tanh(self.first(level))[None]
        return self.level(self.layer(valve, begins)[0])


@healthy("a tank that begins at a measured level", held_out=True)
def tank(rng: np.random.Generator) -> Planted:
    time = between(rng, 14, 30)

    def draw(rows: int) -> tuple[Any, Loss]:
        valve = np.repeat(rng.uniform(-1.5, 1.5, (rows, -(-time // 4), 1)), 4, 1)[:, :time]
        first = rng.uniform(-1.5, 1.5, (rows, 1))
        level, levels = first, []
        for t in range(time):
            level = level + 0.25 * (valve[:, t] - level) - 0.05 * level**3
            levels.append(level)
        return (floats(valve), floats(first)), squared(floats(np.stack(levels, 1)))

    model = Tank(one_of(rng, "rnn", "gru"), width(rng, 12, 40))
    return trained(rng, model, draw, steps=180, causal=True)


class Handwriting(nn.Module):
    """Mixtures of where a pen goes next; all layers read it, all are read (Graves 2013)."""

    def __init__(self, hidden: int, mixtures: int) -> None:
        super().__init__()
        self.mixtures = mixtures
        self.layers = nn.ModuleList(
            nn.LSTM(3 if k == 0 else 3 + hidden, hidden, batch_first=True) for k in range(3)
        )
        self.out = nn.Linear(3 * hidden, 6 * mixtures + 1)

    def forward(self, strokes: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        """Return log shares, means, log scales, correlations and the log odds of a lift."""
        read, states = strokes, []
        for layer in self.layers:
            states.append(packed(layer, read, lengths)[0])
            read = torch.cat([strokes, states[-1]], dim=-1)
        k = self.mixtures
        share, mean, scale, rho, lift = self.out(torch.cat(states, dim=-1)).split(
            [k, 2 * k, 2 * k, k, 1], dim=-1
        )
        mean, scale = mean.unflatten(-1, (k, 2)), scale.unflatten(-1, (k, 2))
        return share.log_softmax(-1), mean, scale, 0.95 * torch.tanh(rho), lift.squeeze(-1)


@healthy("where a pen goes next", held_out=True)
def handwriting(rng: np.random.Generator) -> Planted:
    time = between(rng, 12, 60)

    def draw(rows: int) -> tuple[Any, Loss]:
        lengths = lengths_of(rng, rows, time, 6)
        own = valid(lengths, time)
        turn = rng.uniform(0.3, 0.9, (rows, 1)) * np.arange(time + 1) + rng.random((rows, 1)) * 6
        moved = np.stack([np.cos(turn) + 0.3, np.sin(2 * turn)], -1)
        moved += 0.1 * rng.standard_normal(moved.shape)
        lifted = np.sin(turn) > 0.85
        x = floats(np.concatenate([moved, lifted[..., None]], -1))

        def loss(given: Any) -> Tensor:
            share, mean, scale, rho, lift = given
            z = (x[:, 1:, None, :2] - mean) / scale.exp()
            spread = 1 - rho.square()
            square = (z.square().sum(-1) - 2 * rho * z[..., 0] * z[..., 1]) / spread
            density = -0.5 * square - scale.sum(-1) - 0.5 * spread.log() - math.log(2 * math.pi)
            strokes = -torch.logsumexp(share + density, dim=-1)
            ends = functional.binary_cross_entropy_with_logits(lift, x[:, 1:, 2], reduction="none")
            return mean_where(strokes + ends, own)

        return (torch.where(own[..., None], x[:, :-1], 0.0), lengths), loss

    model = Handwriting(width(rng, 16, 128), between(rng, 3, 8))
    return fresh(rng, model, draw, causal=True)


class Catchment(nn.Module):
    """An LSTM whose input gate only knows the catchment (EA-LSTM, Kratzert et al. 2019)."""

    def __init__(self, weather: int, attributes: int, hidden: int) -> None:
        super().__init__()
        self.input_gate = nn.Linear(attributes, hidden)
        self.read = nn.Linear(weather, 3 * hidden)
        self.recur = nn.Linear(hidden, 3 * hidden, bias=False)
        for block in self.recur.weight.data.chunk(3):
            nn.init.orthogonal_(block)
        nn.init.constant_(self.read.bias.data[:hidden], 2.0)
        self.runoff = nn.Linear(hidden, 1)

    def forward(self, weather: Tensor, attributes: Tensor) -> Any:
        i = torch.sigmoid(self.input_gate(attributes))
        h = c = torch.zeros_like(i)
        states, read = [], self.read(weather)
        for t in range(weather.shape[1]):
            f, g, o = (read[:, t] + self.recur(h)).chunk(3, dim=1)
            c = torch.sigmoid(f) * c + i * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            states.append(h)
        return self.runoff(torch.stack(states, dim=1)).squeeze(-1)


@healthy("the runoff of catchments that differ", held_out=True)
def catchments(rng: np.random.Generator) -> Planted:
    time = between(rng, 14, 28)

    def draw(rows: int) -> tuple[Any, Loss]:
        attributes = rng.uniform(-1.5, 1.5, (rows, 4))
        slow = 1 / (1 + np.exp(-1.2 * attributes[:, 0] - 0.5))
        rain, warm = rng.standard_normal((2, rows, time))
        store, flow = np.zeros(rows), []
        for t in range(time):
            store = slow * store + (1 - slow) * (rain[:, t] - 0.4 * np.tanh(warm[:, t])) * 2
            flow.append(store + 0.2 * attributes[:, 1])
        weather = floats(np.stack([rain, warm], -1))
        return (weather, floats(attributes)), squared(floats(np.stack(flow, 1)))

    model = Catchment(2, 4, width(rng, 12, 40))
    return trained(rng, model, draw, steps=200, held_back=True, causal=True)


class Imputer(nn.Module):
    """Values that were not measured are read as the model expected them (Cao et al. 2018)."""

    def __init__(self, series: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.cell = nn.GRUCell(2 * series, hidden)
        self.expect = nn.Linear(hidden, series)

    def forward(self, values: Tensor, measured: Tensor) -> Tensor:
        """Return what was expected of each step before it was read, [B, T, D]."""
        h, expected = values.new_zeros(len(values), self.hidden), []
        for t in range(values.shape[1]):
            expected.append(self.expect(h))
            filled = torch.where(measured[:, t], values[:, t], expected[-1])
            h = self.cell(torch.cat([filled, measured[:, t].to(values.dtype)], dim=1), h)
        return torch.stack(expected, dim=1)


@healthy("gaps filled with what was expected", held_out=True)
def imputed(rng: np.random.Generator) -> Planted:
    time, series = between(rng, 14, 28), between(rng, 2, 4)

    def draw(rows: int) -> tuple[Any, Loss]:
        x = floats(waves(rng, rows, time, series))
        measured = torch.as_tensor(rng.random(x.shape) < 0.7)

        def loss(expected: Any) -> Tensor:
            return mean_where((expected - x).square(), measured)

        return {"values": torch.where(measured, x, 0.0), "measured": measured}, loss

    model = Imputer(series, width(rng, 16, 48))
    return trained(rng, model, draw, steps=200, held_back=True, causal=True)


class Machines(nn.Module):
    """Layers that are scaled and shifted by the kind of the machine (FiLM)."""

    def __init__(self, layer: nn.Module, kinds: int, hidden: int) -> None:
        super().__init__()
        self.layer = layer
        self.film = nn.Embedding(kinds, 2 * hidden)
        nn.init.normal_(self.film.weight, std=0.1)
        self.out = nn.Sequential(nn.Linear(hidden, 24), nn.ReLU(), nn.Linear(24, 1))

    def forward(self, x: Tensor, machine: Tensor) -> Any:
        scale, shift = self.film(machine)[:, None].chunk(2, dim=-1)
        return self.out((1 + scale) * self.layer(x)[0] + shift).squeeze(-1)


@healthy("signals of machines of several kinds", held_out=True)
def machines(rng: np.random.Generator) -> Planted:
    time, kinds, hidden = between(rng, 14, 28), between(rng, 2, 5), width(rng, 12, 40)
    mix = rng.standard_normal((kinds, 2))

    def draw(rows: int) -> tuple[Any, Loss]:
        kind = rng.integers(0, kinds, rows)
        x = rng.standard_normal((rows, time, 2))
        kept, heat = np.zeros((rows, 2)), []
        for t in range(time):
            kept = 0.7 * kept + 0.7 * x[:, t]
            heat.append(0.6 * (kept * mix[kind]).sum(1))
        return (floats(x), whole(kind)), squared(floats(np.stack(heat, 1)))

    model = Machines(layer_of(rng, 2, hidden), kinds, hidden)
    return trained(rng, model, draw, steps=220, rate=1.5e-2, causal=True)


class Hourglass(nn.Module):
    """GRUs over all steps, half and a quarter of them, and back up with short cuts."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()

        def both(inputs: int) -> nn.GRU:
            return nn.GRU(inputs, hidden // 2, batch_first=True, bidirectional=True)

        self.down, self.middle, self.bottom = both(channels), both(hidden), both(hidden)
        self.up, self.top = both(2 * hidden), both(2 * hidden)
        self.out = nn.Linear(hidden, 2)

    def forward(self, x: Tensor) -> Any:
        fine, _ = self.down(x)
        half, _ = self.middle(halved(fine))
        low, _ = self.bottom(halved(half))
        raised, _ = self.up(torch.cat([half, low.repeat_interleave(2, dim=1)], dim=-1))
        return self.out(self.top(torch.cat([fine, raised.repeat_interleave(2, 1)], dim=-1))[0])


def halved(x: Tensor) -> Tensor:
    return functional.avg_pool1d(x.transpose(1, 2), 2).transpose(1, 2)


@healthy("artefacts in a recording, seen coarse and fine", held_out=True)
def hourglass(rng: np.random.Generator) -> Planted:
    time, channels = 4 * between(rng, 5, 20), between(rng, 2, 6)

    def draw(rows: int) -> tuple[Any, Loss]:
        x = waves(rng, rows, time, channels)
        spoilt = np.repeat(rng.random((rows, time // 4)) < 0.3, 4, 1)
        x = np.where(spoilt[..., None], 1.5 * rng.standard_normal(x.shape), x)
        return (floats(x),), tagged(whole(spoilt))

    return fresh(rng, Hourglass(channels, 2 * between(rng, 8, 48)), draw, causal=False)
