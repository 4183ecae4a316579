"""Healthy models that rank, compare, wait for events or act, written blind."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.faults.blind_well_parts import (
    IGNORED,
    LOWEST,
    Loss,
    at_last,
    floats,
    fresh,
    layer_of,
    lengths_of,
    mean_where,
    packed,
    tables,
    tagged,
    text,
    trained,
    valid,
    waves,
    whole,
    width,
)
from tests.faults.held_out_parts import between
from tests.faults.plant import Planted, healthy


class Typist(nn.Module):
    """Vectors of length 1 for three samples of typing, by one encoder."""

    def __init__(self, layer: nn.Module, hidden: int) -> None:
        super().__init__()
        self.layer = layer
        self.out = nn.Linear(hidden, 16)

    def vector(self, keys: Tensor) -> Tensor:
        return functional.normalize(self.out(self.layer(keys)[0].mean(dim=1)), dim=1)

    def forward(self, anchor: Tensor, same: Tensor, other: Tensor) -> tuple[Tensor, ...]:
        return self.vector(anchor), self.vector(same), self.vector(other)


@healthy("who is typing, by soft triplets", held_out=True)
def typists(rng: np.random.Generator) -> Planted:
    time, hidden = between(rng, 10, 20), width(rng, 16, 48)

    def draw(rows: int) -> tuple[Any, Loss]:
        # A person types with a rhythm of four keys, begun anywhere.
        rhythm = 0.9 * rng.standard_normal((2, rows, 4, 3))

        def sample(of: Any) -> Tensor:
            at = (rng.integers(0, 4, (rows, 1)) + np.arange(time)) % 4
            x = np.take_along_axis(of, at[..., None], 1)
            return floats(x + 0.7 * rng.standard_normal(x.shape))

        batch = sample(rhythm[0]), sample(rhythm[0]), sample(rhythm[1])

        def loss(given: Any) -> Tensor:
            anchor, same, other = given
            near, far = ((anchor - each).square().sum(1) for each in (same, other))
            return functional.softplus(4 * (near - far)).mean()

        return batch, loss

    model = Typist(layer_of(rng, 3, hidden, kinds=("lstm", "gru")), hidden)
    return trained(rng, model, draw, steps=180, held_back=True)


class PredictiveCoding(nn.Module):
    """Codes of frames, and what the past says of the codes to come (van den Oord et al. 2018)."""

    def __init__(self, samples: int, code: int, hidden: int, ahead: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(samples, 64), nn.ReLU(), nn.Linear(64, code))
        self.gru = nn.GRU(code, hidden, batch_first=True)
        self.predictors = nn.ModuleList(nn.Linear(hidden, code, bias=False) for _ in range(ahead))

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return codes [B, T, C] and predictions [B, T, K, C] of the K codes that follow."""
        codes = self.encoder(frames)
        states, _ = self.gru(codes)
        return codes, torch.stack([each(states) for each in self.predictors], dim=2)


@healthy("codes of frames that the past foretells", held_out=True)
def predictive_coding(rng: np.random.Generator) -> Planted:
    time, samples, ahead = between(rng, 8, 30), between(rng, 10, 20), between(rng, 2, 4)

    def draw(rows: int) -> tuple[Any, Loss]:
        x = floats(waves(rng, rows, time * samples, 1).reshape(rows, time, samples))

        def loss(given: Any) -> Any:
            codes, foretold = given
            total = codes.new_zeros(())
            for k in range(ahead):
                scores = torch.einsum("btc,dtc->tbd", foretold[:, : -k - 1, k], codes[:, k + 1 :])
                own = torch.arange(scores.shape[1]).expand(scores.shape[0], -1)
                total = total + tagged(own)(scores)
            return total / ahead

        return (x,), loss

    model = PredictiveCoding(samples, between(rng, 8, 32), width(rng, 16, 128), ahead)
    return fresh(rng, model, draw, causal=True)


class NextTrack(nn.Module):
    """Scores [B, T, K] of the tracks on offer after each track of a session."""

    def __init__(self, layer: nn.Module, tracks: int, hidden: int) -> None:
        super().__init__()
        self.tracks = nn.Embedding(tracks, 24, padding_idx=0)
        self.layer = layer
        self.wants = nn.Linear(hidden, 24)

    def forward(self, played: Tensor, lengths: Tensor, offered: Tensor) -> Any:
        states, _ = packed(self.layer, self.tracks(played), lengths)
        return (self.tracks(offered) @ self.wants(states)[..., None]).squeeze(-1) / 24**0.5


@healthy("the next track among those on offer", held_out=True)
def next_track(rng: np.random.Generator) -> Planted:
    time, hidden, tracks, offers = between(rng, 6, 14), width(rng, 16, 48), 20, 5
    chances = tables(rng, 2, tracks)

    def draw(rows: int) -> tuple[Any, Loss]:
        lengths = lengths_of(rng, rows, time)
        own = valid(lengths, time)
        x, _ = text(rng, chances, rows, time + 1)
        offered = rng.integers(0, tracks - 1, (rows, time, offers))
        offered += offered >= x[:, 1:, None]
        place = rng.integers(0, offers, (rows, time))
        np.put_along_axis(offered, place[..., None], x[:, 1:, None], 2)
        batch = (
            torch.where(own, whole(x[:, :-1] + 1), 0),
            lengths,
            torch.where(own[..., None], whole(offered + 1), 0),
        )
        return batch, tagged(torch.where(own, whole(place), IGNORED))

    layer = layer_of(rng, 24, hidden, kinds=("lstm", "gru"))
    model = NextTrack(layer, tracks + 1, hidden)
    return trained(rng, model, draw, steps=200, held_back=True, causal=True)


class Survival(nn.Module):
    """Log odds [B, K] of the event in each of K months, given that it has not come before."""

    def __init__(self, layer: nn.Module, hidden: int, months: int) -> None:
        super().__init__()
        self.layer = layer
        self.hazards = nn.Sequential(
            nn.Linear(hidden, 24), nn.ReLU(), nn.Dropout(0.1), nn.Linear(24, months)
        )

    def forward(self, visits: Tensor, lengths: Tensor) -> Any:
        return self.hazards(at_last(packed(self.layer, visits, lengths)[0], lengths))


@healthy("months of survival after a row of visits", held_out=True)
def survival(rng: np.random.Generator) -> Planted:
    time, hidden, months = between(rng, 8, 18), width(rng, 12, 40), 6

    def draw(rows: int) -> tuple[Any, Loss]:
        lengths = lengths_of(rng, rows, time, 4)
        own = valid(lengths, time)
        x = rng.standard_normal((rows, time, 3)) + rng.normal(0, 0.8, (rows, 1, 3))
        load = (x[..., 0] * own.numpy()).sum(1) / np.sqrt(lengths.numpy())
        hazard = 1 / (1 + np.exp(1.5 - 1.8 * load))
        event = rng.geometric(hazard) - 1
        leaves = rng.integers(1, 2 * months, rows)
        last = np.minimum(np.minimum(event, leaves), months)[:, None]
        month = np.arange(months)
        happened = floats((month == event[:, None]) & (event < leaves)[:, None])
        at_risk = torch.as_tensor((month < last) | (happened.numpy() > 0))

        def loss(odds: Any) -> Tensor:
            each = functional.binary_cross_entropy_with_logits(odds, happened, reduction="none")
            return mean_where(each, at_risk)

        return (torch.where(own[..., None], floats(x), 0.0), lengths), loss

    layer = layer_of(rng, 3, hidden, kinds=("lstm", "gru"))
    return trained(rng, Survival(layer, hidden, months), draw, steps=150, held_back=True)


class Weibull(nn.Module):
    """Log scale and shape of the time to the next event, at every step (Martinsson 2016)."""

    def __init__(self, layer: nn.Module, hidden: int, usual: float) -> None:
        super().__init__()
        self.layer = layer
        self.scale, self.shape = nn.Linear(hidden, 1), nn.Linear(hidden, 1)
        nn.init.constant_(self.scale.bias, float(np.log(usual)))

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        states, _ = packed(self.layer, x, lengths)
        shape = functional.softplus(self.shape(states)).squeeze(-1) + 0.5
        return self.scale(states).squeeze(-1), shape


@healthy("when the next failure comes, some of them unseen", held_out=True)
def failures(rng: np.random.Generator) -> Planted:
    time, hidden = between(rng, 14, 28), width(rng, 12, 40)

    def draw(rows: int) -> tuple[Any, Loss]:
        lengths = lengths_of(rng, rows, time, 8)
        own = valid(lengths, time)
        period = rng.integers(3, 8, (rows, 1))
        at = (rng.integers(0, 8, (rows, 1)) + np.arange(time)) % period
        failed, left = at == 0, period - at
        seen = np.arange(time) + left < lengths.numpy()[:, None]
        days = np.where(seen, left, lengths.numpy()[:, None] - np.arange(time)).clip(min=1)
        heat = (at / period - 0.5) + 0.4 * rng.standard_normal(at.shape)
        log_days, known = floats(np.log(days)), floats(seen)

        def loss(given: Any) -> Tensor:
            log_scale, shape = given
            z = shape * (log_days - log_scale)
            return mean_where(z.exp() - known * (shape.log() + z - log_days), own)

        x = floats(np.stack([failed, heat], -1))
        return (torch.where(own[..., None], x, 0.0), lengths), loss

    model = Weibull(layer_of(rng, 2, hidden, kinds=("lstm", "gru")), hidden, 3.0)
    return trained(rng, model, draw, steps=180, held_back=True, causal=True)


class CompetingRisks(nn.Module):
    """Log chances [B, R, K] of each cause at each time (Dynamic-DeepHit, Lee et al. 2019)."""

    def __init__(self, layer: nn.Module, features: int, hidden: int, causes: int) -> None:
        super().__init__()
        self.layer = layer
        self.score = nn.Sequential(
            nn.Linear(hidden + features, 32), nn.ReLU(), nn.Linear(32, 1, bias=False)
        )
        self.causes = nn.ModuleList(
            nn.Sequential(nn.Linear(hidden + features, 32), nn.ReLU(), nn.Linear(32, 8))
            for _ in range(causes)
        )

    def forward(self, visits: Tensor, lengths: Tensor) -> Tensor:
        states, _ = packed(self.layer, visits, lengths)
        latest = at_last(visits, lengths)
        beside = latest[:, None].expand(-1, visits.shape[1], -1)
        scores = self.score(torch.cat([states, beside], dim=-1)).squeeze(-1)
        weights = scores.masked_fill(~valid(lengths, visits.shape[1]), LOWEST).softmax(dim=1)
        history = (weights[..., None] * states).sum(dim=1)
        both = torch.cat([history, latest], dim=1)
        logits = torch.stack([cause(both) for cause in self.causes], dim=1)
        return logits.flatten(1).log_softmax(dim=1).view_as(logits)


@healthy("several causes that compete", held_out=True)
def competing(rng: np.random.Generator) -> Planted:
    time, features, hidden = between(rng, 6, 30), between(rng, 3, 8), width(rng, 16, 128)

    def draw(rows: int) -> tuple[Any, Loss]:
        lengths = lengths_of(rng, rows, time)
        own = valid(lengths, time)
        x = rng.standard_normal((rows, time, features)) + rng.normal(0, 1, (rows, 1, features))
        level = (x * own.numpy()[..., None]).sum(1) / lengths.numpy()[:, None]
        cause, when = whole(level[:, 0] > level[:, 1]), whole(level[:, 2] * 2 + 4).clamp(0, 7)
        left = torch.as_tensor(rng.random(rows) < 0.3)

        def loss(given: Any) -> Tensor:
            each = torch.arange(len(given))
            event = given[each, cause, when]
            later = (torch.arange(8) >= when[:, None])[:, None].expand_as(given)
            remains = given.masked_fill(~later, LOWEST).flatten(1).logsumexp(dim=1)
            return -torch.where(left, remains, event).mean()

        return (torch.where(own[..., None], floats(x), 0.0), lengths), loss

    layer = layer_of(rng, features, hidden, kinds=("lstm", "gru"))
    model = CompetingRisks(layer, features, hidden, 2)
    return fresh(rng, model, draw, causal=False)


class Replay(nn.Module):
    """Duelling values of actions from stored states (R2D2, Kapturowski et al. 2019)."""

    def __init__(self, observed: int, actions: int, hidden: int) -> None:
        super().__init__()
        self.actions = actions
        self.front = nn.Sequential(nn.Linear(observed, 32), nn.ReLU())
        self.lstm = nn.LSTM(32 + actions + 1, hidden, batch_first=True)
        self.value = nn.Sequential(nn.Linear(hidden, 32), nn.ReLU(), nn.Linear(32, 1))
        self.advantage = nn.Sequential(nn.Linear(hidden, 32), nn.ReLU(), nn.Linear(32, actions))

    def forward(
        self, observed: Tensor, acted: Tensor, rewards: Tensor, h0: Tensor, c0: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        chosen = functional.one_hot(acted, self.actions).to(observed.dtype)
        x = torch.cat([self.front(observed), chosen, rewards[..., None]], dim=-1)
        states, last = self.lstm(x, (h0, c0))
        advantage = self.advantage(states)
        return self.value(states) + advantage - advantage.mean(dim=-1, keepdim=True), last


@healthy("values of actions from stored states", held_out=True)
def replay(rng: np.random.Generator) -> Planted:
    time, observed, actions = between(rng, 10, 80), between(rng, 4, 10), between(rng, 2, 5)
    model = Replay(observed, actions, width(rng, 24, 256))
    likes = rng.standard_normal((observed, actions)) / np.sqrt(observed)

    def draw(rows: int) -> tuple[Any, Loss]:
        x = floats(waves(rng, rows, 2 * time + 1, observed))
        acts = whole(rng.integers(0, actions, (rows, 2 * time + 1)))
        rewards = (x @ floats(likes)).gather(2, acts[..., None])[..., 0]
        before = functional.pad(acts[:, :-1], (1, 0)), functional.pad(rewards[:, :-1], (1, 0))
        zeros = torch.zeros(1, rows, model.lstm.hidden_size)
        with torch.no_grad():
            # The burn-in of the first half leaves the states that the replay had stored.
            read = x[:, :time], before[0][:, :time], before[1][:, :time]
            _, (h0, c0) = model(*read, zeros, zeros)
        part = slice(time, 2 * time)
        target = rewards[:, part] + 0.9 * rewards[:, time + 1 :]
        taken = acts[:, part, None]

        def loss(given: Any) -> Tensor:
            return functional.smooth_l1_loss(given[0].gather(2, taken)[..., 0], target)

        return (x[:, part], before[0][:, part], before[1][:, part], h0, c0), loss

    return fresh(rng, model, draw, causal=True, states=("h0", "c0"))
