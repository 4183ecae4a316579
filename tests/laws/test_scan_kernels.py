"""Choosing a kernel: refusals are data, and never an exception."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from hiddenstate.cells import GRU, NUMPY
from hiddenstate.errors import KernelRefusal, ShapeError, SpecError
from hiddenstate.kernels import ReferenceKernel, Request, Scan, Zoneout, choose, explain, scan
from hiddenstate.nn.arrays import TORCH
from tests.laws.cell_cases import input_of, params_of, same, state_of

CELL = GRU(3, 5)
ASKED = Request(CELL, batch=3, time=7, dtype="float64", ragged=True)


@dataclass
class Picky:
    name: str
    reasons: list[str] = field(default_factory=list)

    def refusals(self, _request: Request) -> list[str]:
        return self.reasons

    def run(self, *args: Any, **options: Any) -> Scan:
        raise NotImplementedError


FAST, NARROW = Picky("fast"), Picky("narrow", ["one row only", "no trace"])
REFERENCE = ReferenceKernel(NUMPY)


def test_first_without_refusals_runs() -> None:
    assert choose([NARROW, FAST, REFERENCE], ASKED) is FAST
    assert choose([NARROW, REFERENCE, FAST], ASKED) is REFERENCE
    assert choose([NARROW, FAST, REFERENCE], ASKED, "reference") is REFERENCE


def test_explanation_names_every_kernel() -> None:
    told = explain([NARROW, FAST, REFERENCE], ASKED)
    assert [(verdict.kernel, verdict.runs) for verdict in told] == [
        ("narrow", False),
        ("fast", True),
        ("reference", False),
    ]
    assert told[0].refusals == ["one row only", "no trace"]
    assert told[2].refusals == []


def test_named_kernel_runs_or_raises() -> None:
    with pytest.raises(KernelRefusal, match="narrow: one row only, no trace") as caught:
        choose([NARROW, FAST], ASKED, "narrow")
    assert "fast" not in str(caught.value)
    with pytest.raises(KernelRefusal, match=r"Did you mean fast\?"):
        choose([NARROW, FAST], ASKED, "fats")


def test_all_refusals_are_listed() -> None:
    training = Request(CELL, 3, 7, needs_grad=True)
    with pytest.raises(KernelRefusal, match=r"narrow: .*; reference: numpy records no gradients"):
        choose([NARROW, REFERENCE], training)
    assert choose([NARROW, ReferenceKernel(TORCH)], training).name == "reference"


def test_an_exception_is_not_a_refusal() -> None:
    class Broken(Picky):
        def refusals(self, _request: Request) -> list[str]:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        choose([Broken("broken"), REFERENCE], ASKED)


def test_reference_kernel_is_the_scan() -> None:
    params, x, state = params_of(CELL), input_of(CELL), state_of(CELL)
    zoneout = Zoneout({"h": 0.3})
    options = {"reverse": True, "trace": True, "zoneout": zoneout}
    left = REFERENCE.run(CELL, params, x, state, [7, 0, 3], **options)
    right = scan(NUMPY, CELL, params, x, state, [7, 0, 3], **options)
    assert same([left.output, *left.state, *left.gates], [right.output, *right.state, *right.gates])


def test_zoneout_mask_of_another_shape_is_refused() -> None:
    masks = CELL.State(np.ones((3, 1, 5), bool))
    with pytest.raises(ShapeError, match="The zoneout mask for 'h' has shape"):
        scan(NUMPY, CELL, params_of(CELL), input_of(CELL), zoneout=Zoneout({"h": 0.1}, masks))


@pytest.mark.parametrize("rates", [{"c": 0.1}, {"h": 1.0}, {"h": -0.1}, {"h": np.nan}])
def test_impossible_zoneout_is_refused(rates: dict[str, float]) -> None:
    with pytest.raises(SpecError, match="Zoneout got the rate"):
        scan(NUMPY, CELL, params_of(CELL), input_of(CELL), zoneout=Zoneout(rates))
