"""Item 4: h_t = a_t * h_{t-1} + b_t, a recurrence with one multiply-add for three memory accesses.

The measure is the traffic of torch.add(a, b) into given memory, which reads two arrays and writes
one as the forward scan does; the backward one reads three (a, h and the gradient) and writes two.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.kernels import jax_candidates
from benchmarks.kernels.measure import Candidate, Row, measured
from benchmarks.kernels.plan import Setting
from hiddenstate import kernels, nn

SHAPE, QUICK_SHAPE = (8, 4096, 256), (8, 256, 256)
NUMPY, TORCH = "hiddenstate, NumPy", "hiddenstate"
LOOP, JAX = "torch loop", "JAX scan"
ADD, NEW_ADD = "torch.add", "torch.add, new memory"
LOOP_TARGET, BACKWARD_TARGET = 12.0, 0.6
FORWARD_TARGETS = {1: 0.85, 2: 0.7}
FORWARD_ARRAYS, BACKWARD_ARRAYS = 3, 5


def rows(setting: Setting) -> Iterator[Row]:
    """Yield a row for the forward and one for the backward pass."""
    shape = QUICK_SHAPE if setting.quick else SHAPE
    rng = np.random.default_rng(0)
    a = (rng.random(shape, dtype=np.float32) * 0.98 + 0.01).astype(np.float32)
    b, gradient = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    yield _forward(a, b, setting)
    yield _backward(*map(torch.tensor, (a, b, gradient)), setting)


def _loop(a: Any, b: Any) -> Any:
    # unbind, because the gradient of a[:, t] is an array of the whole size for every t.
    h, steps = torch.zeros_like(a[:, 0]), []
    for a_t, b_t in zip(a.unbind(1), b.unbind(1)):
        h = a_t * h + b_t
        steps.append(h)
    return torch.stack(steps, 1)


def _forward(a: Any, b: Any, setting: Setting) -> Row:
    tensors = torch.tensor(a), torch.tensor(b)

    def by_torch() -> Any:
        with torch.no_grad():
            return nn.linear_scan(*tensors)

    candidates = {
        NUMPY: Candidate(lambda: kernels.linear_scan(a, b), lambda h: [h]),
        TORCH: Candidate(by_torch, lambda h: [h]),
        LOOP: Candidate(lambda: _loop(*tensors), lambda h: [h]),
    }
    if jax_candidates.HAS_JAX:
        candidates[JAX] = jax_candidates.linear_scan(a, b)
    row = _measured("forward", candidates, [_loop(*(each.double() for each in tensors))], setting)
    for name, what in ((NUMPY, "NumPy"), (TORCH, "layer")):
        row.compare(name, [LOOP], f"{what} × torch loop", LOOP_TARGET)
        _traffic(row, name, what, FORWARD_ARRAYS, FORWARD_TARGETS[setting.threads])
    return row


def _backward(a: Any, b: Any, gradient: Any, setting: Setting) -> Row:
    def graph(scan: Any, wide: bool = False) -> Candidate:
        inputs = [(each.double() if wide else each.clone()).requires_grad_() for each in (a, b)]
        start = gradient.double() if wide else gradient
        h = scan(*inputs)
        return Candidate(
            lambda: torch.autograd.grad(h, inputs, start, retain_graph=True), lambda grads: grads
        )

    candidates = {TORCH: graph(nn.linear_scan), LOOP: graph(_loop)}
    wide = graph(_loop, wide=True)
    row = _measured("backward", candidates, wide.call(), setting)
    row.compare(TORCH, [LOOP], "layer × torch loop")
    _traffic(row, TORCH, "layer", BACKWARD_ARRAYS, BACKWARD_TARGET)
    return row


def _measured(what: str, candidates: dict[str, Candidate], truth: Any, setting: Setting) -> Row:
    """Measure the scans, and the additions in the same rounds."""
    a, b = torch.rand(truth[0].shape), torch.rand(truth[0].shape)
    out = torch.ones_like(a)
    # The additions set the pace and compute nothing that could be compared with a scan.
    paces = {
        ADD: Candidate(lambda: torch.add(a, b, out=out), lambda _: truth),
        NEW_ADD: Candidate(lambda: torch.add(a, b), lambda _: truth),
    }
    shape = "x".join(map(str, a.shape))
    return measured(f"{what} {shape}", {**candidates, **paces}, truth, setting, LOOP)


def _traffic(row: Row, name: str, what: str, arrays: int, least: float) -> None:
    pairs = zip(row.samples[ADD], row.samples.get(name, []), strict=False)
    shares = [arrays / FORWARD_ARRAYS * add / own for add, own in pairs]
    row.check(f"{what}, share of torch.add's traffic", shares, least)
