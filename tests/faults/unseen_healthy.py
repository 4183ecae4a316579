"""Held-out healthy models of the second set: words and tags. Written unseen."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.faults.held_out_healthy import Drawn, made, topic
from tests.faults.held_out_parts import (
    TORCH,
    Sizes,
    between,
    inside,
    one_of,
    over,
    recurrent,
    sizes,
    told_apart,
    words,
)
from tests.faults.plant import Planted, healthy
from tests.faults.unseen_faults import Compared, Crf, at_end, texts


class Attending(nn.Module):
    """Bahdanau's decoder, a step at a time, over a packed encoder that reads both ways."""

    def __init__(self, symbols: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols + 1, 16, padding_idx=0)
        self.encoder = nn.GRU(16, hidden, batch_first=True, bidirectional=True)
        self.bridge = nn.Linear(2 * hidden, hidden)
        self.query, self.key = nn.Linear(hidden, hidden), nn.Linear(2 * hidden, hidden)
        self.energy = nn.Linear(hidden, 1, bias=False)
        self.cell = nn.GRUCell(16 + 2 * hidden, hidden)
        self.out = nn.Linear(3 * hidden, symbols)

    def forward(self, source: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
        packed = pack_padded_sequence(
            self.embedding(source), lengths, batch_first=True, enforce_sorted=False
        )
        output, state = self.encoder(packed)
        memory, _ = pad_packed_sequence(output, batch_first=True, total_length=source.shape[1])
        keys, mask = self.key(memory), inside(lengths, source.shape[1])
        h = torch.tanh(self.bridge(torch.cat([state[0], state[1]], dim=1)))
        scores = []
        for word in self.embedding(target).unbind(dim=1):
            energy = self.energy(torch.tanh(self.query(h)[:, None] + keys)).squeeze(-1)
            weights = energy.masked_fill(~mask, -1e9).softmax(dim=1)
            context = torch.bmm(weights[:, None], memory).squeeze(1)
            h = self.cell(torch.cat([word, context], dim=1), h)
            scores.append(self.out(torch.cat([h, context], dim=1)))
        return torch.stack(scores, dim=1)


@healthy("translator that attends, a step at a time", held_out=True)
def attending(rng: np.random.Generator) -> Planted:
    size, symbols = sizes(rng, (6, 12), (8, 96)), between(rng, 8, 30)

    def draw() -> Drawn:
        source, lengths = texts(rng, size, symbols)
        target = source[:, : between(rng, 4, 5)].flip(1)
        begun = torch.cat([torch.full_like(target[:, :1], symbols), target[:, :-1]], dim=1)
        answers = target.masked_fill(target == 0, -100)
        return (source, lengths, begun), told_apart(answers)

    return made(rng, Attending(symbols, size.hidden), draw, 12)


@healthy("tagger with a chain of tags on top", held_out=True)
def chain(rng: np.random.Generator) -> Planted:
    size, symbols = sizes(rng, (6, 15), (8, 64)), between(rng, 10, 40)

    def draw() -> Drawn:
        tokens, lengths = texts(rng, size, symbols)
        return (tokens, lengths, tokens % 3), lambda y: y.mean()

    return made(rng, Crf(rng, size, symbols, right=True), draw, 12)


@healthy("two texts, each sorted by its own lengths", held_out=True)
def compared(rng: np.random.Generator) -> Planted:
    size, symbols = sizes(rng, (6, 20), (8, 64)), between(rng, 10, 40)

    def draw() -> Drawn:
        one, other = texts(rng, size, symbols), texts(rng, size, symbols)
        return (*one, *other), told_apart((topic(one[0]) == topic(other[0])).long())

    return made(rng, Compared(rng, size, symbols, right=True), draw, 15)


class Manhattan(nn.Module):
    """Siamese network that gives exp(-|u - v|), in [0, 1]."""

    def __init__(self, size: Sizes, symbols: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 20, padding_idx=0)
        self.lstm = nn.LSTM(20, size.hidden, batch_first=True)

    def encode(self, text: Tensor) -> Tensor:
        lengths = (text != 0).sum(dim=1)
        packed = pack_padded_sequence(
            self.embedding(text), lengths, batch_first=True, enforce_sorted=False
        )
        return self.lstm(packed)[1][0][-1]

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return torch.exp(-(self.encode(left) - self.encode(right)).abs().sum(dim=1))


@healthy("siamese network of Manhattan distance", held_out=True)
def manhattan(rng: np.random.Generator) -> Planted:
    size, symbols = sizes(rng, (6, 20), (4, 50)), between(rng, 10, 40)

    def draw() -> Drawn:
        left, right = texts(rng, size, symbols)[0], texts(rng, size, symbols)[0]
        answers = (topic(left) == topic(right)).float()
        return {"left": left, "right": right}, lambda y: functional.mse_loss(y, answers)

    return made(rng, Manhattan(size, symbols), draw, 15)


class Documents(nn.Module):
    """Words in sentences in a document [B, S, W], both levels read both ways and pooled."""

    def __init__(self, symbols: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 16, padding_idx=0)
        self.words = nn.GRU(16, hidden, batch_first=True, bidirectional=True)
        self.sentences = nn.GRU(2 * hidden, hidden, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(2 * hidden, 3)

    def forward(self, documents: Tensor) -> Tensor:
        rows, count, _ = documents.shape
        flat = documents.flatten(0, 1)
        lengths = (flat != 0).sum(dim=1)
        h = over(self.words, self.embedding(flat), lengths)
        vectors = h.sum(dim=1) / lengths[:, None]
        h, _ = self.sentences(vectors.view(rows, count, -1))
        return self.fc(h.amax(dim=1))


@healthy("documents of sentences of words", held_out=True)
def documents(rng: np.random.Generator) -> Planted:
    size, symbols = sizes(rng, (4, 9), (6, 40)), between(rng, 10, 40)
    count = between(rng, 3, 6)

    def draw() -> Drawn:
        flat = Sizes(size.batch * count, size.time, 1, 1)
        tokens = texts(rng, flat, symbols)[0]
        grouped = tokens.view(size.batch, count, size.time)
        return (grouped,), told_apart(topic(grouped.flatten(1)))

    return made(rng, Documents(symbols, size.hidden), draw, 12)


class LockedDropout(nn.Module):
    """One mask [B, 1, D] for all steps, in training alone."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        mask = torch.bernoulli(torch.full_like(x[:, :1], 1 - self.share))
        return x * mask / (1 - self.share)


class TiedModel(nn.Module):
    """Three LSTMs of which the last is as wide as the words; decoder and embedding are one."""

    def __init__(self, symbols: int, width: int, hidden: int) -> None:
        super().__init__()
        self.locked = LockedDropout(0.3)
        self.encoder = nn.Embedding(symbols, width)
        nn.init.uniform_(self.encoder.weight, -0.1, 0.1)
        widths = [width, hidden, hidden, width]
        self.rnns = nn.ModuleList(nn.LSTM(a, b, batch_first=True) for a, b in pairwise(widths))
        self.decoder = nn.Linear(width, symbols)
        self.decoder.weight = self.encoder.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.locked(self.encoder(tokens))
        for rnn in self.rnns:
            x = self.locked(rnn(x)[0])
        return self.decoder(x)


@healthy("three tied LSTMs with locked dropout", held_out=True)
def tied(rng: np.random.Generator) -> Planted:
    size, symbols = sizes(rng, (10, 25), (16, 64)), between(rng, 15, 50)
    module = TiedModel(symbols, between(rng, 12, 32), size.hidden)

    def draw() -> Drawn:
        tokens = words(rng, size, symbols)
        return (tokens[:, :-1],), told_apart(tokens[:, 1:])

    return made(rng, module, draw, 25)


class Sessions(nn.Module):
    """The next item of a session, scored by its vector; the sessions' items are few of many."""

    def __init__(self, rng: np.random.Generator, items: int, hidden: int) -> None:
        super().__init__()
        self.items = nn.Embedding(items, hidden, padding_idx=0)
        self.drop = nn.Dropout(0.25)
        self.gru = recurrent(rng, hidden, hidden, kinds=("gru",))
        self.bias = nn.Parameter(torch.zeros(items))

    def forward(self, session: Tensor, lengths: Tensor) -> Tensor:
        h = at_end(over(self.gru, self.drop(self.items(session)), lengths), lengths)
        return h @ self.items.weight.T + self.bias


@healthy("next item of a session", held_out=True)
def sessions(rng: np.random.Generator) -> Planted:
    size, items = sizes(rng, (4, 15), (16, 100)), between(rng, 30, 60)

    def draw() -> Drawn:
        items_seen, lengths = texts(rng, size, items)
        following = at_end(items_seen, lengths) % (items - 1) + 1
        return (items_seen, lengths), told_apart(following)

    return made(rng, Sessions(rng, items, size.hidden), draw, 20)


class Pointer(nn.Module):
    """Points at one of its steps: scores [B, T], -inf past a row's end."""

    def __init__(self, rng: np.random.Generator, size: Sizes) -> None:
        super().__init__()
        self.encoder = recurrent(rng, size.inputs, size.hidden, kinds=("lstm", "gru"))
        self.query = nn.Linear(size.hidden, size.hidden, bias=False)
        self.key = nn.Linear(size.hidden, size.hidden, bias=False)
        self.v = nn.Linear(size.hidden, 1, bias=False)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        h = over(self.encoder, x, lengths)
        query = self.query(at_end(h, lengths))[:, None]
        scores = self.v(torch.tanh(query + self.key(h))).squeeze(-1)
        return scores.masked_fill(~inside(lengths, x.shape[1]), float("-inf"))


@healthy("network that points at a step", held_out=True)
def pointer(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (5, 20), (8, 100))

    def draw() -> Drawn:
        tokens, lengths = texts(rng, size, 4)
        x = torch.randn(*tokens.shape, size.inputs) * (tokens > 0)[..., None]
        first = x[..., 0].masked_fill(tokens == 0, -1e9).argmax(dim=1)
        return (x, lengths), lambda y: functional.cross_entropy(y, first)

    return made(rng, Pointer(rng, size), draw, 20)


class Spelled(nn.Module):
    """Tags words that it knows by their vectors and by their letters [B, T, C]."""

    def __init__(self, rng: np.random.Generator, size: Sizes, symbols: int) -> None:
        super().__init__()
        self.letters = nn.Embedding(12, 8, padding_idx=0)
        self.words = nn.Embedding(symbols, 16, padding_idx=0)
        self.spelling = nn.LSTM(8, 10, batch_first=True, bidirectional=True)
        self.rnn = recurrent(rng, 36, size.hidden, kinds=("lstm", "gru"), bidirectional=True)
        self.out = nn.Linear(2 * size.hidden, 4)

    def forward(self, words: Tensor, letters: Tensor, lengths: Tensor) -> Tensor:
        flat = letters.flatten(0, 1)
        counts = (flat != 0).sum(dim=1).clamp(min=1)
        packed = pack_padded_sequence(
            self.letters(flat), counts, batch_first=True, enforce_sorted=False
        )
        _, (h, _) = self.spelling(packed)
        spelled = torch.cat([h[0], h[1]], dim=-1).view(*words.shape, -1)
        x = torch.cat([self.words(words), spelled], dim=-1)
        return self.out(over(self.rnn, x, lengths))


@healthy("tagger that reads words and their letters", held_out=True)
def spelled(rng: np.random.Generator) -> Planted:
    size, symbols = sizes(rng, (5, 10), (8, 50)), between(rng, 15, 40)
    spellings = torch.as_tensor(rng.integers(1, 12, (symbols, 5)))
    spellings *= torch.arange(5) < torch.as_tensor(rng.integers(1, 6, (symbols, 1)))
    spellings[0] = 0

    def draw() -> Drawn:
        tokens, lengths = texts(rng, size, symbols)
        answers = (tokens % 4).masked_fill(tokens == 0, -100)
        batch = {"words": tokens, "letters": spellings[tokens], "lengths": lengths}
        return batch, told_apart(answers)

    return made(rng, Spelled(rng, size, symbols), draw, 12)


class BothModels(nn.Module):
    """A language model of either direction over shared words; two sets of scores."""

    def __init__(self, rng: np.random.Generator, symbols: int, hidden: int) -> None:
        super().__init__()
        kind = TORCH[one_of(rng, "lstm", "gru")]
        self.embedding = nn.Embedding(symbols, 16)
        self.ahead = kind(16, hidden, batch_first=True)
        self.back = kind(16, hidden, batch_first=True)
        self.out = nn.Linear(hidden, symbols)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        x = self.embedding(tokens)
        after = self.back(x.flip(1))[0].flip(1)
        return {"forward": self.out(self.ahead(x)[0]), "backward": self.out(after)}


@healthy("language models of both directions", held_out=True)
def both_models(rng: np.random.Generator) -> Planted:
    size, symbols = sizes(rng, (8, 25), (8, 96)), between(rng, 12, 40)

    def draw() -> Drawn:
        tokens = words(rng, size, symbols)
        one, other = told_apart(tokens[:, 1:]), told_apart(tokens[:, :-2])

        def loss(y: dict[str, Tensor]) -> Tensor:
            return one(y["forward"]) + other(y["backward"][:, 1:])

        return (tokens[:, :-1],), loss

    found = made(rng, BothModels(rng, symbols, size.hidden), draw, 15)
    return Planted(found.module, found.batch, found.loss, {"causal": False})


class Alternating(nn.Module):
    """Highway layers that read from the left and from the right in turns."""

    def __init__(self, rng: np.random.Generator, symbols: int, hidden: int) -> None:
        super().__init__()
        count = between(rng, 2, 4)
        self.embedding = nn.Embedding(symbols, hidden)
        self.layers = nn.ModuleList(
            recurrent(rng, hidden, hidden, kinds=("lstm", "gru")) for _ in range(count)
        )
        self.gates = nn.ModuleList(nn.Linear(2 * hidden, hidden) for _ in range(count))
        self.out = nn.Linear(hidden, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for layer, gate in zip(self.layers, self.gates, strict=True):
            h = layer(x)[0]
            share = torch.sigmoid(gate(torch.cat([x, h], dim=-1)))
            x = (share * h + (1 - share) * x).flip(1)
        return self.out(x.flip(1) if len(self.layers) % 2 else x)


@healthy("highway layers that read in turns from both ends", held_out=True)
def alternating(rng: np.random.Generator) -> Planted:
    size, symbols = sizes(rng, (6, 20), (8, 64)), between(rng, 10, 30)

    def draw() -> Drawn:
        tokens = words(rng, size, symbols)
        return (tokens[:, :-1],), told_apart((tokens[:, :-1] + tokens[:, 1:]) % 5)

    found = made(rng, Alternating(rng, symbols, size.hidden), draw, 15)
    return Planted(found.module, found.batch, found.loss, {"causal": False})
