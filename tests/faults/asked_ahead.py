"""Losses that ask for what the model was given, or will be: next steps, own steps, next rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.faults.building import Sizes, sizes, tokens, torch_layer
from tests.faults.plant import Planted, fault

SYMBOLS = 11


class NextSymbol(nn.Module):
    """A language model [B, T] to [B, T, V]; `mix` is what looks over the states."""

    def __init__(self, layer: nn.Module, hidden: int, mix: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.embed, self.layer, self.mix = nn.Embedding(SYMBOLS, 8), layer, mix
        self.head = nn.Linear(hidden, SYMBOLS)

    def forward(self, codes: Tensor) -> Tensor:
        return self.head(self.mix(self.layer(self.embed(codes))[0]))


def text(rng: np.random.Generator, has: Sizes) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Draw symbols [B, T] and the loss of the symbols that follow them, smoothed or not."""
    codes = torch.as_tensor(rng.integers(0, SYMBOLS, (has.rows, has.steps + 1)))
    smoothing = float(rng.choice([0.0, 0.1]))

    def loss(scores: Tensor) -> Tensor:
        return functional.cross_entropy(
            scores.transpose(1, 2), codes[:, 1:], label_smoothing=smoothing
        )

    return codes[:, :-1], loss


@fault("a language model of both directions that is asked for the next symbol", "HS111")
def both_directions(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng, steps=10)
    codes, loss = text(rng, has)
    layer = torch_layer(rng, 8, has.hidden, bidirectional=not remedied)
    wide = has.hidden if remedied else 2 * has.hidden
    return Planted(NextSymbol(layer, wide, nn.Identity()), (codes,), loss)


class Attending(nn.Module):
    def __init__(self, hidden: int, masked: bool) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(hidden, 2, batch_first=True)
        self.masked = masked

    def forward(self, h: Tensor) -> Tensor:
        later = torch.ones(h.shape[1], h.shape[1], dtype=torch.bool).triu(1)
        mask = later if self.masked else None
        return h + self.attend(h, h, h, attn_mask=mask, need_weights=False)[0]


@fault("attention of torch's over a language model's states, without a mask", "HS111")
def attending(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng, steps=10)
    codes, loss = text(rng, has)
    hidden = 2 * (has.hidden // 2)
    module = NextSymbol(torch_layer(rng, 8, hidden), hidden, Attending(hidden, remedied))
    return Planted(module, (codes,), loss)


class Smoothing(nn.Module):
    """A convolution over the series, its padding on both sides or in front."""

    def __init__(self, rng: np.random.Generator, has: Sizes, width: int, back: bool) -> None:
        super().__init__()
        self.around = (2, 0) if back else (1, 1)
        self.convolve = nn.Conv1d(has.features, has.features, 3)
        self.layer = torch_layer(rng, has.features, has.hidden)
        self.head = nn.Linear(has.hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        near = self.convolve(functional.pad(x.transpose(1, 2), self.around)).relu()
        return self.head(self.layer(near.transpose(1, 2))[0])


@fault("a convolution on both sides of a series whose next value is asked", "HS111")
def smoothed(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng, steps=12)
    x = torch.randn(has.rows, has.steps + 1, has.features).cumsum(1)
    one = bool(rng.integers(2))
    module = Smoothing(rng, has, 1 if one else has.features, remedied)
    answers = x[:, 1:, :1] if one else x[:, 1:]
    return Planted(module, (x[:, :-1],), lambda y: functional.smooth_l1_loss(y, answers))


class MeanAndScale(nn.Module):
    def __init__(self, rng: np.random.Generator, hidden: int) -> None:
        super().__init__()
        self.layer, self.head = torch_layer(rng, 1, hidden), nn.Linear(hidden, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, scale = self.head(self.layer(x.unsqueeze(-1))[0]).unbind(-1)
        return mean, scale


@fault("mean and scale of the value that was just read", "HS106")
def likelihood(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng, steps=10)
    x = torch.randn(has.rows, has.steps + 1).cumsum(1)
    answers = x[:, 1:] if remedied else x[:, :-1]

    def loss(y: tuple[Tensor, Tensor]) -> Tensor:
        return functional.gaussian_nll_loss(y[0], answers, y[1].exp())

    return Planted(MeanAndScale(rng, has.hidden), (x[:, :-1],), loss)


@fault("smoothed labels that are the symbols just read", "HS106")
def smoothed_labels(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng, steps=10)
    codes = torch.as_tensor(rng.integers(0, SYMBOLS, (has.rows, has.steps + 1)))
    answers = codes[:, 1:] if remedied else codes[:, :-1]

    def loss(scores: Tensor) -> Tensor:
        return functional.cross_entropy(scores.transpose(1, 2), answers, label_smoothing=0.1)

    module = NextSymbol(torch_layer(rng, 8, has.hidden), has.hidden, nn.Identity())
    return Planted(module, (codes[:, :-1],), loss)


@fault("batch_first forgotten by a language model", "HS125")
def rows_for_steps(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng, rows=6, steps=10)
    codes, loss = text(rng, has)
    layer = torch_layer(rng, 8, has.hidden, batch_first=remedied)
    return Planted(NextSymbol(layer, has.hidden, nn.Identity()), (codes,), loss)


class Translating(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(SYMBOLS, 8, padding_idx=0)
        self.encoder, self.decoder = (nn.GRU(8, hidden, batch_first=True) for _ in range(2))
        self.head = nn.Linear(hidden, SYMBOLS)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.head(self.decoder(self.embed(target), self.encoder(self.embed(source))[1])[0])


@fault("a decoder that is taught to write padding", "HS104")
def taught_padding(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng, steps=8)
    source = torch.as_tensor(rng.integers(1, SYMBOLS, (has.rows, has.steps + 4)))
    answers = tokens(rng, has, SYMBOLS)
    fed = functional.pad(answers[:, :-1], (1, 0), value=1)
    ignored = 0 if remedied else -100

    def loss(scores: Tensor) -> Tensor:
        return functional.cross_entropy(scores.transpose(1, 2), answers, ignore_index=ignored)

    return Planted(Translating(has.hidden), (source, fed), loss)


@fault("targets [B] beside the outputs [B, 1] of a likelihood", "HS121")
def crossed(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    x = torch.randn(has.rows, has.steps, 1)
    answers = x[:, -2:, 0].sum(1, keepdim=remedied)
    wrong = bool(rng.integers(2))

    def loss(y: Tensor) -> Tensor:
        if wrong:
            return -torch.distributions.Normal(y, 1.0).log_prob(answers).mean()
        return functional.l1_loss(y, answers)

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = torch_layer(rng, 1, has.hidden), nn.Linear(has.hidden, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.layer(x)[0][:, -1])

    return Planted(Last(), (x,), loss)
