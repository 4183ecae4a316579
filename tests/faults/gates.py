"""Gates and units that do nothing, and the same layers mended."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from tests.faults.memory import GRUS, LSTMS, PLAIN, between, hidden
from tests.faults.plant import Planted, fault
from tests.faults.small import (
    Task,
    in_units,
    levels,
    one_of,
    parts,
    planted,
    reader,
    recall,
    tagging,
    waves,
)


def some_task(rng: np.random.Generator) -> Task:
    """Tasks of numbers and of symbols, some with rows of unequal length."""
    time = between(rng, 12, 40)
    return one_of(rng, waves(time), levels(time, 4), recall(time), tagging(time))


@fault("inputs in raw units press every gate shut or open", "HS301")
def raw_units(rng: np.random.Generator, remedied: bool) -> Planted:
    task = levels(between(rng, 12, 40), between(rng, 3, 8))
    model = reader(task, one_of(rng, *LSTMS, *GRUS), hidden(rng))
    return planted(model, in_units(task, 1.0 if remedied else 1e4), rng)


@fault("inputs in tiny units move no gate", "HS302")
def tiny_units(rng: np.random.Generator, remedied: bool) -> Planted:
    task = waves(between(rng, 12, 40))
    model = reader(task, one_of(rng, "lstm", "gru"), hidden(rng), between(rng, 1, 2))
    return planted(model, in_units(task, 1.0 if remedied else 1e-5), rng)


@fault("forget gates shut by their bias", "HS303")
def shut(rng: np.random.Generator, remedied: bool) -> Planted:
    task = some_task(rng)
    model = reader(task, one_of(rng, *LSTMS), hidden(rng), between(rng, 1, 2))
    for part in parts(model):
        part.set_bias("f", 1.0 if remedied else -rng.uniform(5, 8))
    return planted(model, task, rng)


@fault(
    "update gate of a GRU read the other way round", "HS303", source="PEERS.md, 7.2: keeps, writes"
)
def backwards(rng: np.random.Generator, remedied: bool) -> Planted:
    task, kind = some_task(rng), one_of(rng, "gru", "torch gru")
    update = one_of(rng, "keeps", "writes") if kind == "gru" else "keeps"
    options = {"update": update} if kind == "gru" else {}
    model = reader(task, kind, hidden(rng), **options)
    right = 1 if update == "keeps" else -1
    for part in parts(model):
        part.set_bias("z", right * rng.uniform(5, 8) * (0.2 if remedied else -1))
    return planted(model, task, rng)


@fault("update gate of a GRU that never writes", "HS304")
def never_writes(rng: np.random.Generator, remedied: bool) -> Planted:
    task = some_task(rng)
    model = reader(task, one_of(rng, *GRUS), hidden(rng), between(rng, 1, 2))
    for part in parts(model):
        part.set_bias("z", 1.0 if remedied else rng.uniform(10, 14))
    return planted(model, task, rng)


@fault("input gate of an LSTM that never opens", "HS304")
def shut_input(rng: np.random.Generator, remedied: bool) -> Planted:
    task = some_task(rng)
    model = reader(task, one_of(rng, *LSTMS), hidden(rng))
    for part in parts(model):
        part.set_bias("i", 0.0 if remedied else -rng.uniform(9, 12))
    return planted(model, task, rng)


@fault("reset gates shut", "HS305")
def shut_reset(rng: np.random.Generator, remedied: bool) -> Planted:
    task = some_task(rng)
    model = reader(task, one_of(rng, *GRUS), hidden(rng), between(rng, 1, 2))
    for part in parts(model):
        part.set_bias("r", 0.0 if remedied else -rng.uniform(5, 8))
    return planted(model, task, rng)


@fault("reset gates that reset nothing", "HS305")
def open_reset(rng: np.random.Generator, remedied: bool) -> Planted:
    task = some_task(rng)
    model = reader(task, one_of(rng, *GRUS), hidden(rng))
    for part in parts(model):
        part.set_bias("r", 0.0 if remedied else rng.uniform(6, 9))
    return planted(model, task, rng)


@fault("output gates shut", "HS306")
def shut_output(rng: np.random.Generator, remedied: bool) -> Planted:
    task = some_task(rng)
    model = reader(task, one_of(rng, *LSTMS), hidden(rng))
    for part in parts(model):
        part.set_bias("o", 0.0 if remedied else -rng.uniform(5, 8))
    return planted(model, task, rng)


@fault("relu units that are never on", "HS311")
def never_on(rng: np.random.Generator, remedied: bool) -> Planted:
    task = one_of(rng, waves(between(rng, 12, 40)), levels(between(rng, 12, 40), 4))
    model = reader(task, "elman", hidden(rng), activation="relu", init="identity")
    for part in parts(model):
        part.set_bias("h", 0.0 if remedied else -rng.uniform(6, 12))
    return planted(model, task, rng)


@fault("every weight the same number", "HS312", "HS401")
def one_number(rng: np.random.Generator, remedied: bool) -> Planted:
    task = some_task(rng)
    model = reader(task, one_of(rng, *PLAIN, *LSTMS, *GRUS), hidden(rng), between(rng, 1, 2))
    if not remedied:
        for part in parts(model):
            for weight in part.params.values():
                nn.init.constant_(weight, float(rng.uniform(0.02, 0.2)))
    return planted(model, task, rng)


@fault("layer widened by copies of its units", "HS312")
def copies(rng: np.random.Generator, remedied: bool) -> Planted:
    task, width = some_task(rng), 2 * hidden(rng)
    model = reader(task, one_of(rng, *PLAIN, *LSTMS, *GRUS), width)
    half = width // 2
    for part in [] if remedied else parts(model):
        for weight in part.params:
            for name in part.cell.blocks:
                rows = part.rows(weight, name)
                rows[half:] = rows[:half]
        # Each copy reads half of what its original read: the layer computes what it did.
        w_h = part.params["w_h"].data
        w_h[:, :half] /= 2
        w_h[:, half:] = w_h[:, :half]
    return planted(model, task, rng)


@fault("relu recurrence that overflows", "HS313")
def overflow(rng: np.random.Generator, remedied: bool) -> Planted:
    task = waves(between(rng, 40, 120))
    model = reader(task, "elman", hidden(rng), activation="relu", init="identity")
    for part in parts(model):
        part.params["w_h"].data.mul_(1.0 if remedied else rng.uniform(1.6, 3.0))
    return planted(model, task, rng)


@fault("LSTM that adds and never forgets", "HS314")
def never_forgets(rng: np.random.Generator, remedied: bool) -> Planted:
    task = one_of(rng, waves(between(rng, 50, 90)), recall(between(rng, 50, 90)))
    options = {} if remedied else {"forget_gate": False}
    model = reader(task, "lstm", hidden(rng), **options)
    for part in parts(model):
        bias = torch.as_tensor(rng.choice([-1.5, 1.5], part.cell.hidden_size))
        part.rows("b_x", "g").copy_(bias)
        part.set_bias("i", 2.0)
    return planted(model, task, rng)


@fault("recurrent weights that press every unit to 1 and -1", "HS315")
def pressed_by_itself(rng: np.random.Generator, remedied: bool) -> Planted:
    task = waves(between(rng, 12, 40))
    model = reader(task, one_of(rng, *PLAIN), one_of(rng, 16, 32, 64))
    for part in parts(model):
        part.orthogonal(1.0 if remedied else rng.uniform(150, 300))
    return planted(model, task, rng)


@fault("inputs far from 0 that hardly change", "HS316")
def offset(rng: np.random.Generator, remedied: bool) -> Planted:
    task = levels(between(rng, 12, 40), between(rng, 3, 8))
    model = reader(task, one_of(rng, *PLAIN, *LSTMS, *GRUS), hidden(rng))
    far = float(one_of(rng, -1, 1) * rng.uniform(1e3, 1e5))
    return planted(model, task if remedied else in_units(task, 1.0, far), rng)


@fault("input weights of 0", "HS316", "HS401")
def no_input(rng: np.random.Generator, remedied: bool) -> Planted:
    task = some_task(rng)
    model = reader(task, one_of(rng, *PLAIN, *LSTMS, *GRUS), hidden(rng))
    for part in [] if remedied else parts(model):
        nn.init.zeros_(part.params["w_x"])
    return planted(model, task, rng)
