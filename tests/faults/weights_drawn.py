"""Weights drawn on one side of 0 or far too wide, vectors that few words have; and sound ones."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from tests.faults.memory import between, hidden
from tests.faults.plant import Planted, fault, healthy
from tests.faults.small import levels, markov, one_of, parts, planted, reader, waves
from tests.faults.weights import ANY


@fault("recurrent weights drawn from 0 upwards", "HS404")
def from_zero_upwards(rng: np.random.Generator, remedied: bool) -> Planted:
    task = waves(between(rng, 12, 40))
    model = reader(task, one_of(rng, *ANY), hidden(rng))
    for part in parts(model):
        width = part.cell.hidden_size**-0.5
        low, high = (-width, width) if remedied else (0.0, 2 * width)
        nn.init.uniform_(part.params["w_h"], low, high)
    return planted(model, task, rng)


@fault("recurrent weights of torch.randn", "HS405")
def standard_normal(rng: np.random.Generator, remedied: bool) -> Planted:
    task = waves(between(rng, 12, 40))
    model = reader(task, one_of(rng, *ANY), int(one_of(rng, 16, 24, 32, 64)))
    for part in parts(model):
        size = part.cell.hidden_size**-0.5 if remedied else 1.0
        nn.init.normal_(part.params["w_h"], std=size)
    return planted(model, task, rng)


@fault("vectors of which most words share one", "HS423")
def shared_vector(rng: np.random.Generator, remedied: bool) -> Planted:
    task = markov(between(rng, 8, 30), between(rng, 20, 60))
    model = reader(task, one_of(rng, *ANY), hidden(rng))
    if not remedied:
        table = model.embed.weight.data
        table[torch.as_tensor(rng.random(len(table)) < rng.uniform(0.7, 0.95))] = table[0].clone()
    return planted(model, task, rng)


@fault("an embedding frozen as it was drawn", "HS431")
def frozen_table(rng: np.random.Generator, remedied: bool) -> Planted:
    task = markov(between(rng, 8, 30), between(rng, 6, 30))
    model = reader(task, one_of(rng, *ANY), hidden(rng))
    model.embed.weight.requires_grad_(remedied)
    return planted(model, task, rng)


@healthy("five layers of torch as they are drawn")
def five_layers(rng: np.random.Generator) -> Planted:
    task = waves(between(rng, 8, 30))
    kind = one_of(rng, "rnn", "torch lstm", "torch gru")
    return planted(reader(task, kind, hidden(rng), between(rng, 3, 5)), task, rng)


@healthy("a head that begins at 0")
def zero_head(rng: np.random.Generator) -> Planted:
    task = levels(between(rng, 8, 30), 4)
    model = reader(task, one_of(rng, *ANY), hidden(rng), between(rng, 1, 2))
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)
    return planted(model, task, rng)


@healthy("a reservoir that is not trained")
def reservoir(rng: np.random.Generator) -> Planted:
    task = waves(between(rng, 20, 60))
    model = reader(task, "rnn", int(one_of(rng, 64, 96, 128)))
    for part in parts(model):
        drawn = torch.as_tensor(rng.standard_normal(part.params["w_h"].shape)).float()
        radius = torch.linalg.eigvals(drawn).abs().max()
        part.params["w_h"].data.copy_(0.95 * drawn / radius)
    model.layer.requires_grad_(False)
    return planted(model, task, rng)


@healthy("pretrained vectors, a fifth of which were not found")
def pretrained(rng: np.random.Generator) -> Planted:
    symbols = between(rng, 30, 80)
    task = markov(between(rng, 8, 30), symbols)
    model = reader(task, one_of(rng, *ANY), hidden(rng))
    wide = model.embed.embedding_dim
    vectors = torch.randn(symbols, 5) @ torch.randn(5, wide)
    vectors[torch.as_tensor(rng.random(symbols) < 0.2)] = 0.0
    model.embed = nn.Embedding.from_pretrained(vectors, freeze=bool(rng.random() < 0.5))
    return planted(model, task, rng)
