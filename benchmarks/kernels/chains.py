"""Item 11: a step's product with each sum in one chain over k, and with sums in any order.

One chain is what makes a row's bits the same in any batch. The alternatives are free: two and four
partial sums where one row runs alone, and the libraries' products.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.kernels import machine
from benchmarks.kernels.measure import Candidate, Row, measured
from benchmarks.kernels.plan import Setting

BATCHES, WIDTHS, GATES = (1, 4, 64), (64, 256, 512), 4
CHAIN, MM, ONEDNN = "one chain", "torch.mm", "oneDNN"
SEVERAL = {"two chains": "two_chains", "four chains": "four_chains"}
# Multiply-adds of one call: a small product is made many times, or its call would be the time.
WORK = 2_000_000


def rows(setting: Setting) -> Iterator[Row]:
    """Yield a row for each batch and width."""
    library = machine.compiled("chains.cpp", setting.variant)
    for batch in BATCHES[:1] if setting.quick else BATCHES:
        for width in WIDTHS:
            if library is None:
                yield Row(f"B={batch} H={width}", wrong={CHAIN: "not measured: no C++ compiler"})
            else:
                yield _row(library, batch, width, setting)


def _row(library: Any, batch: int, width: int, setting: Setting) -> Row:
    torch.manual_seed(0)
    x, w = torch.randn(batch, width), torch.randn(GATES * width, width)
    times = max(1, WORK // (batch * w.numel()))
    packed = torch.empty_like(w)
    library.pack(*map(ctypes.c_long, w.shape[::-1]), _pointer(w), _pointer(packed))

    def ours(name: str) -> Candidate:
        y = torch.empty(batch, len(w))
        sizes = map(ctypes.c_long, (times, batch, width, len(w)))
        run, given = getattr(library, name), (*sizes, *map(_pointer, (x, packed, y)))
        return Candidate(lambda: run(*given), lambda _: [y])

    columns, out = w.T.contiguous(), torch.empty(batch, len(w))
    held: Any = torch.ops.mkldnn._reorder_linear_weight(w, batch)
    product: Any = torch.ops.mkldnn._linear_pointwise
    candidates = {CHAIN: ours("one_chain")}
    if batch == 1:
        candidates |= {name: ours(function) for name, function in SEVERAL.items()}
    candidates[MM] = _repeated(times, lambda: torch.mm(x, columns, out=out))
    candidates[ONEDNN] = _repeated(times, lambda: product(x, held, None, "none", [], ""))
    case = f"B={batch} H={width}"
    row = measured(case, candidates, [x.double() @ w.double().T], setting, MM)
    row.samples = {name: [each / times for each in took] for name, took in row.samples.items()}
    row.compare(CHAIN, [*SEVERAL], "× several chains")
    row.compare(CHAIN, [MM, ONEDNN], "× libraries")
    return row


def _pointer(tensor: Any) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _repeated(times: int, call: Callable[[], Any]) -> Candidate:
    def calls() -> Any:
        for _ in range(times):
            last = call()
        return last

    return Candidate(calls, lambda y: [y])
