"""Timing of kernels: all of a request is run, and in turns."""

from __future__ import annotations

from typing import Any

import numpy as np

from hiddenstate.cells import GRU, NUMPY
from hiddenstate.kernels import ReferenceKernel, Request, Scan, timing


class Watched:
    """The reference, which notes what it was given."""

    def __init__(self, name: str, *reasons: str) -> None:
        self.name, self.reasons, self.seen = name, reasons, list[Any]()

    def refusals(self, request: Request) -> list[str]:  # noqa: ARG002
        return [*self.reasons]

    def run(self, *given: Any, **options: Any) -> Scan:
        self.seen.append((given, options))
        return ReferenceKernel(NUMPY).run(*given, **options)


def test_a_kernel_runs_what_was_asked() -> None:
    request = Request(
        GRU(3, 4), 5, 7, "float64", ragged=True, reverse=True, needs_trace=True, zoneout=True
    )
    kernel, unable = Watched("able"), Watched("unable", "never")
    scans: list[Scan] = []
    times = timing.measure(
        [kernel, unable], request, timing.example(request), budget_s=0.0, then=scans.append
    )
    assert times.keys() == {"able"}
    assert times["able"] > 0
    assert unable.seen == []
    (_, _, x, state, lengths), options = kernel.seen[0]
    assert (x.shape, x.dtype) == ((5, 7, 3), np.float64)
    assert state is None
    assert lengths.tolist() == [7, 5, 4, 2, 1]
    assert options["reverse"]
    assert not options["final_state"]
    assert options["zoneout"].rates == {"h": timing.ZONEOUT}
    assert len(scans) == len(kernel.seen) == 2
    assert scans[0].gates is not None


def test_calls_take_turns_after_one_that_does_not_count() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    times = timing.medians(calls, budget_s=0.001)
    assert "".join(order) == "ab" * (len(order) // 2)
    assert len(order) >= 4
    assert set(times) == {"a", "b"}


def test_nobody_to_time() -> None:
    assert timing.medians({}, budget_s=1.0) == {}
