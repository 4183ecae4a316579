"""Healthy models of melodies, visits, baskets and other rows of events, written blind."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.faults.blind_well_parts import (
    IGNORED,
    Loss,
    floats,
    fresh,
    layer_of,
    lengths_of,
    mean_over,
    mean_where,
    packed,
    tables,
    tagged,
    text,
    trained,
    valid,
    whole,
    width,
)
from tests.faults.held_out_parts import between
from tests.faults.plant import Planted, healthy


class Melody(nn.Module):
    """The pitch and the duration of the next note from those of the notes so far."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.pitch, self.duration = nn.Embedding(12, 12), nn.Embedding(4, 4)
        self.gru = nn.GRU(16, hidden, 2, batch_first=True, dropout=0.1)
        self.next_pitch, self.next_duration = nn.Linear(hidden, 12), nn.Linear(hidden, 4)

    def forward(self, pitch: Tensor, duration: Tensor) -> tuple[Tensor, Tensor]:
        notes = torch.cat([self.pitch(pitch), self.duration(duration)], dim=-1)
        states, _ = self.gru(notes)
        return self.next_pitch(states), self.next_duration(states)


@healthy("melodies of pitches and durations", held_out=True)
def melody(rng: np.random.Generator) -> Planted:
    time = between(rng, 14, 28)
    motifs = rng.integers(0, 12, (3, 5))
    rhythms = rng.integers(0, 4, (3, 5))

    def draw(rows: int) -> tuple[Any, Loss]:
        motif, begin = rng.integers(0, 3, (rows, 1)), rng.integers(0, 5, (rows, 1))
        at = (begin + np.arange(time + 1)) % 5
        pitch = np.where(
            rng.random(at.shape) < 0.05, rng.integers(0, 12, at.shape), motifs[motif, at]
        )
        p, d = whole(pitch), whole(rhythms[motif, at])

        def loss(given: Any) -> Tensor:
            return tagged(p[:, 1:])(given[0]) + tagged(d[:, 1:])(given[1])

        return (p[:, :-1], d[:, :-1]), loss

    return trained(rng, Melody(width(rng, 24, 48)), draw, steps=150, causal=True)


class PageAndStay(nn.Module):
    """Which page is next, and how long the reader will stay there (log-normal)."""

    def __init__(self, layer: nn.Module, pages: int, hidden: int) -> None:
        super().__init__()
        self.pages = nn.Embedding(pages, 15, padding_idx=0)
        self.layer = layer
        self.next = nn.Linear(hidden, pages)
        self.stay = nn.Linear(hidden, 2)

    def forward(self, pages: Tensor, stays: Tensor, lengths: Tensor) -> Any:
        x = torch.cat([self.pages(pages), torch.log(stays)[..., None]], dim=-1)
        states, _ = packed(self.layer, x, lengths)
        mean, log_scale = self.stay(states).unbind(dim=-1)
        return {"next": self.next(states), "mean": mean, "log_scale": log_scale}


@healthy("the next page and the stay on it", held_out=True)
def pages(rng: np.random.Generator) -> Planted:
    time, hidden, count = between(rng, 8, 18), width(rng, 16, 48), 12
    chances = tables(rng, 2, count)

    def draw(rows: int) -> tuple[Any, Loss]:
        lengths = lengths_of(rng, rows, time, 4)
        own = valid(lengths, time)
        x, kind = text(rng, chances, rows, time + 1)
        slow = rng.normal(0, 0.7, (rows, 1)) + kind[:, None] - 0.5
        log_stays = floats(slow + 0.25 * rng.standard_normal((rows, time + 1)))
        tags = torch.where(own, whole(x[:, 1:] + 1), IGNORED)
        batch = (
            torch.where(own, whole(x[:, :-1] + 1), 0),
            torch.where(own, log_stays[:, :-1].exp(), 1.0),
            lengths,
        )

        def loss(given: Any) -> Tensor:
            error = (log_stays[:, 1:] - given["mean"]) / given["log_scale"].exp()
            stay = 0.5 * error.square() + given["log_scale"] + 0.5 * math.log(2 * math.pi)
            return tagged(tags)(given["next"]) + mean_where(stay, own)

        return batch, loss

    layer = layer_of(rng, 16, hidden, kinds=("lstm", "gru"))
    model = PageAndStay(layer, count + 1, hidden)
    return trained(rng, model, draw, steps=200, held_back=True, causal=True)


class NextBasket(nn.Module):
    """Log odds of every item in the next basket; a basket is the mean of its items."""

    def __init__(self, items: int, hidden: int) -> None:
        super().__init__()
        self.basket = nn.EmbeddingBag(items, 16, mode="mean", padding_idx=0)
        self.gru = nn.GRU(16, hidden, batch_first=True)
        self.items = nn.Linear(hidden, items)

    def forward(self, baskets: Tensor, lengths: Tensor) -> Any:
        rows, time, _ = baskets.shape
        x = self.basket(baskets.flatten(0, 1)).view(rows, time, -1)
        return self.items(packed(self.gru, x, lengths)[0])


@healthy("the next basket of a customer", held_out=True)
def baskets(rng: np.random.Generator) -> Planted:
    time, items = between(rng, 6, 12), 24

    def draw(rows: int) -> tuple[Any, Loss]:
        # A customer of either habit goes round three shelves of four items each.
        lengths = lengths_of(rng, rows, time, 3)
        habit, begin = rng.integers(0, 2, (rows, 1)), rng.integers(0, 3, (rows, 1))
        shelf = 3 * habit + (begin + np.arange(time + 1)) % 3
        taken = rng.permuted(np.tile(np.arange(4), (rows, time + 1, 1)), axis=-1)[..., :3]
        bought = 1 + 4 * shelf[..., None] + taken
        bought[..., 2] *= rng.random((rows, time + 1)) < 0.5
        own = valid(lengths, time)
        held = functional.one_hot(whole(bought[:, 1:]), items + 1).amax(2).float()
        held[..., 0] = 0.0

        def loss(given: Any) -> Tensor:
            each = functional.binary_cross_entropy_with_logits(given, held, reduction="none")
            return mean_where(each.mean(-1), own)

        return (torch.where(own[..., None], whole(bought[:, :-1]), 0), lengths), loss

    model = NextBasket(items + 1, width(rng, 16, 48))
    return trained(rng, model, draw, steps=150, held_back=True, causal=True)


class Fraud(nn.Module):
    """Log odds that a payment is a fraud, given the payments of the card before it."""

    def __init__(self, layer: nn.Module, hidden: int) -> None:
        super().__init__()
        self.shop, self.country = nn.Embedding(9, 6, padding_idx=0), nn.Embedding(6, 4)
        self.front = nn.Linear(12, 24)
        self.layer = layer
        self.odds = nn.Sequential(nn.Linear(hidden + 24, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, shop: Tensor, country: Tensor, amounts: Tensor, lengths: Tensor) -> Any:
        each = torch.cat([self.shop(shop), self.country(country), amounts], dim=-1)
        front = torch.relu(self.front(each))
        states, _ = packed(self.layer, front, lengths)
        return self.odds(torch.cat([states, front], dim=-1)).squeeze(-1)


@healthy("frauds among the payments of a card", held_out=True)
def fraud(rng: np.random.Generator) -> Planted:
    time, hidden = between(rng, 8, 20), width(rng, 16, 40)

    def draw(rows: int) -> tuple[Any, Loss]:
        lengths = lengths_of(rng, rows, time, 4)
        own = valid(lengths, time)
        home = rng.integers(0, 6, (rows, 1))
        away = rng.random((rows, time)) < 0.2
        away[:, 0] = False
        country = np.where(away, (home + rng.integers(1, 6, away.shape)) % 6, home)
        shop = rng.integers(1, 9, away.shape)
        amounts = 0.8 * rng.standard_normal((rows, time, 2))
        target = floats(away & (amounts[..., 0] > -0.4))

        def loss(odds: Any) -> Tensor:
            each = functional.binary_cross_entropy_with_logits(odds, target, reduction="none")
            return mean_where(each, own)

        batch = {
            "shop": torch.where(own, whole(shop), 0),
            "country": torch.where(own, whole(country), 0),
            "amounts": torch.where(own[..., None], floats(amounts), 0.0),
            "lengths": lengths,
        }
        return batch, loss

    layer = layer_of(rng, 24, hidden, kinds=("lstm", "gru"))
    return trained(rng, Fraud(layer, hidden), draw, steps=250, causal=True)


class RemainingTime(nn.Module):
    """Days until a case is closed, as log(1 + days), after each of its events."""

    def __init__(self, layer: nn.Module, activities: int, hidden: int) -> None:
        super().__init__()
        self.activity = nn.Embedding(activities, 10, padding_idx=0)
        self.layer = layer
        self.norm = nn.LayerNorm(hidden)
        self.left = nn.Linear(hidden, 1)

    def forward(self, activity: Tensor, elapsed: Tensor, mask: Tensor) -> Any:
        x = torch.cat([self.activity(activity), elapsed[..., None]], dim=-1)
        states, _ = packed(self.layer, x, mask.sum(dim=1))
        return functional.softplus(self.left(self.norm(states))).squeeze(-1)


@healthy("the remaining time of a case, with a mask", held_out=True)
def remaining_time(rng: np.random.Generator) -> Planted:
    time, hidden = between(rng, 6, 14), width(rng, 16, 40)

    def draw(rows: int) -> tuple[Any, Loss]:
        lengths = lengths_of(rng, rows, time, 3)
        own = valid(lengths, time)
        # The first activity says how fast this kind of case goes, later ones how far it is.
        speed = rng.integers(0, 3, (rows, 1))
        left = lengths.numpy()[:, None] - 1 - np.arange(time)
        activity = np.where(np.arange(time) == 0, 1 + speed, 4 + np.minimum(left, 5))
        days = (left * 2.0**speed).clip(min=0)
        elapsed = np.log1p(np.arange(time) * 2.0**speed * rng.uniform(0.9, 1.1, (rows, time)))
        target = floats(np.log1p(days))
        batch = {
            "activity": torch.where(own, whole(activity), 0),
            "elapsed": torch.where(own, floats(elapsed - 1.5), 0.0),
            "mask": own,
        }

        def loss(given: Any) -> Tensor:
            return mean_where((given - target).abs(), own)

        return batch, loss

    layer = layer_of(rng, 11, hidden, kinds=("lstm", "gru"))
    model = RemainingTime(layer, 10, hidden)
    return trained(rng, model, draw, steps=180, held_back=True, causal=True)


class TwoAttentions(nn.Module):
    """Visits weighed by two GRUs that read back in time (RETAIN, Choi et al. 2016)."""

    def __init__(self, codes: int, size: int, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Linear(codes, size, bias=False)
        self.visits = nn.GRU(size, hidden, batch_first=True)
        self.features = nn.GRU(size, hidden, batch_first=True)
        self.weight = nn.Linear(hidden, 1, bias=False)
        self.gate = nn.Linear(hidden, size)
        self.out = nn.Linear(size, 2)

    def forward(self, codes: Tensor, lengths: Tensor) -> Any:
        time = codes.shape[1]
        steps, own = torch.arange(time), valid(lengths, time)
        back = torch.where(own, lengths[:, None] - 1 - steps, steps)
        visits = self.embed(codes)
        turned = torch.take_along_dim(visits, back[..., None], dim=1)
        a, _ = packed(self.visits, turned, lengths)
        b, _ = packed(self.features, turned, lengths)
        weights = self.weight(a).masked_fill(~own[..., None], -1e9).softmax(dim=1)
        return self.out((weights * torch.tanh(self.gate(b)) * turned).sum(dim=1))


@healthy("visits weighed back in time", held_out=True)
def two_attentions(rng: np.random.Generator) -> Planted:
    time, codes = between(rng, 6, 30), between(rng, 10, 30)

    def draw(rows: int) -> tuple[Any, Loss]:
        lengths = lengths_of(rng, rows, time)
        own = valid(lengths, time)[..., None]
        given = floats(rng.random((rows, time, codes)) < 0.25) * own
        recent = given[:, :, 0].sum(1) + 2 * given[torch.arange(rows), lengths - 1, 1]
        return (given, lengths), tagged((recent > recent.median()).long())

    model = TwoAttentions(codes, between(rng, 16, 48), width(rng, 16, 96))
    return fresh(rng, model, draw, causal=False)


class Interest(nn.Module):
    """What a user came to want, seen from an item on offer (DIEN, Zhou et al. 2019)."""

    def __init__(self, items: int, hidden: int) -> None:
        super().__init__()
        self.items = nn.Embedding(items, hidden, padding_idx=0)
        self.extract = nn.GRU(hidden, hidden, batch_first=True)
        self.evolve = nn.GRUCell(hidden, hidden)
        self.look = nn.Linear(hidden, hidden, bias=False)
        self.out = nn.Sequential(nn.Linear(3 * hidden, 32), nn.PReLU(), nn.Linear(32, 1))

    def forward(self, clicks: Tensor, lengths: Tensor, offer: Tensor) -> Any:
        own, items = valid(lengths, clicks.shape[1]), self.items(clicks)
        states, _ = packed(self.extract, items, lengths)
        target = self.items(offer)
        fit = torch.einsum("bth,bh->bt", self.look(states), target) / target.shape[1] ** 0.5
        attention = torch.sigmoid(fit)
        h = torch.zeros_like(target)
        for t in range(clicks.shape[1]):
            moved = self.evolve(states[:, t], h)
            share = attention[:, t, None]
            h = torch.where(own[:, t, None], (1 - share) * h + share * moved, h)
        bag = mean_over(items, own)
        return self.out(torch.cat([h, target, bag], dim=1)).squeeze(1)


@healthy("interests that evolve towards an offer", held_out=True)
def interest(rng: np.random.Generator) -> Planted:
    time, items = between(rng, 6, 24), between(rng, 20, 40)

    def draw(rows: int) -> tuple[Any, Loss]:
        lengths = lengths_of(rng, rows, time)
        clicks, offer = rng.integers(1, items, (rows, time)), rng.integers(1, items, rows)
        last = clicks[np.arange(rows), lengths.numpy() - 1]
        bought = floats(last % 3 == offer % 3)
        batch = (torch.where(valid(lengths, time), whole(clicks), 0), lengths, whole(offer))
        return batch, lambda odds: functional.binary_cross_entropy_with_logits(odds, bought)

    return fresh(rng, Interest(items, width(rng, 12, 64)), draw, causal=False)
