"""What `examine` sees of a module: axes found by probing, changes of a batch, and no mark left."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from hiddenstate.diagnose.finding import Skip
from hiddenstate.diagnose.subject.nested import leaves, tensors
from hiddenstate.diagnose.subject.subject import Subject
from hiddenstate.errors import ShapeError, UsageError
from hiddenstate.nn import stack_of

B, T, D, H = 6, 9, 3, 5
LENGTHS = torch.tensor([9, 2, 7, 4, 4, 1])


class Wrapped(nn.Module):
    """A layer in a module of the user's; given lengths it packs."""

    def __init__(self, layer: nn.RNNBase, *, total: bool = False) -> None:
        super().__init__()
        self.layer, self.total = layer, total
        self.head = nn.Linear(H * (2 if layer.bidirectional else 1), 4)

    def forward(self, x: Tensor, lengths: Any = None) -> dict[str, Tensor]:
        first = self.layer.batch_first
        if lengths is None:
            states, final = self.layer(x)
        else:
            packed = pack_padded_sequence(x, lengths, batch_first=first, enforce_sorted=False)
            states, final = self.layer(packed)
            total = T if self.total else None
            states, _ = pad_packed_sequence(states, batch_first=first, total_length=total)
        final = final[0] if isinstance(final, tuple) else final
        return {"tags": self.head(states), "final": final}


class Loop(nn.Module):
    """A cell over x [T, B, D], with its state in and out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.cell = nn.Embedding(7, D), nn.GRUCell(D, H)

    def forward(self, codes: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        h = torch.zeros(codes.shape[1], H) if h is None else h
        outputs = []
        for x_t in self.embed(codes):
            h = self.cell(x_t, h)
            outputs.append(h)
        return torch.stack(outputs), h


class Plain(nn.Module):
    """A recurrence without a layer that anybody knows, over x [T, B, D]."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.keep = nn.Linear(D, H), nn.Linear(H, H)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[1], H)
        for x_t in x:
            h = (self.read(x_t) + self.keep(h)).tanh()
        return h


class Halving(nn.Module):
    """Reads [B, D, T] and gives every second step."""

    def __init__(self) -> None:
        super().__init__()
        self.convolve = nn.Conv1d(D, D, 3, stride=2)
        self.layer = nn.LSTM(D, H, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.convolve(x).transpose(1, 2))[0]


class Case(nn.Module):
    """A mapping of facts, events and a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(D, H, batch_first=True)
        self.fact = nn.Linear(2, H)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        states = self.layer(batch["events"])[0]
        mean = (states * batch["mask"][..., None]).sum(1) / batch["mask"].sum(1, keepdim=True)
        return mean + self.fact(batch["facts"]), [states, states.mean(0)]


class Joined(nn.Module):
    """Gives rows and steps as one axis, as the classic language models do."""

    def __init__(self, *, first: bool) -> None:
        super().__init__()
        self.layer = nn.LSTM(D, H, batch_first=first)

    def forward(self, x: Tensor, hidden: Any = None) -> tuple[Tensor, Any]:
        states, hidden = self.layer(x, hidden)
        return states.reshape(-1, H), hidden


class Pairs(nn.Module):
    """A source and a target of the same number of steps that do not belong together."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = (nn.GRU(D, H, batch_first=True) for _ in range(2))

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.decoder(target, self.encoder(source)[1])[0]


def x(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def padded() -> Tensor:
    return torch.where(torch.arange(T)[None, :, None] < LENGTHS[:, None, None], x(B, T, D), 0.0)


def given_packed() -> Any:
    return pack_padded_sequence(padded(), LENGTHS, batch_first=True, enforce_sorted=False)


Axes = dict[str, tuple[int | None, int | None]]
BATCH_FIRST, STEPS_FIRST = (0, 1), (1, 0)

CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any], tuple[int, int], Axes]] = {
    "rows first": (
        lambda: Wrapped(nn.LSTM(D, H, batch_first=True)),
        lambda: (x(B, T, D),),
        BATCH_FIRST,
        {"output['tags']": (0, 1), "output['final']": (1, None)},
    ),
    "steps first": (
        lambda: Wrapped(nn.RNN(D, H, 2, bidirectional=True)),
        lambda: (x(T, B, D),),
        STEPS_FIRST,
        {"output['tags']": (1, 0), "output['final']": (1, None)},
    ),
    "as many rows as steps, rows first": (
        lambda: Wrapped(nn.GRU(D, H, batch_first=True)),
        lambda: (x(B, B, D),),
        BATCH_FIRST,
        {"output['tags']": (0, 1), "output['final']": (1, None)},
    ),
    "as many rows as steps, steps first": (
        lambda: Wrapped(nn.GRU(D, H)),
        lambda: (x(B, B, D),),
        STEPS_FIRST,
        {"output['tags']": (1, 0), "output['final']": (1, None)},
    ),
    "packed inside": (
        lambda: Wrapped(nn.GRU(D, H, batch_first=True)),
        lambda: (padded(), LENGTHS),
        BATCH_FIRST,
        {"output['tags']": (0, 1), "output['final']": (1, None)},
    ),
    "packed inside, steps first, lengths in a list": (
        lambda: Wrapped(nn.GRU(D, H)),
        lambda: {"x": padded().transpose(0, 1), "lengths": LENGTHS.tolist()},
        STEPS_FIRST,
        {"output['tags']": (1, 0), "output['final']": (1, None)},
    ),
    "packed inside, no row as long as the batch": (
        lambda: Wrapped(nn.LSTM(D, H, batch_first=True)),
        lambda: (padded(), (LENGTHS - 2).clamp(min=1)),
        BATCH_FIRST,
        {"output['tags']": (0, 1), "output['final']": (1, None)},
    ),
    "a PackedSequence": (
        lambda: nn.LSTM(D, H, batch_first=True),
        lambda: (given_packed(),),
        BATCH_FIRST,
        {"output[0]": (0, 1), "output[1][0]": (1, None), "output[1][1]": (1, None)},
    ),
    "symbols into a loop over cells": (
        Loop,
        lambda: (torch.arange(T * B).reshape(T, B) % 7,),
        STEPS_FIRST,
        {"output[0]": (1, 0), "output[1]": (0, None)},
    ),
    "no layer that is known, steps first": (
        Plain,
        lambda: (x(T, B, D),),
        STEPS_FIRST,
        {"output": (0, None)},
    ),
    "channels first": (
        Halving,
        lambda: (x(B, D, T),),
        (0, 2),
        {"output": (0, None)},
    ),
    "a mapping with a mask": (
        Case,
        lambda: (
            {
                "facts": x(B, 2),
                "events": padded(),
                "mask": (torch.arange(T) < LENGTHS[:, None]).float(),
            },
        ),
        BATCH_FIRST,
        {"output[0]": (0, None), "output[1][0]": (0, 1), "output[1][1]": (None, 0)},
    ),
    "a target of as many steps": (
        Pairs,
        lambda: (x(B, T, D), x(B, T, D).flip(1)),
        BATCH_FIRST,
        {"output": (0, None)},
    ),
    "rows and steps in one axis": (
        lambda: Joined(first=True),
        lambda: (x(B, T, D),),
        BATCH_FIRST,
        {"output[0]": (0, 1), "output[1][0]": (1, None), "output[1][1]": (1, None)},
    ),
    "steps and rows in one axis": (
        lambda: Joined(first=False),
        lambda: (x(T, B, D),),
        STEPS_FIRST,
        {"output[0]": (1, 0), "output[1][0]": (1, None), "output[1][1]": (1, None)},
    ),
    "ours": (
        lambda: stack_of("lstm", D, H, 2, bidirectional=True),
        lambda: (padded(), LENGTHS),
        BATCH_FIRST,
        {
            "output[0]": (0, 1),
            **{
                f"output[1][{layer}].{way}.{name}": (0, None)
                for layer in range(2)
                for way in ("forward", "backward")
                for name in ("h", "c")
            },
        },
    ),
}
every_case = pytest.mark.parametrize("name", CASES)


def subject(name: str) -> Subject:
    torch.manual_seed(0)
    make, batch, _, _ = CASES[name]
    return Subject(make(), batch())


@every_case
def test_axes_are_found_by_probing(name: str) -> None:
    found, (_, _, (rows, steps), outputs) = subject(name), CASES[name]
    place = found.layout.places[found.layout.main]
    assert (place.batch, place.time) == (rows, steps)
    assert {each.name: (each.batch_axis, each.time_axis) for each in found.outputs} == outputs
    assert found.fixed_rows is None
    assert found.fixed_steps is None
    assert found.astray == ()


@every_case
def test_rows_and_steps_taken_away_are_taken_from_everything(name: str) -> None:
    found = subject(name)
    rows, steps = [4, 0], 3
    for output, array in zip(
        found.outputs, found.run(found.steps(steps, arguments=found.rows(rows)))
    ):
        if output.batch_axis is not None:
            assert array.shape[output.batch_axis] == len(rows)
        if output.time_axis is not None:
            assert array.shape[output.time_axis] == steps
    if found.lengths is not None:
        kept = found.layout.lengths_of(found.steps(steps, arguments=found.rows(rows)))
        assert kept.tolist() == found.lengths[rows].clip(max=steps).tolist()


@every_case
def test_a_run_on_the_rows_alone_is_theirs_in_the_batch(name: str) -> None:
    found = subject(name)
    alone = found.run(found.rows([2]))
    for output, whole, one in zip(found.outputs, found.known, alone):
        if output.batch_axis is None:
            continue
        there = whole.select(output.batch_axis, 2)
        here = one.select(output.batch_axis, 0)
        if output.time_axis is not None:
            axis = output.time_axis - (output.time_axis > output.batch_axis)
            there = there.narrow(axis, 0, here.shape[axis])
        torch.testing.assert_close(here, there)


@every_case
def test_nothing_is_left_on_the_module_the_batch_and_the_generators(name: str) -> None:
    torch.manual_seed(0)
    make, batch, _, _ = CASES[name]
    module, given = make().train(), batch()
    before, kept = copy.deepcopy(module.state_dict()), copy.deepcopy(given)
    generators = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    found = Subject(module, given)
    found.run(found.changed(found.valid, np.random.default_rng(0)), seed=3)
    found.call(found.copy(), seed=1, training=True)
    assert module.training
    assert not module._forward_hooks
    assert all(not each._forward_pre_hooks for each in module.modules())
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key])
    for (_, one), (_, other) in zip(leaves(given, ""), leaves(kept, "")):
        assert all(
            torch.equal(a, b) for (_, a), (_, b) in zip(tensors(one), tensors(other), strict=True)
        )
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert (np.random.get_state()[1] == generators[1]).all()
    assert random.getstate() == generators[2]


@every_case
def test_a_change_stays_where_it_was_asked_for(name: str) -> None:
    found = subject(name)
    where = np.zeros((found.batch, found.time), bool)
    where[1, :2] = where[3, 1] = True
    after = found.on(found.changed(where, np.random.default_rng(0)), rows=range(found.batch))
    for array in found.sequences:
        one, other = found.array(array), after.array(array)
        differs = (one != other).reshape(found.batch, found.time, -1).any(-1).numpy()
        assert not differs[~where].any()
        assert differs.any()
        steps = {tuple(step.flatten().tolist()) for step in one[torch.as_tensor(found.valid)]}
        changed = other[torch.as_tensor(differs)]
        assert {tuple(step.flatten().tolist()) for step in changed} <= steps


def test_numbers_that_are_all_alike_get_noise() -> None:
    found = Subject(nn.GRU(D, H, batch_first=True), (torch.ones(B, T, D),))
    where = np.arange(B)[:, None] + np.zeros(T) == 2
    after = found.changed(where, np.random.default_rng(0))["input"]
    assert bool((after[2] != 1).all())
    assert bool((after[[0, 1, 3, 4, 5]] == 1).all())


@pytest.mark.parametrize("form", ["tensor", "list", "tuple", "array"])
def test_lengths_keep_their_form(form: str) -> None:
    as_given = {"tensor": lambda given: given, "list": list, "tuple": tuple, "array": np.asarray}[
        form
    ]
    lengths = as_given(LENGTHS if form == "tensor" else LENGTHS.tolist())
    found = Subject(Wrapped(nn.GRU(D, H, batch_first=True)), (padded(), lengths))
    assert found.lengths is not None
    assert found.lengths.tolist() == LENGTHS.tolist()
    told = found.with_lengths(np.array([3, 3, 3, 3, 3, 3]))["lengths"]
    assert type(told) is type(lengths)
    assert list(map(int, told)) == [3] * B


def test_a_mask_of_the_padding_is_read_and_made_anew() -> None:
    class PaddingMask(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.GRU(D, H, batch_first=True)

        def forward(self, x: Tensor, key_padding_mask: Tensor) -> Tensor:
            return self.layer(x)[0].masked_fill(key_padding_mask[..., None], 0.0)

    mask = torch.arange(T) >= LENGTHS[:, None]
    found = Subject(PaddingMask(), (padded(), mask))
    assert found.lengths is not None
    assert found.lengths.tolist() == LENGTHS.tolist()
    told = found.with_lengths(np.array([1, 2, 3, 4, 5, 6]))["key_padding_mask"]
    assert (~told).sum(1).tolist() == [1, 2, 3, 4, 5, 6]


def test_a_layer_that_takes_the_rows_for_steps_is_named() -> None:
    layer = nn.GRU(D, H)
    assert Subject(layer, (padded(), None)).astray == ()
    assert Subject(layer, (x(B, T, D),), batch_first=True).astray == ("",)

    class Forgotten(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            return self.layer(x)[0][torch.arange(len(x)), lengths - 1]

    assert Subject(Forgotten(), (padded(), LENGTHS)).astray == ("layer",)


@pytest.mark.parametrize("first", [True, False])
def test_rows_and_steps_in_one_axis_are_split_and_joined_again(first: bool) -> None:
    given = x(B, T, D) if first else x(T, B, D)
    module = Joined(first=first)
    found = Subject(module, (given,))
    states = module.layer(given)[0]
    assert torch.equal(found.run()[0], states)
    assert torch.equal(found.as_given(found.raw())[0], states.flatten(0, 1))


def test_states_are_found_by_name_or_told() -> None:
    assert Subject(nn.LSTM(D, H, batch_first=True), (x(B, T, D),)).states == ("hx",)
    assert subject("symbols into a loop over cells").states == ("h",)

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.GRU(D, H, batch_first=True)

        def forward(self, x: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
            return self.layer(x, before)

    assert Subject(Odd(), (x(B, T, D),)).states == ()
    assert Subject(Odd(), (x(B, T, D),), states=["before"]).states == ("before",)
    deep = nn.GRU(D, H, 2, batch_first=True)
    # As many layers as rows.
    given = Subject(deep, (x(2, T, D), x(2, 2, H)))
    assert torch.equal(given.rows([1])["hx"], x(2, 2, H)[:, 1:])


def test_padding_that_nobody_told_of_is_seen() -> None:
    module = nn.GRU(D, H, batch_first=True)
    found = Subject(module, (padded(),))
    assert found.padded == "seen"
    assert found.ends.tolist() == LENGTHS.tolist()
    assert Subject(module, (x(B, T, D),)).padded is None
    sparse = x(B, T, D) * (torch.rand(B, T, 1, generator=torch.Generator().manual_seed(0)) > 0.5)
    assert Subject(module, (sparse,)).padded is None


def test_few_rows_hold_the_longest_and_the_shortest() -> None:
    lengths = torch.tensor([4, 1, 7, 9, 4, 2])
    few = Subject(Wrapped(nn.GRU(D, H, batch_first=True)), (padded(), lengths)).few(3)
    assert few.batch == 3
    assert few.lengths is not None
    assert {9, 1} <= set(few.lengths.tolist())
    assert few.run()[0].shape == (3, 9, 4)


def test_parameters_that_are_all_zeros_are_stirred_on_a_copy() -> None:
    module = nn.GRU(D, H, batch_first=True)
    nn.init.zeros_(module.bias_hh_l0)
    found = Subject(module, (x(B, T, D),))
    stirred = found.stirred(np.random.default_rng(0))
    assert stirred.module.bias_hh_l0.all()
    assert torch.equal(stirred.module.weight_hh_l0, module.weight_hh_l0)
    assert not found.module.bias_hh_l0.any()
    assert not torch.equal(stirred.run()[0], found.run()[0])


def test_a_state_kept_with_its_graph_can_be_examined() -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.h = nn.GRU(D, H, batch_first=True), None

        def forward(self, x: Tensor) -> Tensor:
            output, self.h = self.layer(x, self.h)
            return output

    module = Keeping()
    module(x(B, T, D))
    kept = module.h
    found = Subject(module, (x(B, T, D),))
    assert torch.equal(found.run()[0], found.run()[0])
    assert module.h is kept


def test_a_module_that_writes_into_its_arguments_finds_them_as_they_were() -> None:
    class Writing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.GRU(D, H, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.mul_(2.0))[0]

    given = x(B, T, D)
    found = Subject(Writing(), (given,))
    assert torch.equal(found.run()[0], found.run()[0])
    assert torch.equal(given, x(B, T, D))


def test_what_cannot_be_examined_is_said() -> None:
    layer = nn.GRU(D, H, batch_first=True)
    with pytest.raises(UsageError, match="does not run on the batch"):
        Subject(layer, (x(B, T, D + 1),))
    with pytest.raises(UsageError, match=r"does not fit GRU\.forward"):
        Subject(layer, (x(B, T, D), None, None))
    with pytest.raises(ShapeError, match="without an axis of rows"):
        Subject(layer, (x(T, D),))
    with pytest.raises(ShapeError, match="None of the arguments has rows and steps"):
        Subject(nn.Linear(D, H), (x(D),))
    found = Subject(Loop(), (torch.ones(T, B, dtype=torch.int64),))
    with pytest.raises(Skip, match="alike"):
        found.changed(found.valid, np.random.default_rng(0))
    with pytest.raises(Skip, match="the module raised RuntimeError"):
        Subject(layer, (x(B, T, D),)).run({"input": x(B, T, D + 1)})
