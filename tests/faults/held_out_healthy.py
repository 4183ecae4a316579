"""Held-out healthy models of words, fresh or trained for a second, as people write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from hiddenstate.artifact import HeadSpec, LayerSpec, ModelSpec
from hiddenstate.cells import build
from hiddenstate.models import SequenceModel
from hiddenstate.nn import Pool
from hiddenstate.schema import Symbols
from tests.faults.held_out_parts import (
    CLASSES,
    TORCH,
    Sizes,
    adam,
    between,
    inside,
    one_of,
    over,
    ragged,
    recurrent,
    sizes,
    told_apart,
    words,
)
from tests.faults.plant import Planted, healthy

Batch = tuple[Tensor, ...] | Mapping[str, Tensor]
Drawn = tuple[Batch, Callable[..., Tensor]]


def made(
    rng: np.random.Generator,
    module: nn.Module,
    draw: Callable[[], Drawn],
    steps: int = 30,
    rate: float = 1e-2,
) -> Planted:
    """Leave every third model as it was drawn, train the others; examine on another batch."""

    def value() -> Tensor:
        batch, loss = draw()
        return loss(module(**batch) if isinstance(batch, Mapping) else module(*batch))

    if rng.random() < 0.67:
        adam(module, value, steps, rate)
    batch, loss = draw()
    return Planted(module, batch, loss)


def sentences(rng: np.random.Generator, size: Sizes, symbols: int) -> tuple[Tensor, Tensor]:
    """Tokens [B, T] with 0 behind a row's end, and lengths [B]."""
    lengths = ragged(rng, size)
    return words(rng, size, symbols)[:, : size.time] * inside(lengths, size.time), lengths


def topic(tokens: Tensor) -> Tensor:
    """[B], which third of the symbols a row has most of."""
    third = torch.where(tokens > 0, (tokens - 1) % CLASSES, CLASSES)
    return functional.one_hot(third, CLASSES + 1)[..., :CLASSES].sum(dim=1).argmax(dim=1)


def classifying(
    rng: np.random.Generator, size: Sizes, symbols: int, *, lengths_given: bool = True
) -> Callable[[], Drawn]:
    def draw() -> Drawn:
        tokens, lengths = sentences(rng, size, symbols)
        batch = (tokens, lengths) if lengths_given else (tokens,)
        return batch, told_apart(topic(tokens))

    return draw


class CharacterModel(nn.Module):
    """Embedding, LSTM, decoder with the embedding's weights."""

    def __init__(self, symbols: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.2)
        self.encoder = nn.Embedding(symbols, hidden)
        nn.init.uniform_(self.encoder.weight, -0.1, 0.1)
        self.rnn = nn.LSTM(hidden, hidden, layers, dropout=0.2 * (layers > 1), batch_first=True)
        self.decoder = nn.Linear(hidden, symbols)
        self.decoder.weight = self.encoder.weight

    def forward(
        self, tokens: Tensor, hidden: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        output, hidden = self.rnn(self.drop(self.encoder(tokens)), hidden)
        return self.decoder(self.drop(output)), hidden


@healthy("character model with tied weights", held_out=True)
def character_model(rng: np.random.Generator) -> Planted:
    size, symbols = sizes(rng, (15, 40), (16, 96)), between(rng, 20, 60)
    module = CharacterModel(symbols, size.hidden, between(rng, 1, 2))

    def draw() -> Drawn:
        tokens = words(rng, size, symbols)
        return (tokens[:, :-1],), told_apart(tokens[:, 1:])

    return made(rng, module, draw, 100)


class PackedClassifier(nn.Module):
    def __init__(self, rng: np.random.Generator, size: Sizes, symbols: int, presort: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 16, padding_idx=0)
        self.gru = nn.GRU(16, size.hidden, between(rng, 1, 2), batch_first=True, bidirectional=True)
        self.fc = nn.Linear(2 * size.hidden, CLASSES)
        self.presort = presort

    def forward(self, text: Tensor, text_lengths: Tensor) -> Tensor:
        embedded = self.embedding(text)
        if self.presort:
            ordered, order = text_lengths.sort(descending=True)
            packed = pack_padded_sequence(embedded[order], ordered.cpu(), batch_first=True)
            hidden = self.gru(packed)[1][:, order.argsort()]
        else:
            packed = pack_padded_sequence(
                embedded, text_lengths.cpu(), batch_first=True, enforce_sorted=False
            )
            _, hidden = self.gru(packed)
        return self.fc(torch.cat([hidden[-2], hidden[-1]], dim=1))


@healthy("packed classifier that reads both ways", held_out=True)
def packed_classifier(rng: np.random.Generator) -> Planted:
    size, symbols = sizes(rng, (8, 20), (8, 48)), between(rng, 12, 50)
    module = PackedClassifier(rng, size, symbols, presort=False)
    return made(rng, module, classifying(rng, size, symbols))


@healthy("packed classifier with rows sorted and put back", held_out=True)
def presorted_classifier(rng: np.random.Generator) -> Planted:
    size, symbols = sizes(rng, (8, 20), (8, 48)), between(rng, 12, 50)
    module = PackedClassifier(rng, size, symbols, presort=True)
    return made(rng, module, classifying(rng, size, symbols))


class BothWaysTagger(nn.Module):
    def __init__(self, rng: np.random.Generator, size: Sizes, symbols: int, tags: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, 24, padding_idx=0)
        self.rnn = recurrent(
            rng, 24, size.hidden, between(rng, 1, 2), kinds=("lstm", "gru"), bidirectional=True
        )
        self.dropout = nn.Dropout(0.3)
        self.out = nn.Linear(2 * size.hidden, tags)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return self.out(self.dropout(over(self.rnn, self.embed(tokens), lengths)))


@healthy("tagger that reads both ways", held_out=True)
def tagger(rng: np.random.Generator) -> Planted:
    size, symbols, tags = sizes(rng, (8, 20), (8, 48)), between(rng, 12, 40), between(rng, 2, 6)
    module = BothWaysTagger(rng, size, symbols, tags)

    def draw() -> Drawn:
        tokens, lengths = sentences(rng, size, symbols)
        answers = (tokens + functional.pad(tokens, (0, 1))[:, 1:]) % tags
        answers = answers.masked_fill(~inside(lengths, size.time), -100)
        return (tokens, lengths), told_apart(answers)

    return made(rng, module, draw)


class EncoderDecoder(nn.Module):
    def __init__(self, rng: np.random.Generator, symbols: int, hidden: int) -> None:
        super().__init__()
        kind = TORCH[one_of(rng, "lstm", "gru")]
        self.src_embedding = nn.Embedding(symbols, 16, padding_idx=0)
        self.tgt_embedding = nn.Embedding(symbols + 1, 16)
        self.encoder = kind(16, hidden, batch_first=True)
        self.decoder = kind(16, hidden, batch_first=True)
        self.generator = nn.Linear(hidden, symbols)

    def forward(self, src: Tensor, src_lengths: Tensor, tgt_in: Tensor) -> Tensor:
        packed = pack_padded_sequence(
            self.src_embedding(src), src_lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        _, state = self.encoder(packed)
        output, _ = self.decoder(self.tgt_embedding(tgt_in), state)
        return self.generator(output)


@healthy("encoder and decoder, taught by force", held_out=True)
def encoder_decoder(rng: np.random.Generator) -> Planted:
    size, symbols = sizes(rng, (6, 14), (16, 64)), between(rng, 8, 20)
    module = EncoderDecoder(rng, symbols, size.hidden)

    def draw() -> Drawn:
        src, lengths = sentences(rng, size, symbols)
        target = src[:, : between(rng, 3, 5)].flip(1)
        start = torch.full_like(target[:, :1], symbols)
        tgt_in = torch.cat([start, target[:, :-1]], dim=1)
        return (src, lengths, tgt_in), told_apart(target.masked_fill(target == 0, -100))

    return made(rng, module, draw)


class CountsItsLengths(nn.Module):
    """Finds the lengths itself: 0 is the padding's symbol."""

    def __init__(self, rng: np.random.Generator, size: Sizes, symbols: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 16, padding_idx=0)
        self.rnn = recurrent(rng, 16, size.hidden, kinds=("lstm", "gru"))
        self.fc = nn.Linear(size.hidden, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        lengths = (x != 0).sum(dim=1)
        h = over(self.rnn, self.embedding(x), lengths)
        return self.fc(h[torch.arange(len(x)), lengths - 1])


@healthy("lengths counted from the padding symbol", held_out=True)
def counted_lengths(rng: np.random.Generator) -> Planted:
    size, symbols = sizes(rng, (8, 30), (8, 64)), between(rng, 12, 50)
    module = CountsItsLengths(rng, size, symbols)
    return made(rng, module, classifying(rng, size, symbols, lengths_given=False))


class MaskedModel(nn.Module):
    """Called as people call models of transformers: ids and a mask of 1 and 0."""

    def __init__(self, size: Sizes, symbols: int) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(symbols, 16, padding_idx=0)
        self.rnn = nn.GRU(16, size.hidden, batch_first=True, bidirectional=True)
        self.classifier = nn.Linear(2 * size.hidden, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        packed = pack_padded_sequence(
            self.embeddings(input_ids),
            attention_mask.sum(dim=1).cpu(),
            batch_first=True,
            enforce_sorted=False,
        )
        hidden, _ = pad_packed_sequence(
            self.rnn(packed)[0], batch_first=True, total_length=input_ids.shape[1]
        )
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)
        return {"logits": self.classifier(pooled)}


@healthy("a mapping of ids and an attention mask", held_out=True)
def ids_and_mask(rng: np.random.Generator) -> Planted:
    size, symbols = sizes(rng, (8, 30), (8, 64)), between(rng, 12, 50)

    def draw() -> Drawn:
        tokens, lengths = sentences(rng, size, symbols)
        loss = told_apart(topic(tokens))
        mask = inside(lengths, size.time).long()
        return {"input_ids": tokens, "attention_mask": mask}, lambda y: loss(y["logits"])

    return made(rng, MaskedModel(size, symbols), draw)


class Pairs(nn.Module):
    """One encoder for two texts of their own lengths."""

    def __init__(self, rng: np.random.Generator, size: Sizes, symbols: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 16, padding_idx=0)
        self.rnn = recurrent(rng, 16, size.hidden, kinds=("lstm", "gru"), bidirectional=True)
        self.pool = Pool("max", 2 * size.hidden)
        self.fc = nn.Linear(8 * size.hidden, 2)

    def encode(self, text: Tensor, lengths: Tensor) -> Tensor:
        return self.pool(over(self.rnn, self.embedding(text), lengths), lengths)

    def forward(
        self, premise: Tensor, premise_lengths: Tensor, claim: Tensor, claim_lengths: Tensor
    ) -> Tensor:
        u, v = self.encode(premise, premise_lengths), self.encode(claim, claim_lengths)
        return self.fc(torch.cat([u, v, (u - v).abs(), u * v], dim=1))


@healthy("pairs of texts with one encoder", held_out=True)
def pairs(rng: np.random.Generator) -> Planted:
    size, symbols = sizes(rng, (8, 20), (8, 48)), between(rng, 12, 40)
    shorter = Sizes(size.batch, max(4, size.time // 2), size.inputs, size.hidden)

    def draw() -> Drawn:
        premise, lengths = sentences(rng, size, symbols)
        claim, claim_lengths = sentences(rng, shorter, symbols)
        answers = (topic(premise) == topic(claim)).long()
        return (premise, lengths, claim, claim_lengths), told_apart(answers)

    return made(rng, Pairs(rng, size, symbols), draw, 20)


@healthy("a sequence model of a specification", held_out=True)
def specified(rng: np.random.Generator) -> Planted:
    size, symbols = sizes(rng, (10, 40), (8, 64)), between(rng, 12, 30)
    schema = Symbols.fit(["".join(chr(97 + k) for k in range(symbols))], "characters")
    classes = [str(code) for code in range(len(schema))]
    cell = one_of(rng, "elman", "lstm", "gru")
    widths = [12] + [size.hidden] * between(rng, 0, 1)
    layers = tuple(LayerSpec(build(cell, width, size.hidden).to_json()) for width in widths)
    heads = (HeadSpec({"task": "lm", "classes": classes}, tied=bool(rng.random() < 0.5)),)
    module = SequenceModel(ModelSpec(schema, (12,), layers, heads))

    def draw() -> Drawn:
        tokens = words(rng, size, symbols)
        lengths = ragged(rng, size)
        answers = tokens[:, 1:].masked_fill(~inside(lengths, size.time), -100)
        codes, numbers = tokens[:, :-1, None], torch.zeros(size.batch, size.time, 0)
        loss = told_apart(answers)
        return (codes, numbers, lengths), lambda y: loss(y[0][0])

    return made(rng, module, draw)


class CausalAttention(nn.Module):
    def __init__(self, rng: np.random.Generator, size: Sizes, symbols: int) -> None:
        super().__init__()
        width = 4 * max(2, size.hidden // 4)
        self.embedding = nn.Embedding(symbols, 16)
        self.rnn = recurrent(rng, 16, width, kinds=("lstm", "gru"))
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, symbols)

    def forward(self, tokens: Tensor) -> Tensor:
        h, _ = self.rnn(self.embedding(tokens))
        later = torch.ones(h.shape[1], h.shape[1], dtype=torch.bool).triu(1)
        return self.head(
            self.norm(h + self.attention(h, h, h, attn_mask=later, need_weights=False)[0])
        )


@healthy("causal self-attention over the states", held_out=True)
def causal_attention(rng: np.random.Generator) -> Planted:
    size, symbols = sizes(rng, (10, 30), (8, 64)), between(rng, 12, 40)

    def draw() -> Drawn:
        tokens = words(rng, size, symbols)
        return (tokens[:, :-1],), told_apart(tokens[:, 1:])

    return made(rng, CausalAttention(rng, size, symbols), draw)


class AttentionReader(nn.Module):
    """Additive attention over the real steps; tells its weights as well."""

    def __init__(self, rng: np.random.Generator, size: Sizes, symbols: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 16, padding_idx=0)
        self.rnn = recurrent(rng, 16, size.hidden, kinds=("lstm", "gru"), bidirectional=True)
        self.project = nn.Linear(2 * size.hidden, size.hidden)
        self.score = nn.Linear(size.hidden, 1, bias=False)
        self.fc = nn.Linear(2 * size.hidden, CLASSES)

    def forward(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        h = over(self.rnn, self.embedding(tokens), lengths)
        scores = self.score(torch.tanh(self.project(h))).squeeze(-1)
        weights = scores.masked_fill(tokens == 0, float("-inf")).softmax(dim=1)
        return self.fc(torch.bmm(weights.unsqueeze(1), h).squeeze(1)), weights


@healthy("additive attention over the real steps", held_out=True)
def attention_reader(rng: np.random.Generator) -> Planted:
    size, symbols = sizes(rng, (8, 30), (8, 64)), between(rng, 12, 50)
    return made(rng, AttentionReader(rng, size, symbols), classifying(rng, size, symbols))


class MeaningBeside(nn.Module):
    """The sum of the words' vectors beside the GRU: the padding's vector is 0 and stays so."""

    def __init__(self, size: Sizes, symbols: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 16, padding_idx=0)
        self.gru = nn.GRU(16, size.hidden, batch_first=True)
        self.fc = nn.Linear(size.hidden + 16, CLASSES)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        embedded = self.embedding(tokens)
        packed = pack_padded_sequence(
            embedded, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        _, hidden = self.gru(packed)
        mean = embedded.sum(dim=1) / lengths.unsqueeze(1)
        return self.fc(torch.cat([hidden[-1], mean], dim=1))


@healthy("a padding vector of zeros summed with the others", held_out=True)
def meaning_beside(rng: np.random.Generator) -> Planted:
    size, symbols = sizes(rng, (8, 30), (8, 64)), between(rng, 12, 50)
    return made(rng, MeaningBeside(size, symbols), classifying(rng, size, symbols))
