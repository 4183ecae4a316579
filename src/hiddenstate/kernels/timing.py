"""How long kernels take over the same made-up sequences, measured in turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from time import perf_counter
from typing import NamedTuple

import numpy as np

from hiddenstate.cells.arrays import Array
from hiddenstate.cells.cell import Params
from hiddenstate.kernels.registry import Kernel, Request
from hiddenstate.kernels.scan import Scan, Zoneout

ZONEOUT = 0.1


class Example(NamedTuple):
    """What a kernel is given: parameters, x [B, T, D] and lengths [B] or None."""

    params: Params
    x: Array
    lengths: Array | None


def example(request: Request) -> Example:
    """Make up NumPy arrays for a request, the same ones every time.

    Ragged rows have lengths from T down to 1, evenly spread.
    """
    rng = np.random.default_rng(0)
    cell, batch, time = request.cell, request.batch, request.time
    drawn = cell.init(rng).items()
    params = {name: array.astype(request.dtype) for name, array in drawn}
    x = rng.standard_normal((batch, time, cell.input_size)).astype(request.dtype)
    lengths = np.linspace(time, 1, batch).astype(np.int64) if request.ragged else None
    return Example(params, x, lengths)


def measure(
    kernels: Sequence[Kernel],
    request: Request,
    given: Example,
    *,
    budget_s: float,
    then: Callable[[Scan], object] | None = None,
) -> dict[str, float]:
    """Return the median seconds of each kernel that does not refuse the request.

    given:    arrays of the kernels' own library, as `example` makes them in NumPy
    budget_s: as in `medians`
    then:     done to each Scan as part of the time, such as a backward pass
    """

    def call(kernel: Kernel) -> None:
        zoneout = Zoneout(dict.fromkeys(request.cell.state_shapes(), ZONEOUT))
        scan = kernel.run(
            request.cell,
            given.params,
            given.x,
            None,
            given.lengths,
            reverse=request.reverse,
            trace=request.needs_trace,
            zoneout=zoneout if request.zoneout else None,
            final_state=request.needs_state,
        )
        if then is not None:
            then(scan)

    able = [kernel for kernel in kernels if not kernel.refusals(request)]
    return medians({each.name: partial(call, each) for each in able}, budget_s)


def medians(calls: Mapping[str, Callable[[], object]], budget_s: float) -> dict[str, float]:
    """Return the median seconds of each call, made in turns until the budget is spent.

    In turns, so that a machine which slows down or speeds up does so for all of them. Every call is
    made once before, which is not counted, and at least once after.
    """
    end = perf_counter() + budget_s
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    while calls:
        for name, call in calls.items():
            start = perf_counter()
            call()
            times[name].append(perf_counter() - start)
        if perf_counter() > end:
            break
    return {name: median(each) for name, each in times.items()}
