"""What the rules advise works: a small task is not learned with the fault, and is without."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from hiddenstate.diagnose.examine import examine
from hiddenstate.diagnose.finding import Severity
from tests.faults.small import (
    Reader,
    Task,
    in_units,
    levels,
    n_back,
    parts,
    planted,
    reader,
    recall,
    teach,
)

Made = tuple[Reader, Task]


def forget_bias(right: bool) -> Made:
    task = recall(8)
    model = reader(task, "torch lstm", 24)
    for part in parts(model):
        part.set_bias("f", 1.0 if right else -6.0)
    return model, task


def scaled_inputs(right: bool) -> Made:
    task = levels(12, 4)
    return reader(task, "torch gru", 16), task if right else in_units(task, 1e4)


def orthogonal_weights(right: bool) -> Made:
    task = n_back(3, 12)
    model = reader(task, "elman", 32)
    for part in parts(model):
        part.orthogonal(1.0 if right else 1e-4)
    return model, task


def units_that_are_on(right: bool) -> Made:
    task = n_back(1, 10)
    model = reader(task, "elman", 24, activation="relu", init="identity")
    for part in parts(model):
        part.set_bias("h", 0.0 if right else -8.0)
    return model, task


def drawn_weights(right: bool) -> Made:
    task = n_back(3, 12)
    model = reader(task, "elman", 32)
    for part in [] if right else parts(model):
        for weight in part.params.values():
            nn.init.constant_(weight, 0.1)
    return model, task


@pytest.mark.parametrize(
    ("make", "code", "rate"),
    [
        (forget_bias, "HS303", 1e-2),
        (scaled_inputs, "HS301", 1e-2),
        (orthogonal_weights, "HS201", 1.5e-3),
        (units_that_are_on, "HS311", 3e-3),
        (drawn_weights, "HS401", 3e-3),
    ],
)
def test_the_remedy_is_what_was_missing(
    make: Callable[[bool], Made], code: str, rate: float
) -> None:
    left = {}
    for right in (False, True):
        torch.manual_seed(0)
        rng = np.random.default_rng(0)
        model, task = make(right)
        case = planted(model, task, rng)
        found = examine(case.module, case.batch, case.loss, only=[code]).findings
        assert bool(found) != right
        assert all(each.severity is not Severity.NOTE for each in found)
        losses = teach(model, task, rng, 120, rate=rate)
        left[right] = np.mean(losses[-10:]) / np.log(task.classes)
    # In shares of what guessing costs.
    assert left[True] < 0.5
    assert left[False] > 0.7
