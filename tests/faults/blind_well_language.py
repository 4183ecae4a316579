"""Healthy language models, written blind."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hiddenstate.cells import LSTM
from hiddenstate.nn import Recurrent, Stack, cross_entropy, stack_of
from tests.faults.blind_well_parts import (
    IGNORED,
    LOWEST,
    Loss,
    at_last,
    fresh,
    layer_of,
    lengths_of,
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


def log_likelihood(answers: Tensor) -> Loss:
    """Minus the mean of log probabilities [B, T, V] at the answers [B, T]."""
    return lambda given: functional.nll_loss(given.flatten(0, 1), answers.flatten())


class Highway(nn.Module):
    """x, or a rectified map of it, by a gate that begins mostly shut."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.change = nn.Linear(size, size)
        self.gate = nn.Linear(size, size)
        nn.init.constant_(self.gate.bias, -2.0)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(x))
        return gate * torch.relu(self.change(x)) + (1 - gate) * x


class LettersToWords(nn.Module):
    """Next words from the letters [B, T, L] of the words so far (Kim et al. 2016)."""

    def __init__(self, letters: int, words: int, hidden: int) -> None:
        super().__init__()
        self.letters = nn.Embedding(letters, 15, padding_idx=0)
        self.filters = nn.ModuleList(nn.Conv1d(15, 12 * k, k) for k in (1, 2, 3, 4))
        self.highway = Highway(120)
        self.lstm = nn.LSTM(120, hidden, 2, batch_first=True, dropout=0.5)
        self.dropout = nn.Dropout(0.5)
        self.words = nn.Linear(hidden, words)

    def forward(self, spelled: Tensor) -> Any:
        rows, time, _ = spelled.shape
        letters = self.letters(spelled.flatten(0, 1)).transpose(1, 2)
        found = [torch.tanh(each(letters)).amax(dim=2) for each in self.filters]
        words = self.highway(torch.cat(found, dim=1)).view(rows, time, -1)
        return self.words(self.dropout(self.lstm(words)[0]))


@healthy("next word from the letters of words, with a highway", held_out=True)
def letters_to_words(rng: np.random.Generator) -> Planted:
    time, words = between(rng, 8, 35), between(rng, 20, 50)
    chances = tables(rng, 2, words)
    spelling = rng.integers(1, 20, (words, 7)) * (np.arange(7) < rng.integers(2, 8, (words, 1)))

    def draw(rows: int) -> tuple[Any, Loss]:
        x, _ = text(rng, chances, rows, time + 1)
        return (whole(spelling[x[:, :-1]]),), tagged(whole(x[:, 1:]))

    return fresh(rng, LettersToWords(20, words, width(rng, 32, 200)), draw, causal=True)


class MixtureOfSoftmaxes(nn.Module):
    """Log probabilities of the next word, a mixture of K softmaxes (Yang et al. 2018)."""

    def __init__(self, symbols: int, size: int, hidden: int, experts: int) -> None:
        super().__init__()
        self.experts = experts
        self.words = nn.Embedding(symbols, size)
        self.lstm = nn.LSTM(size, hidden, batch_first=True)
        self.prior = nn.Linear(hidden, experts, bias=False)
        self.latent = nn.Sequential(nn.Linear(hidden, experts * size), nn.Tanh())
        self.decoder = nn.Linear(size, symbols)
        nn.init.uniform_(self.words.weight, -0.1, 0.1)
        self.decoder.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        states, _ = self.lstm(self.words(tokens))
        prior = self.prior(states).log_softmax(dim=-1)
        latent = self.latent(states).unflatten(-1, (self.experts, -1))
        each = self.decoder(latent).log_softmax(dim=-1)
        return torch.logsumexp(prior[..., None] + each, dim=-2)


@healthy("a mixture of softmaxes", held_out=True)
def mixture_of_softmaxes(rng: np.random.Generator) -> Planted:
    time, symbols = between(rng, 10, 50), between(rng, 20, 60)
    chances = tables(rng, 3, symbols)

    def draw(rows: int) -> tuple[Any, Loss]:
        x = whole(text(rng, chances, rows, time + 1)[0])
        return (x[:, :-1],), log_likelihood(x[:, 1:])

    model = MixtureOfSoftmaxes(symbols, between(rng, 16, 64), width(rng, 24, 160), 4)
    return fresh(rng, model, draw, causal=True)


class AdaptiveSoftmax(nn.Module):
    """Log probabilities of frequent words by a large map, of rare ones by small maps."""

    def __init__(self, layer: nn.Module, symbols: int, hidden: int) -> None:
        super().__init__()
        self.words = nn.Embedding(symbols, 48)
        self.layer = layer
        self.dropout = nn.Dropout(0.2)
        self.out = nn.AdaptiveLogSoftmaxWithLoss(
            hidden, symbols, cutoffs=[symbols // 6, symbols // 2], div_value=2.0
        )

    def forward(self, tokens: Tensor) -> Tensor:
        states = self.dropout(self.layer(self.words(tokens))[0])
        return self.out.log_prob(states.flatten(0, 1)).view(*tokens.shape, -1)


@healthy("an adaptive softmax over words of unequal frequency", held_out=True)
def adaptive_softmax(rng: np.random.Generator) -> Planted:
    time, symbols, hidden = between(rng, 16, 60), between(rng, 48, 80), width(rng, 32, 256)
    often = 12.0 / np.arange(2, symbols + 2)
    chances = rng.dirichlet(often, (2, symbols))

    def draw(rows: int) -> tuple[Any, Loss]:
        x = whole(text(rng, chances, rows, time + 1)[0])
        return (x[:, :-1],), log_likelihood(x[:, 1:])

    layer = layer_of(rng, 48, hidden, 2, dropout=0.2, kinds=("lstm", "gru"))
    return fresh(rng, AdaptiveSoftmax(layer, symbols, hidden), draw, causal=True)


class Captioner(nn.Module):
    """A sentence about a picture: its features are the first state, not a first word."""

    def __init__(self, features: int, symbols: int, hidden: int) -> None:
        super().__init__()
        self.first_h = nn.Sequential(nn.Linear(features, hidden), nn.Tanh())
        self.first_c = nn.Sequential(nn.Linear(features, hidden), nn.Tanh())
        self.words = nn.Embedding(symbols, 20, padding_idx=0)
        self.lstm = nn.LSTM(20, hidden, batch_first=True)
        self.out = nn.Linear(hidden, symbols)

    def forward(self, picture: Tensor, words: Tensor) -> Any:
        first = self.first_h(picture).unsqueeze(0), self.first_c(picture).unsqueeze(0)
        return self.out(self.lstm(self.words(words), first)[0])


@healthy("captions that begin from a picture's features", held_out=True)
def captions(rng: np.random.Generator) -> Planted:
    time, features, kinds = between(rng, 6, 14), between(rng, 6, 16), 3
    chances, looks = tables(rng, kinds, 16), rng.standard_normal((kinds, features))

    def draw(rows: int) -> tuple[Any, Loss]:
        kind = rng.integers(0, kinds, rows)
        picture = looks[kind] + 0.4 * rng.standard_normal((rows, features))
        words = text(rng, chances, rows, time, kind)[0] + 2
        words[:, 0] = 2 + kind
        lengths = lengths_of(rng, rows, time, 4)
        answers = torch.where(valid(lengths, time), whole(words), IGNORED)
        begun = np.concatenate([np.ones((rows, 1), int), words[:, :-1]], 1)
        read = torch.where(valid(lengths, time), whole(begun), 0)
        return (torch.as_tensor(picture, dtype=torch.float32), read), tagged(answers)

    model = Captioner(features, 18, width(rng, 16, 48))
    return trained(rng, model, draw, steps=200, held_back=True, causal=True)


class NameGenerator(nn.Module):
    """Next letters of a name of some kind; the kind stands beside every letter."""

    def __init__(self, kinds: int, letters: int, hidden: int) -> None:
        super().__init__()
        self.kind = nn.Embedding(kinds, 6)
        self.letters = nn.Embedding(letters, 16, padding_idx=0)
        self.layers = stack_of("lstm", 22, hidden, peephole=True)
        self.out = nn.Linear(hidden, letters)

    def forward(self, kind: Tensor, letters: Tensor, lengths: Tensor) -> Any:
        beside = self.kind(kind)[:, None].expand(-1, letters.shape[1], -1)
        x = torch.cat([self.letters(letters), beside], dim=-1)
        return self.out(self.layers(x, lengths)[0])


@healthy("names of a given kind, letter by letter", held_out=True)
def generated_names(rng: np.random.Generator) -> Planted:
    time, kinds = between(rng, 7, 14), between(rng, 2, 4)
    chances = tables(rng, kinds, 20)

    def draw(rows: int) -> tuple[Any, Loss]:
        x, kind = text(rng, chances, rows, time + 1)
        lengths = lengths_of(rng, rows, time, 4)
        own = valid(lengths, time)
        read, answers = torch.where(own, whole(x[:, :-1] + 1), 0), whole(x[:, 1:] + 1)
        batch = {"kind": whole(kind), "letters": read, "lengths": lengths}
        return batch, lambda given: cross_entropy(given, answers, own)

    model = NameGenerator(kinds, 21, width(rng, 16, 48))
    return trained(rng, model, draw, steps=200, causal=True)


class PointerSentinel(nn.Module):
    """Next words out of a vocabulary or out of what was just read (Merity et al. 2017)."""

    def __init__(self, symbols: int, size: int, hidden: int) -> None:
        super().__init__()
        self.symbols = symbols
        self.words = nn.Embedding(symbols, size)
        self.lstm = nn.LSTM(size, hidden, batch_first=True)
        self.query = nn.Sequential(nn.Linear(hidden, hidden), nn.Tanh())
        self.sentinel = nn.Parameter(torch.empty(hidden).uniform_(-0.1, 0.1))
        self.out = nn.Linear(hidden, symbols)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return log probabilities [B, T, V] of the words that follow."""
        time = tokens.shape[1]
        states, _ = self.lstm(self.words(tokens))
        query = self.query(states)
        scores = query @ states.transpose(1, 2) / states.shape[2] ** 0.5
        later = torch.ones(time, time, dtype=torch.bool).triu(1)
        scores = scores.masked_fill(later, LOWEST)
        both = torch.cat([scores, (query @ self.sentinel)[..., None]], dim=-1).softmax(dim=-1)
        copied = both[..., :-1] @ functional.one_hot(tokens, self.symbols).to(both.dtype)
        mixed = both[..., -1:] * self.out(states).softmax(dim=-1) + copied
        return torch.log(mixed + 1e-8)


@healthy("a language model that may point back", held_out=True)
def pointer_sentinel(rng: np.random.Generator) -> Planted:
    time, symbols = between(rng, 12, 60), between(rng, 20, 40)
    chances = tables(rng, 4, symbols)

    def draw(rows: int) -> tuple[Any, Loss]:
        x = whole(text(rng, chances, rows, time + 1)[0])
        return (x[:, :-1],), log_likelihood(x[:, 1:])

    model = PointerSentinel(symbols, between(rng, 16, 64), width(rng, 24, 200))
    return fresh(rng, model, draw, causal=True)


class OursNormalised(nn.Module):
    """Residual layers of coupled LSTM cells with layer norm inside and between them."""

    def __init__(self, symbols: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.words = nn.Embedding(symbols, hidden, padding_idx=0)
        cell = LSTM(hidden, hidden, coupled=True, layer_norm=True)
        self.stack = Stack(
            [Recurrent(cell) for _ in range(layers)],
            dropout=0.2,
            variational=True,
            residual=True,
            layer_norm=True,
        )
        self.norm = nn.LayerNorm(hidden)
        self.out = nn.Linear(hidden, symbols)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Any:
        return self.out(self.norm(self.stack(self.words(tokens), lengths)[0]))


@healthy("a language model of ours with layer norm within its cells", held_out=True)
def ours_normalised(rng: np.random.Generator) -> Planted:
    time, symbols = between(rng, 8, 40), between(rng, 15, 40)
    chances = tables(rng, 2, symbols)

    def draw(rows: int) -> tuple[Any, Loss]:
        x, _ = text(rng, chances, rows, time + 1)
        lengths = lengths_of(rng, rows, time, 4)
        own = valid(lengths, time)
        read, answers = torch.where(own, whole(x[:, :-1] + 1), 0), whole(x[:, 1:] + 1)
        return (read, lengths), lambda given: cross_entropy(given, answers, own)

    model = OursNormalised(symbols + 1, width(rng, 24, 96), between(rng, 2, 4))
    return fresh(rng, model, draw, causal=True)


class Windows(nn.Module):
    """The next line of a log from a window of the lines before it (Du et al. 2017)."""

    def __init__(self, layer: nn.Module, keys: int, hidden: int) -> None:
        super().__init__()
        self.keys = nn.Embedding(keys, 12, padding_idx=0)
        self.layer = layer
        self.out = nn.Linear(hidden, keys)

    def forward(self, window: Tensor, lengths: Tensor) -> Any:
        states, _ = packed(self.layer, self.keys(window), lengths)
        return self.out(at_last(states, lengths))


@healthy("the next line of a log, some of them short of lines", held_out=True)
def log_lines(rng: np.random.Generator) -> Planted:
    time, hidden, keys = between(rng, 6, 12), width(rng, 16, 64), 14
    order = np.stack([1 + rng.permutation(keys - 1) for _ in range(2)])

    def draw(rows: int) -> tuple[Any, Loss]:
        # Two programs write the log, each its own round of lines, now and then a stray one.
        program, begin = rng.integers(0, 2, rows), rng.integers(0, keys - 1, rows)
        x = order[program[:, None], (begin[:, None] + np.arange(time + 1)) % (keys - 1)]
        stray = rng.random(x.shape) < 0.05
        x = np.where(stray, rng.integers(1, keys, x.shape), x)
        lengths = lengths_of(rng, rows, time, 2)
        window = torch.where(valid(lengths, time), whole(x[:, :-1]), 0)
        return (window, lengths), tagged(whole(x)[torch.arange(rows), lengths])

    layer = layer_of(rng, 12, hidden, kinds=("lstm", "gru"))
    return trained(rng, Windows(layer, keys, hidden), draw, steps=200, held_back=True)
